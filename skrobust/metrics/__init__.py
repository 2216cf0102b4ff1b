"""Scores of robustness, and scorers for model selection."""

from ._scorer import make_robust_scorer
from ._scores import robust_accuracy_curve, robust_accuracy_score

__all__ = ["make_robust_scorer", "robust_accuracy_curve", "robust_accuracy_score"]
