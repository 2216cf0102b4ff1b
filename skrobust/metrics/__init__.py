"""Metrics: scores of robustness, and scorers for model selection."""

from ._certified import (
    average_certified_radius_score,
    certified_accuracy_score,
    make_certified_scorer,
)
from ._scorer import make_robust_scorer
from ._scores import robust_accuracy_curve, robust_accuracy_score

__all__ = [
    "average_certified_radius_score",
    "certified_accuracy_score",
    "make_certified_scorer",
    "make_robust_scorer",
    "robust_accuracy_curve",
    "robust_accuracy_score",
]
