"""Defenses: training objectives for RobustClassifier."""

from ._adversarial import TRADES, AdversarialTraining
from ._base import BaseDefense
from ._gradient import InputGradientRegularization
from ._standard import GaussianAugmentation, StandardTraining

__all__ = [
    "TRADES",
    "AdversarialTraining",
    "BaseDefense",
    "GaussianAugmentation",
    "InputGradientRegularization",
    "StandardTraining",
]
