"""The parts that attacks share: base classes, losses, searches, schedules, diagnosis."""

from ._base import AttackResult, BaseAttack
from ._minimum_norm import MinimumNormAttack

__all__ = ["AttackResult", "BaseAttack", "MinimumNormAttack"]
