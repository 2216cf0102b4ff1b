"""Classifiers that are trained to withstand attacks."""

from ._robust import RobustClassifier

__all__ = ["RobustClassifier"]
