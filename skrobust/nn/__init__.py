"""Neural networks that RobustClassifier knows by name."""

from ._cnn import CNN
from ._mlp import MLP

__all__ = ["CNN", "MLP"]
