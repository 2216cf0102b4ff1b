"""Feasible sets in l0: a number of features that may change."""

import numpy as np
import torch

from ..utils._validation import for_each_feature
from ._feasible_set import FeasibleSet
from ._messages import check_bounded
from ._selection import largest_values


class L0Set(FeasibleSet):
    """At most ``radius`` changed features ∩ box ∩ mask; see :class:`FeasibleSet`.

    How much a feature changes does not count: its unit is the width of its bounds, or 1 without
    finite bounds. Steps, random starts and hyperplanes do not exist.
    """

    norm = "l0"

    def _budget(self, threat, n_features):
        if threat.bounds is None:
            return threat.eps, np.float64(1.0)
        low, high = (for_each_feature(side, n_features, "bounds") for side in threat.bounds)
        return threat.eps, np.where(np.isfinite(high - low), high - low, 1.0)

    @staticmethod
    def size(u):
        """Return the number of values that are not zero in each row, of shape (n, 1)."""
        # Written into floats: summing booleans takes several times as long.
        return torch.ne(u, 0, out=torch.empty_like(u)).sum(1, keepdim=True)

    @staticmethod
    def dual_size(w):
        """Return the largest absolute value of each row, of shape (n, 1); never zero."""
        return w.abs().amax(1, keepdim=True).clamp_min_(torch.finfo(w.dtype).tiny)

    @staticmethod
    def project_ball(u, radius, bottom=None, top=None):
        """Project onto a ball and a box; see :meth:`FeasibleSet.project_ball`."""
        if top is None:
            return u * largest_values(u.abs(), radius)
        clipped = u.clamp(bottom, top)
        return clipped * _worth_keeping(u, clipped, radius)

    def project_(self, z):
        """Project inputs onto the set, in place; the values that are kept keep their bits.

        The projection is Euclidean in units of X, whatever the units of the features.
        """
        clipped = z if self.low is None else z.clamp(self.low, self.high)
        changes = ((z - self.x).flatten(1), (clipped - self.x).flatten(1))
        if not isinstance(self.scale, float):
            changes = (change.mul_(self.scale > 0) for change in changes)
        kept = _worth_keeping(*changes, self.radius).view_as(z) > 0
        return torch.where(kept, clipped, self.x, out=z)

    def perturbation(self, z):
        """Return the projection of ``z`` less ``x``."""
        return self.project_(z.clone()).sub_(self.x)

    def _reach(self):
        if isinstance(self.scale, float):
            return torch.inf
        return torch.where(self.scale > 0, torch.inf, 0.0).view(1, *self.x.shape[1:])

    def maximize_linear(self, grad):
        """Return the points of the set at which ``<grad, z>`` is largest."""
        check_bounded(self, "The steepest point")
        _, size, room = self._slopes_and_rooms(grad)
        moved = largest_values(size.mul_(room), self.radius).view_as(grad)
        return torch.where(moved > 0, torch.where(grad > 0, self.high, self.low), self.x)

    def linear_upper_bound(self, grad):
        """Return the largest value of ``<grad, z - x>`` over the set, of shape (n,)."""
        return ((self.maximize_linear(grad) - self.x) * grad).flatten(1).sum(1)


def _worth_keeping(u, clipped, count):
    """Mark the ``count`` values of each row by whose loss the distance to ``u`` grows the most.

    To set a value to zero costs its square; to keep it, the square of what the box clips.
    """
    size, kept = u.abs(), clipped.abs()
    # The root of size² - (size - kept)², in which no square overflows or underflows.
    return largest_values(kept.sqrt() * (2 * size - kept).sqrt_(), count)
