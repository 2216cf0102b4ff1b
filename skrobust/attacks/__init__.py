"""Attacks: adversarial inputs for any classifier, as functions and as transformers."""

from ._base import AttackResult, BaseAttack
from ._fgsm import FGSM
from ._pgd import PGD

__all__ = ["FGSM", "PGD", "AttackResult", "BaseAttack"]
