"""Adversarial robustness for scikit-learn: attack, train, score and select classifiers."""

from .classifiers import RobustClassifier
from .differentiable import to_torch
from .smoothing import SmoothedClassifier

__all__ = ["RobustClassifier", "SmoothedClassifier", "to_torch"]
__version__ = "0.1.0"
