"""Splitting noise: radii in l1 without sampling."""

from math import ceil, sqrt
from numbers import Real

import numpy as np
import torch

from ..utils._sklearn import Interval
from ..utils._threat_parameters import check_bounds, per_feature
from ._noise import Noise


class SplittingNoise(Noise):
    """Deterministic splitting noise: certifies in l1, without sampling and without error.

    Every feature is replaced by the middle of the cell that it lies in, of cells that are
    ``2 * sqrt(3) * sigma`` wide. Where the cells begin is the noise, and it takes only as many
    values as there are steps in a cell: all of them are tried, and the certificate is exact.

    It holds for inputs on a grid, such as images of 8 bits, and for counts.

    Parameters
    ----------
    step : float, default=1/255
        Distance of the values that a feature can have, in units of X. The default is that of
        images of 8 bits in [0, 1].

    bounds : None or pair (low, high), default=None
        Box of valid inputs, in units of X. The cells at its sides are cut off there, which keeps
        noisy points in the box. The grid begins at ``low``, or at 0 without bounds.

    Attributes
    ----------
    n_points_ : int
        Number of noisy points of an input.

    Notes
    -----
    All features share the place where the cells begin, up to an offset that is drawn once [1]_. Of
    the ``n_points_`` noisy points of an input a perturbation of k steps, all features together,
    changes at most k. Where a class has m votes more than every other (with ties going to the
    class that comes first), ``floor(m / 2)`` steps change nothing.

    References
    ----------
    .. [1] A. Levine and S. Feizi, "Improved, deterministic smoothing for l1 certified robustness",
       ICML 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skrobust.smoothing import SplittingNoise
    >>> noise = SplittingNoise(step=1.0).fit(np.zeros((1, 2)), sigma=2.0)
    >>> noise.n_points_
    7
    """

    norm = "l1"

    _parameter_constraints: dict = {
        "step": [Interval(Real, 0, None, closed="neither")],
        "bounds": [None, tuple, "array-like"],
    }

    def __init__(self, step=1 / 255, bounds=None):
        self.step = step
        self.bounds = bounds

    def fit(self, X, sigma, scale=None, *, feature_names=None, seed=0):
        """Set the width of the cells; see :meth:`Noise.fit`."""
        if scale is not None:
            raise ValueError(
                "SplittingNoise needs the same sigma for all features, a number, and scale=None: "
                "its cells are as wide as so many steps of the grid. Scale X before."
            )
        self.n_points_ = max(1, ceil(2 * sqrt(3) * sigma / self.step - 1e-9))
        generator = np.random.RandomState(seed)
        self.offsets_ = generator.randint(self.n_points_, size=X.shape[1:])
        box = check_bounds(self.bounds)
        self.box_ = box and tuple(per_feature(side, X.shape[1:], "bounds") for side in box)
        super().fit(X, sigma)
        self.check(X)
        return self

    def check(self, X):
        """Raise a ValueError for inputs that are not on the grid."""
        steps = (X.astype(np.float64) - self._low) / self.step
        off = np.abs(steps - np.round(steps))
        if off.max(initial=0) > 1e-3:
            wrong = X.ravel()[np.argmax(off)]
            raise ValueError(
                f"SplittingNoise needs X on the grid of its step={self.step:g}: certificates hold "
                f"for such inputs only. Got {wrong:g}. Round X, or set step."
            )

    @property
    def _low(self):
        return 0.0 if self.box_ is None else self.box_[0]

    def sampler(self, dtype, device):
        """Function that makes noisy points of one input; see :meth:`Noise.sampler`."""
        options = {"dtype": torch.float64, "device": device}
        low = torch.as_tensor(self._low, **options)
        width = self.n_points_
        high = None if self.box_ is None else torch.as_tensor(self.box_[1], **options)
        offsets = torch.as_tensor(self.offsets_, **options)

        def sample(out, x, start, generator):
            n = len(out)
            if start is None:
                j = torch.randint(width, (n,), generator=generator, device=device)
            else:
                j = torch.arange(start, start + n, device=device)
            j = j.to(torch.float64).view(-1, *[1] * (out.ndim - 1))
            # In steps: a cell ends half a step above `begin`, so that no input is on its side.
            begin = (offsets + j).remainder_(width).add_(0.5)
            x = x.to(torch.float64).sub(low).div_(self.step).round_()
            end = (x - begin).div_(width).ceil_().mul_(width).add_(begin)
            end, start_of_cell = end * self.step + low, (end - width) * self.step + low
            if high is not None:
                end, start_of_cell = end.minimum(high), start_of_cell.maximum(low)
            out.copy_(end.add_(start_of_cell).div_(2))

        return sample

    def radius_of_votes(self, counts):
        """Exact radius for the votes of all noisy points.

        Parameters
        ----------
        counts : int array of shape (n_samples, n_classes)

        Returns
        -------
        radius : ndarray of shape (n_samples,)
            A number of steps, times ``step``, of the class with most votes, the first of equals.
        """
        counts = np.asarray(counts)
        rows, first = np.arange(len(counts)), counts.argmax(axis=1)
        rivals = counts.copy()
        # A class that comes before wins a tie.
        rivals += np.arange(counts.shape[1]) < first[:, np.newaxis]
        rivals[rows, first] = -1
        lead = counts[rows, first] - rivals.max(axis=1)
        return lead // 2 * self.step

    def threshold(self, radius):
        """Share of the votes that a radius needs; see :meth:`Noise.threshold`."""
        return 0.5 + radius / (self.step * self.n_points_)

    def radius(self, p_lower, runner_up_upper=None):
        """Radius for shares of the votes; see :meth:`Noise.radius`."""
        p = np.asarray(p_lower, dtype=np.float64)
        other = 1 - p if runner_up_upper is None else np.asarray(runner_up_upper)
        return self.step * self.n_points_ / 2 * (p - other)
