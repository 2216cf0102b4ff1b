"""Differentiable views of fitted estimators.

:func:`to_torch` turns a fitted classifier or transformer into a :class:`torch.nn.Module` that
computes the same thing. Importing this package registers the estimators of scikit-learn and
skorch; the other modules of the package hold their builders, one module for each module of
scikit-learn.
"""

from . import (  # noqa: F401  (imported for the builders that they register)
    _compose,
    _decomposition,
    _discriminant_analysis,
    _feature_selection,
    _linear_model,
    _naive_bayes,
    _nets,
    _neural_network,
    _preprocessing,
)
from ._registry import to_torch

__all__ = ["to_torch"]
