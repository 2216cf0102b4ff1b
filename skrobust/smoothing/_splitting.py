"""Splitting noise, for exact radii in l1."""

from math import ceil, sqrt
from numbers import Real

import numpy as np
import torch

from ..threat._parameters import check_bounds
from ..utils._sklearn import Interval
from ..utils._validation import per_feature
from ._noise import Noise


class SplittingNoise(Noise):
    """Splitting noise, which certifies in l1 exactly and without sampling.

    The values of a feature are split into cells of width ``2 * sqrt(3) * sigma``, and a feature is
    replaced by the centre of its cell. The position where the cells begin is the noise. It takes
    as many values as there are grid steps in a cell. All of them are evaluated, so that
    certificates are exact.

    The certificates hold for inputs on a grid, such as 8-bit images or counts.

    Parameters
    ----------
    step : float, default=1/255
        Distance between neighbouring values of a feature, in units of X. The default fits 8-bit
        images in [0, 1].

    bounds : None or pair (low, high), default=None
        Box of valid inputs, in units of X. Cells are cut off at its sides, which keeps noisy
        points in the box. The grid begins at ``low``, or at 0 without bounds.

    Attributes
    ----------
    n_points_ : int
        Number of noisy points of an input.

    Notes
    -----
    All features share the position where the cells begin, up to an offset for each feature that is
    drawn once [1]_. A perturbation of k grid steps, summed over all features, changes at most k of
    the ``n_points_`` noisy points of an input. If a class has m more votes than every other class,
    ``floor(m / 2)`` steps cannot change the top class. Ties go to the class that comes first.

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
        """Set the width and the offsets of the cells; see :meth:`Noise.fit`."""
        if scale is not None:
            raise ValueError(
                "SplittingNoise needs the same sigma for all features (a number) and scale=None of "
                "SmoothedClassifier, because all cells are equally wide. Scale X before instead."
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
                f"SplittingNoise needs X on the grid of its step={self.step:g}; got {wrong:g}. "
                "Its certificates hold on the grid only. Round X, or set step of SplittingNoise."
            )

    @property
    def _low(self):
        return 0.0 if self.box_ is None else self.box_[0]

    def sampler(self, dtype, device):
        """Return a function that computes noisy points of one input; see :meth:`Noise.sampler`."""
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
            # In grid steps. Cells begin half a step off the grid, so that no input lies on the
            # border of two cells.
            begin = (offsets + j).remainder_(width).add_(0.5)
            x = x.to(torch.float64).sub(low).div_(self.step).round_()
            end = (x - begin).div_(width).ceil_().mul_(width).add_(begin)
            end, start_of_cell = end * self.step + low, (end - width) * self.step + low
            if high is not None:
                end, start_of_cell = end.minimum(high), start_of_cell.maximum(low)
            out.copy_(end.add_(start_of_cell).div_(2))

        return sample

    def radius_of_votes(self, counts):
        """Return the exact radius of the top class.

        Parameters
        ----------
        counts : int array of shape (n_samples, n_classes)
            Votes of all noisy points.

        Returns
        -------
        radius : ndarray of shape (n_samples,)
            A multiple of ``step``.
        """
        counts = np.asarray(counts)
        rows, first = np.arange(len(counts)), counts.argmax(axis=1)
        rivals = counts.copy()
        # Classes that come before the top class win ties, as if they had one more vote.
        rivals += np.arange(counts.shape[1]) < first[:, np.newaxis]
        rivals[rows, first] = -1
        lead = counts[rows, first] - rivals.max(axis=1)
        return lead // 2 * self.step

    def threshold(self, radius):
        """Return the share of the votes that a radius needs; see :meth:`Noise.threshold`."""
        return 0.5 + radius / (self.step * self.n_points_)

    def radius(self, p_lower, runner_up_upper=None):
        """Return the radius for shares of the votes; see :meth:`Noise.radius`."""
        p = np.asarray(p_lower, dtype=np.float64)
        other = 1 - p if runner_up_upper is None else np.asarray(runner_up_upper)
        return self.step * self.n_points_ / 2 * (p - other)
