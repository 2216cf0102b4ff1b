"""Feasible sets in l2: a ball or an ellipsoid, cut off by the box."""

import torch

from ._feasible_set import FeasibleSet
from ._hyperplane import L2Hyperplane

# Share of the length of a gradient that counts where the box blocks nearly all of it.
_LEAST_UNBLOCKED = 1e-3


class L2Set(FeasibleSet):
    """Ball of l2 ∩ box ∩ mask; see :class:`FeasibleSet`."""

    norm = "l2"

    @staticmethod
    def size(u):
        """Return the Euclidean norm of each row, of shape (n, 1)."""
        return torch.linalg.vector_norm(u, dim=1, keepdim=True)

    @staticmethod
    def dual_size(w):
        """Return the Euclidean norm of each row, of shape (n, 1); never zero."""
        return L2Set.size(w).clamp_min_(torch.finfo(w.dtype).tiny)

    @staticmethod
    def project_ball(u, radius, bottom=None, top=None):
        """Project onto a ball and a box; see :meth:`FeasibleSet.project_ball`.

        Without a box the row is scaled. With one the solution is ``|u'| = min(t |u|, room)``; see
        the Notes of :class:`~skrobust.threat.ThreatModel`.
        """
        if top is None:
            return u * (radius / L2Set.dual_size(u)).clamp_max_(1)
        room = u.clamp(bottom, top).abs_()
        filled, _ = _fill_in_proportion(u.abs(), room, radius, 1.0)
        return filled.copysign_(u)

    def _move_(self, u, direction, unblocked, fraction):
        length = self.dual_size(unblocked)
        if unblocked is not direction:
            # Blocked features are part of the direction all the same: without them, the optimum of
            # a linear model would not be a fixed point.
            length = torch.maximum(length, self.dual_size(direction) * _LEAST_UNBLOCKED)
        return u.addcmul_(direction, fraction / length)

    @staticmethod
    def unit_direction(v):
        """Return each gradient scaled to length 1."""
        return v / L2Set.dual_size(v)

    def _random_direction(self, uniform, noise):
        # Normal numbers by their quantile function.
        return uniform.mul_(2).sub_(1).erfinv_()

    def _fill(self, size, room):
        """Return the best step and the part of ``size`` that the ball bounds."""
        # Not an infinite factor, which would make NaN of a zero.
        largest = torch.finfo(size.dtype).max
        filled, factor = _fill_in_proportion(size, room, self.radius, largest)
        return filled, torch.minimum(size, room / factor)

    def hyperplane(self, w):
        """Prepare shortest steps across linear functions; see :class:`FeasibleSet`."""
        return L2Hyperplane(self, w)


def _fill_in_proportion(size, room, radius, largest):
    """Return ``min(t * size, room)``, of l2 norm at most ``radius``, and the largest such ``t``.

    Parameters
    ----------
    size, room : tensors of shape (n, d)
        Not negative.

    radius : float or tensor of shape (n, 1)

    largest : float
        Limit of ``t``.

    Returns
    -------
    filled : tensor of shape (n, d)

    t : tensor of shape (n, 1)
    """
    tiny = torch.finfo(size.dtype).tiny
    t = (radius / L2Set.dual_size(size)).clamp_max_(largest)
    limit = room / size.clamp_min(tiny)  # the t at which a value meets its room
    n_before = torch.zeros_like(t)
    while True:
        clipped = torch.le(limit, t, out=torch.empty_like(limit))
        n_clipped = clipped.sum(1, keepdim=True)
        # The set of clipped values only grows, so that equal numbers mean equal sets.
        if torch.equal(n_clipped, n_before):
            return torch.minimum(size * t, room), t
        left = radius * radius - _square_norm(clipped.mul_(room))
        free = _square_norm(torch.gt(limit, t, out=torch.empty_like(limit)).mul_(size))
        # Without a free value every t gives the same point: take the largest.
        wanted = (left.clamp_min_(0) / free).sqrt_().nan_to_num_(nan=largest, posinf=largest)
        t = torch.maximum(wanted.clamp_max_(largest), t)
        n_before = n_clipped


def _square_norm(values):
    return torch.linalg.vecdot(values, values).unsqueeze(1)
