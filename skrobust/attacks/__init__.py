"""Attacks: adversarial inputs for any classifier, as functions and as transformers."""

from ._apgd import APGD
from ._auto_attack import AutoAttack
from ._base import AttackResult, BaseAttack
from ._fab import FAB
from ._fgsm import FGSM
from ._minimum_norm import MinimumNormAttack
from ._pgd import PGD
from ._square import Square

__all__ = [
    "APGD",
    "FAB",
    "FGSM",
    "PGD",
    "AttackResult",
    "AutoAttack",
    "BaseAttack",
    "MinimumNormAttack",
    "Square",
]
