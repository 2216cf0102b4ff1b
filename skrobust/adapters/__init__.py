"""A fitted classifier as attacks, scores and smoothing see it: labels, predictions, access."""

from ._access import DecisionAccess, GradientAccess, ScoreAccess, find_access
from ._classifier import FittedClassifier

__all__ = [
    "DecisionAccess",
    "FittedClassifier",
    "GradientAccess",
    "ScoreAccess",
    "find_access",
]
