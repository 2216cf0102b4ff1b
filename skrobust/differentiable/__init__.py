"""Differentiable views of fitted estimators.

:func:`to_torch` turns a fitted classifier or transformer into a :class:`torch.nn.Module` that
computes the same function. Importing this package imports all its private modules, which register
the estimators of scikit-learn and skorch: one module for each module of scikit-learn.
"""

from importlib import import_module
from pkgutil import iter_modules

from ._registry import to_torch
from ._straight_through import StraightThrough, straight_through

for _module in iter_modules(__path__):
    if _module.name.startswith("_"):
        import_module(f"{__name__}.{_module.name}")

__all__ = ["StraightThrough", "straight_through", "to_torch"]
