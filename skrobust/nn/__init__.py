"""Neural networks that RobustClassifier accepts by name."""

from ._cnn import CNN
from ._mlp import MLP

__all__ = ["CNN", "MLP"]
