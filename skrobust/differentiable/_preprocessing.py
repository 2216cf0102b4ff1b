"""Views of scalers and other transformers of ``sklearn.preprocessing``."""

from collections.abc import Hashable

import numpy as np
import scipy.special
import torch
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ..exceptions import NotDifferentiableError
from ._modules import Chain, Clip, Float64, Identity, Scale, View
from ._registry import to_torch
from ._straight_through import StraightThrough


@to_torch.register(StandardScaler)
def _(estimator):
    # mean_ exists even if it is not subtracted.
    return _standardize(estimator.mean_ if estimator.with_mean else None, estimator.scale_)


@to_torch.register(RobustScaler)
def _(estimator):
    return _standardize(estimator.center_, estimator.scale_)


def _standardize(center, scale):
    """Return the view of ``(x - center) / scale``; None leaves out either operation."""
    if center is None and scale is None:
        return Identity()
    scale = 1.0 if scale is None else 1.0 / scale
    return Scale(scale, 0.0 if center is None else -center * scale)


@to_torch.register(MinMaxScaler)
def _(estimator):
    scale = Scale(estimator.scale_, estimator.min_)
    return Chain(scale, Clip(*estimator.feature_range)) if estimator.clip else scale


@to_torch.register(MaxAbsScaler)
def _(estimator):
    scale = Scale(1.0 / estimator.scale_)
    # Older versions of scikit-learn have no parameter clip.
    return Chain(scale, Clip(-1.0, 1.0)) if getattr(estimator, "clip", False) else scale


@to_torch.register(Normalizer)
def _(estimator):
    return UnitNorm({"l1": 1, "l2": 2, "max": torch.inf}[estimator.norm])


class UnitNorm(View):
    """Division of rows by their norm; rows of zeros are not changed."""

    def __init__(self, order):
        super().__init__()
        self.order = order

    def forward(self, x):
        norm = torch.linalg.vector_norm(x, self.order, dim=1, keepdim=True)
        # The same limit as in Normalizer.transform.
        return x / norm.masked_fill(norm < 10 * torch.finfo(x.dtype).eps, 1.0)


@to_torch.register(PolynomialFeatures)
def _(estimator):
    return Monomials(estimator.powers_)


class Monomials(View):
    """Products of columns.

    They are computed by repeated multiplication, because the gradient of ``pow`` is slow and needs
    special care at 0. One gather collects factor j of all products; a column of ones stands in for
    the missing factors of shorter products.
    """

    def __init__(self, powers):
        super().__init__()
        n_products, n_features = powers.shape
        factors = np.full((max(1, powers.sum(axis=1).max()), n_products), n_features)
        for product, exponents in enumerate(powers):
            factors[: exponents.sum(), product] = np.repeat(np.arange(n_features), exponents)
        self.register_buffer("factors", torch.from_numpy(factors))

    def forward(self, x):
        x = nn.functional.pad(x.to(self.factors.device), (0, 1), value=1.0)
        first, *others = self.factors
        product = x.index_select(1, first)
        for factor in others:
            product = product * x.index_select(1, factor)
        return product


# numpy functions do not accept tensors with gradients. These exist in torch by the same name.
# fmt: off
_UFUNCS = (
    np.absolute, np.arccos, np.arccosh, np.arcsin, np.arcsinh, np.arctan, np.arctanh, np.cos,
    np.cosh, np.deg2rad, np.exp, np.exp2, np.expm1, np.log, np.log10, np.log1p, np.log2,
    np.negative, np.positive, np.rad2deg, np.reciprocal, np.sin, np.sinh, np.sqrt, np.square,
    np.tan, np.tanh,
)
# fmt: on
_TORCH_FUNCTIONS = {
    **{ufunc: getattr(torch, ufunc.__name__) for ufunc in _UFUNCS},
    np.fabs: torch.abs,
    scipy.special.expit: torch.special.expit,
    scipy.special.logit: torch.special.logit,
}
# Step functions: their gradients are zero.
_TORCH_STEPS = {
    np.round: torch.round,
    np.around: torch.round,
    np.rint: torch.round,
    np.floor: torch.floor,
    np.ceil: torch.ceil,
    np.trunc: torch.trunc,
    np.fix: torch.trunc,
    np.sign: torch.sign,
}


@to_torch.register(FunctionTransformer)
def _(estimator):
    if estimator.func is None:
        return Identity()
    n_features = 1
    # Look up any function, not only ufuncs: with array API dispatch, those of scipy are none.
    if isinstance(estimator.func, Hashable) and estimator.func in _TORCH_FUNCTIONS:
        view = Function(_TORCH_FUNCTIONS[estimator.func], estimator.kw_args)
    elif isinstance(estimator.func, Hashable) and estimator.func in _TORCH_STEPS:
        step = Function(_TORCH_STEPS[estimator.func], estimator.kw_args)
        # Rounding the input to float32 can move it across a step.
        view = StraightThrough(Chain(Float64(), step))
    else:
        # Any other function is tried out on the number of columns that it was fitted on.
        check_is_fitted(estimator, "n_features_in_")
        n_features = estimator.n_features_in_
        view = Function(estimator.func, estimator.kw_args)
    _check_function(estimator, view, n_features)
    return view


class Function(View):
    """Function of the user with its keyword arguments."""

    def __init__(self, func, kw_args):
        super().__init__()
        self.func = func
        self.kw_args = kw_args or {}

    def forward(self, x):
        return self.func(x, **self.kw_args)


def _check_function(estimator, view, n_features):
    """Check that a function keeps gradients, and gives the same values for tensors and arrays."""
    # Logarithms and roots are defined between 0 and 1.
    probe = np.linspace(0.05, 0.95, 5 * n_features).reshape(5, n_features)
    try:
        with np.errstate(all="ignore"), torch.enable_grad():
            expected = np.asarray(estimator.func(probe.copy(), **(estimator.kw_args or {})))
            output = view(torch.from_numpy(probe).requires_grad_())
    except Exception as error:
        reason = f"raised {type(error).__name__} ({error})"
        raise _function_error(estimator, reason) from error
    if not (isinstance(output, torch.Tensor) and output.requires_grad):
        raise _function_error(estimator, "loses the gradients")
    values = output.detach().numpy()
    if values.shape != expected.shape or not np.allclose(values, expected, equal_nan=True):
        raise _function_error(estimator, "gives other values for a tensor than for an array")


def _function_error(estimator, reason):
    name = getattr(estimator.func, "__name__", repr(estimator.func))
    return NotDifferentiableError(
        f"{type(estimator).__name__}(func={name}) has no differentiable view: its function "
        f"{reason}. It must take a torch tensor (or be a numpy ufunc itself, like np.log1p), keep "
        "the gradients, and give the same values as for an array. If its output stays near its "
        "input, use a subclass with __to_torch__ = straight_through in its body."
    )
