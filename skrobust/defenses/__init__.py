"""Defenses: training objectives for RobustClassifier."""

from ._adversarial import TRADES, AdversarialTraining
from ._base import BaseDefense
from ._consistency import Consistency
from ._gradient import InputGradientRegularization
from ._macer import MACER
from ._noise_augmentation import NoiseAugmentation
from ._smooth_adv import SmoothAdv
from ._stability import Stability
from ._standard import GaussianAugmentation, StandardTraining

__all__ = [
    "MACER",
    "TRADES",
    "AdversarialTraining",
    "BaseDefense",
    "Consistency",
    "GaussianAugmentation",
    "InputGradientRegularization",
    "NoiseAugmentation",
    "SmoothAdv",
    "Stability",
    "StandardTraining",
]
