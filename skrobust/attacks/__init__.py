"""Attacks: adversarial inputs for any classifier, as functions and as transformers."""

from ._apgd import APGD
from ._auto_attack import AutoAttack
from ._carlini_wagner import CarliniWagner
from ._ddn import DDN
from ._deepfool import DeepFool
from ._fab import FAB
from ._fgsm import FGSM
from ._fmn import FMN
from ._hop_skip_jump import HopSkipJump
from ._pgd import PGD
from ._resolve import resolve_attack
from ._sigma_zero import SigmaZero
from ._square import Square
from .core import AttackResult, BaseAttack, MinimumNormAttack

__all__ = [
    "APGD",
    "DDN",
    "FAB",
    "FGSM",
    "FMN",
    "PGD",
    "AttackResult",
    "AutoAttack",
    "BaseAttack",
    "CarliniWagner",
    "DeepFool",
    "HopSkipJump",
    "MinimumNormAttack",
    "SigmaZero",
    "Square",
    "resolve_attack",
]
