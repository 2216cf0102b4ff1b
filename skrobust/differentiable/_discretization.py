"""Views of discretizers: exact step functions, with gradients of piecewise linear ones."""

import numpy as np
import torch
from sklearn.preprocessing import Binarizer, KBinsDiscretizer

from ._modules import Chain, View, as_buffer
from ._registry import to_torch
from ._straight_through import StraightThrough


@to_torch.register(Binarizer)
def _(estimator):
    return StraightThrough(Above(estimator.threshold))


class Above(View):
    """1 where the input exceeds a threshold, otherwise 0."""

    def __init__(self, threshold):
        super().__init__()
        self.register_buffer("threshold", as_buffer(threshold))

    def forward(self, x):
        return (x.to(self.threshold) > self.threshold).to(self.threshold)


@to_torch.register(KBinsDiscretizer)
def _(estimator):
    edges = estimator.bin_edges_
    exact = Bin(edges, single=estimator.dtype == np.float32)
    surrogate = BinPosition(edges)
    if estimator.encode == "ordinal":
        return StraightThrough(exact, surrogate)
    n_bins = [len(feature) - 1 for feature in edges]
    return StraightThrough(
        Chain(exact, InterpolatedOneHot(n_bins)), Chain(surrogate, InterpolatedOneHot(n_bins))
    )


class _Piecewise(View):
    """Base of piecewise functions of each feature, with one formula between neighboring knots."""

    def __init__(self, knots):
        super().__init__()
        # The infinite knot is for features without knots; no input exceeds it.
        self.register_buffer("knots", _rectangle([[*feature, np.inf] for feature in knots], np.inf))

    def piece(self, x):
        """Return the index of the piece of each value, in shape (n_features, n_samples)."""
        return torch.searchsorted(self.knots, x.T.contiguous(), right=True)


def _rectangle(rows, fill):
    """Return rows of different lengths as one tensor, padded with `fill` at their ends."""
    values = np.full((len(rows), max(map(len, rows))), fill)
    for value, row in zip(values, rows, strict=True):
        value[: len(row)] = row
    return as_buffer(values)


class Bin(_Piecewise):
    """Index of the bin of each value; the first and the last bin extend to infinity.

    Parameters
    ----------
    edges : list of arrays of shape (n_bins + 1,)
        One for each feature, in ascending order.

    single : bool, default=False
        Whether values are rounded to float32 first.
    """

    def __init__(self, edges, single=False):
        super().__init__([feature[1:-1] for feature in edges])
        self.single = single

    def forward(self, x):
        x = x.to(torch.float32) if self.single else x
        return self.piece(x.to(self.knots)).T.to(self.knots)


class BinPosition(_Piecewise):
    """Continuous approximation of the index of the bin.

    It equals the index at the center of every bin, is linear between centers, and extrapolates
    linearly outside. So its slope is nowhere zero: even in the outer bins, a gradient points to the
    values where the index changes. The slope is zero only for a feature with a single bin, which
    has no influence on the output.

    Parameters
    ----------
    edges : list of arrays of shape (n_bins + 1,)
        One for each feature, in ascending order.
    """

    starts: torch.Tensor
    slopes: torch.Tensor

    def __init__(self, edges):
        # The edges of a single bin are infinite.
        centers = [
            (feature[1:] + feature[:-1]) / 2 if len(feature) > 2 else np.zeros(1)
            for feature in edges
        ]
        super().__init__([feature[1:-1] for feature in centers])
        # A single bin is one piece with slope zero.
        starts = [feature[:-1] if len(feature) > 1 else feature for feature in centers]
        slopes = [1 / np.diff(feature) if len(feature) > 1 else [0.0] for feature in centers]
        self.register_buffer("starts", _rectangle(starts, 0.0))
        self.register_buffer("slopes", _rectangle(slopes, 0.0))

    def forward(self, x):
        x = x.to(self.knots)
        piece = self.piece(x.detach())
        start, slope = self.starts.gather(1, piece), self.slopes.gather(1, piece)
        return ((x.T - start) * slope + piece).T


class InterpolatedOneHot(View):
    """One-hot vectors of bins, linearly interpolated between neighbors.

    For an integer this is its one-hot vector. The entry of a bin decreases linearly from 1 at its
    index to 0 at the indices of its neighbors. Beyond the first and the last index, it extrapolates
    linearly.

    Parameters
    ----------
    n_bins : list of int
        For each feature.
    """

    first: torch.Tensor
    last: torch.Tensor

    def __init__(self, n_bins):
        super().__init__()
        n_bins = np.asarray(n_bins)
        self.n_columns = int(n_bins.sum())
        self.register_buffer("first", as_buffer(np.cumsum(n_bins) - n_bins))
        self.register_buffer("last", as_buffer(n_bins - 1))

    def forward(self, x):
        x = x.to(self.first)
        # The neighboring bins on both sides; the last bin has none on the right.
        left = torch.minimum(x.detach().floor(), self.last - 1).clamp_min(0)
        right = torch.minimum(left + 1, self.last)
        weight = x - left
        output = x.new_zeros(len(x), self.n_columns)
        output = output.scatter_add(1, (self.first + left).long(), 1 - weight)
        return output.scatter_add(1, (self.first + right).long(), weight)
