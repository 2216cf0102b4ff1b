"""Inputs, units and box of a batch: the coordinates of feasible sets."""

from functools import cached_property
from math import isinf, prod

import numpy as np
import torch

from ..utils._rows import RowBatch
from ..utils._validation import per_feature
from ._parameters import mask_to_bool

# Smallest distance that attacks measure by, so that its square can be a divisor.
_SHORTEST = 1e-16


class UnitCoordinates(RowBatch):
    """Inputs of a batch with the units of their features, the radius of the ball, and the box.

    Base class of :class:`FeasibleSet`, which documents parameters and attributes.
    """

    _row_attributes = ("x", "low", "high", "bottom", "top", "lowest", "highest", "resolution")

    def __init__(self, threat, x):
        self.x = x = x.detach()
        self.radius, scale = self._budget(threat, prod(x.shape[1:]))
        self.is_uniform = np.ndim(scale) == 0
        if threat.mask is not None:
            scale = np.where(mask_to_bool(threat.mask, prod(x.shape[1:])), scale, 0.0)
        n_free = prod(x.shape[1:]) if np.ndim(scale) == 0 else int(np.count_nonzero(scale))
        self.n_free = max(1, n_free)
        self.scale, self.inverse_scale = self._tensor(scale), self._tensor(_inverse(scale))
        self.low = self.high = self.bottom = self.top = None
        if threat.bounds is not None:
            low, high = threat.box(x)
            self.low, self.high = torch.minimum(x, low), torch.maximum(x, high)
        if threat.bounds is not None or np.any(np.equal(scale, 0)):
            self.bottom, self.top = (
                self._side(self.low, -torch.inf),
                self._side(self.high, torch.inf),
            )

    def _budget(self, threat, n_features):
        """Return the radius, and the unit of the features as a number or array."""
        if np.ndim(threat.eps) == 0 and isinf(threat.eps):
            return torch.inf, np.float64(1.0)
        return 1.0, per_feature(threat.eps, (n_features,), "eps")

    def _tensor(self, value):
        if np.ndim(value) == 0:
            return float(value)
        return torch.tensor(value, dtype=self.x.dtype, device=self.x.device).unsqueeze(0)

    def _side(self, side, limit):
        """Return one side of the box around ``u``."""
        if side is None:
            side = torch.full_like(self.x, limit)
        # A feature that cannot change and has no bound would give inf * 0.
        return (
            (side - self.x)
            .flatten(1)
            .mul_(self.inverse_scale)
            .nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        )

    # --- change of coordinates ---

    def to_units(self, z):
        """Return the perturbations that lead to inputs.

        Parameters
        ----------
        z : tensor of the shape of ``x``
            Inputs.

        Returns
        -------
        u : tensor of shape (n, d)
            Perturbations in units.
        """
        return torch.sub(z, self.x).flatten(1).mul_(self.inverse_scale)

    def from_units(self, u, rows=None, out=None):
        """Return the inputs ``z`` that perturbations lead to, clipped to the box.

        Parameters
        ----------
        u : tensor of shape (m, d)
            Perturbations in units.

        rows : None or int64 tensor of shape (m,), default=None
            Rows of the batch that the perturbations belong to; None means one for each row.

        out : None or tensor of shape (m, ...), default=None
            Where to write the result.

        Returns
        -------
        z : tensor of shape (m, ...)
            Inputs.
        """
        x, low, high = (
            side if side is None or rows is None else side[rows]
            for side in (self.x, self.low, self.high)
        )
        if isinstance(self.scale, float):
            z = torch.add(x, u.view_as(x), alpha=self.scale, out=out)
        else:
            z = torch.addcmul(x, u.view_as(x), self.scale.view(-1, *x.shape[1:]), out=out)
        # Clip here, too: the change of units rounds.
        return z if low is None else z.clamp_(low, high)

    def grad_to_units(self, grad):
        """Convert gradients with respect to inputs to gradients with respect to units.

        Parameters
        ----------
        grad : tensor of the shape of ``x``
            Gradients with respect to ``z``.

        Returns
        -------
        grad : tensor of shape (n, d)
            Gradients with respect to ``u``.
        """
        return grad.flatten(1) * self.scale

    def zeros(self):
        """Return the perturbations of the inputs themselves.

        Returns
        -------
        u : tensor of shape (n, d)
            Zeros.
        """
        return torch.zeros_like(self.x).flatten(1)

    def columns(self, index):
        """Return the inputs, units and box of some features of each row.

        Parameters
        ----------
        index : int64 tensor of shape (n, k)
            Positions of the features in flat samples.

        Returns
        -------
        columns : UnitCoordinates
            For samples of k features.
        """
        return Columns(self, index)

    # --- box ---

    @cached_property
    def lowest(self):
        """Smallest value of each feature in the set, a tensor of the shape of ``x``."""
        lowest = self.x - self._reach()
        return lowest if self.low is None else torch.maximum(lowest, self.low)

    @cached_property
    def highest(self):
        """Largest value of each feature in the set, a tensor of the shape of ``x``."""
        highest = self.x + self._reach()
        return highest if self.high is None else torch.minimum(highest, self.high)

    def _reach(self):
        """Return how far the ball lets a single feature go, in units of X."""
        if isinstance(self.scale, float):
            return self.radius * self.scale
        reach = torch.where(self.scale > 0, self.radius * self.scale, 0.0)
        return reach.view(1, *self.x.shape[1:])

    @cached_property
    def is_bounded(self):
        """Whether every feature has a smallest and a largest value in the set."""
        return bool(torch.isfinite(self.highest - self.lowest).all())

    def widest(self):
        """Return the longest side of the box of each row, in units.

        Returns
        -------
        length : tensor of shape (n, 1)
            Infinite without bounds.
        """
        if self.bottom is None:
            return self.x.new_full((len(self.x), 1), torch.inf)
        return (self.top - self.bottom).amax(1, keepdim=True)

    @cached_property
    def resolution(self):
        """Size of perturbations in units that rounding does not erase, of shape (n, 1)."""
        largest = (self.x.flatten(1) * self.inverse_scale).abs().amax(1, keepdim=True)
        return largest.mul_(64 * torch.finfo(self.x.dtype).eps).clamp_min_(_SHORTEST)

    def clip_(self, u):
        """Clip perturbations to the box, in place.

        Parameters
        ----------
        u : tensor of shape (n, d) or (n, m, d)
            Perturbations, one or several for each row; overwritten.

        Returns
        -------
        u : tensor
            The same tensor.
        """
        if self.bottom is None:
            return u
        sides = self.bottom, self.top
        return u.clamp_(*(sides if u.ndim == 2 else (side.unsqueeze(1) for side in sides)))

    def unblocked(self, u, direction):
        """Set the direction to zero for features that the box blocks.

        Parameters
        ----------
        u : tensor of shape (n, d)
            Perturbations inside the box.

        direction : tensor of shape (n, d)
            Directions in which to move them.

        Returns
        -------
        direction : tensor of shape (n, d)
            The same tensor without bounds, else a new one.
        """
        if self.bottom is None:
            return direction
        # Limits of 0 or the largest number, as comparisons written into floats: on a CPU, boolean
        # masks take several times as long.
        largest = torch.finfo(u.dtype).max
        down = torch.gt(u, self.bottom, out=torch.empty_like(u)).mul_(-largest)
        up = torch.lt(u, self.top, out=torch.empty_like(u)).mul_(largest)
        return direction.clamp(down, up)


class Columns(UnitCoordinates):
    """Some features of each row of a feasible set; made by :meth:`UnitCoordinates.columns`."""

    def __init__(self, whole, index):
        self.whole, self.index = whole, index

    def __getattr__(self, name):
        # Gather what is used, once.
        value = getattr(self.whole, name)
        if isinstance(value, torch.Tensor):
            value = value.flatten(1).expand(len(self.index), -1).gather(1, self.index)
        setattr(self, name, value)
        return value


def _inverse(scale):
    """Return 1 / scale, and 0 for features that cannot change."""
    return np.divide(1.0, scale, out=np.zeros_like(scale, dtype=np.float64), where=scale > 0)
