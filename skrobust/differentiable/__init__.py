"""Differentiable views of fitted estimators.

:func:`to_torch` turns a fitted classifier or transformer into a :class:`torch.nn.Module` that
computes the same thing. Importing this package registers the estimators of scikit-learn and
skorch; the other modules of the package hold their builders, one module for each module of
scikit-learn.
"""

from . import (  # noqa: F401  (imported for the builders that they register)
    _compose,
    _decomposition,
    _discretization,
    _discriminant_analysis,
    _feature_selection,
    _linear_model,
    _naive_bayes,
    _nets,
    _neural_network,
    _preprocessing,
    _svm,
)
from ._registry import to_torch
from ._straight_through import StraightThrough, straight_through

__all__ = ["StraightThrough", "straight_through", "to_torch"]
