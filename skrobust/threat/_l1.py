"""Feasible sets in l1: a cross-polytope, cut off by the box."""

import torch

from ._feasible_set import FeasibleSet
from ._hyperplane import L1Hyperplane
from ._selection import largest_threshold

# A step in l1 moves this share of the features. Moving the steepest one alone, as the norm asks
# for, needs as many steps as there are features to move (Tramèr & Boneh 2019). Steps shorter than
# the radius move fewer, so that decreasing steps end at a vertex of the ball.
_STEP_SHARE = 0.05

# Newton's method takes three to eight rounds, and more only for sizes of many orders of magnitude.
_MAX_ROUNDS = 200


class L1Set(FeasibleSet):
    """Ball of l1 ∩ box ∩ mask; see :class:`FeasibleSet`."""

    norm = "l1"

    @staticmethod
    def size(u):
        """Return the sum of the absolute values of each row, of shape (n, 1)."""
        return u.abs().sum(1, keepdim=True)

    @staticmethod
    def dual_size(w):
        """Return the largest absolute value of each row, of shape (n, 1); never zero."""
        return w.abs().amax(1, keepdim=True).clamp_min_(torch.finfo(w.dtype).tiny)

    @staticmethod
    def project_ball(u, radius, bottom=None, top=None):
        """Project onto a ball and a box; see :meth:`FeasibleSet.project_ball`.

        The solution is ``|u'| = clip(|u| - shift, 0, room)`` [1]_.

        References
        ----------
        .. [1] F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
           classifiers", ICML 2021, Proposition 2.1.
        """
        room = None if top is None else u.clamp(bottom, top).abs_()
        return _shrink(u.abs(), room, radius).copysign_(u)

    def _move_(self, u, direction, unblocked, fraction):
        moved = self.steepest_signs(unblocked, self._n_moved(fraction))
        n_moved = moved.abs().sum(1, keepdim=True).clamp_min_(1)
        return u.addcmul_(moved, fraction / n_moved)

    def _n_moved(self, fraction):
        """Return the number of features that a step moves."""
        share = _STEP_SHARE * self.n_free
        if isinstance(fraction, torch.Tensor):
            return (fraction.clamp(max=1) * share).round_().clamp_min_(1).long()
        return max(1, round(share * min(1.0, fraction)))

    @staticmethod
    def steepest_signs(direction, n_moved):
        """Return the signs of the largest entries of each row, and zero elsewhere.

        Parameters
        ----------
        direction : tensor of shape (n, d)
            Gradients.

        n_moved : int or int tensor of shape (n, 1)
            Number of entries; fewer where fewer differ from zero, and more where several are as
            large as the smallest of them.

        Returns
        -------
        signs : tensor of shape (n, d)
            1, -1 or 0.
        """
        size = direction.abs()
        moved = torch.ge(size, largest_threshold(size, n_moved), out=size)
        return direction.sign().mul_(moved)

    @staticmethod
    def unit_direction(v):
        """Return the sign of the largest entry of each gradient: a step of one feature."""
        signs = L1Set.steepest_signs(v, 1)
        return signs / L1Set.size(signs).clamp_min_(1)

    def _random_direction(self, uniform, noise):
        # Laplace numbers: exponential ones with random signs.
        return uniform.log_().mul_(noise.uniform(uniform.shape[1]).sub_(0.5).sign_())

    def _fill(self, size, room):
        """Return the best step and the part of ``size`` that the ball bounds.

        The rooms are filled in the order of ``size``, until the radius is used up.
        """
        ordered, order = size.sort(1, descending=True)
        room = room.masked_fill(size == 0, 0).gather(1, order)
        used = room.cumsum(1)
        filled = torch.minimum(room, (self.radius - used + room).clamp_min_(0))
        # The slope at which the radius is used up; zero where the rooms are smaller.
        index = torch.searchsorted(used, torch.full_like(used[:, :1], self.radius))
        last = torch.nn.functional.pad(ordered, (0, 1)).gather(1, index)
        return torch.zeros_like(size).scatter_(1, order, filled), size.minimum(last)

    def hyperplane(self, w):
        """Prepare shortest steps across linear functions; see :class:`FeasibleSet`."""
        return L1Hyperplane(self, w)


def _shrink(size, room, radius):
    """Return ``clip(size - shift, 0, room)`` with the smallest shift whose l1 norm is allowed.

    Newton's method on the piecewise linear length, inside a bracket. Sizes shrink in place step by
    step, so that the remainder of a size far above the radius is as exact as the radius needs it.

    Parameters
    ----------
    size : tensor of shape (n, d)
        Not negative; overwritten.

    room : None or tensor of shape (n, d)

    radius : float or tensor of shape (n, 1)

    Returns
    -------
    shrunk : tensor of shape (n, d)
    """
    number = torch.finfo(size.dtype)
    zero = size.new_zeros(())
    shrunk = torch.clamp(size, zero, room)
    length = shrunk.sum(1, keepdim=True)
    radius = torch.minimum(length, torch.as_tensor(radius).to(length))
    # Bounds of the shift that remains, and how far rounding can move them.
    low, high = torch.zeros_like(length), size.amax(1, keepdim=True)
    slack = high * number.eps
    step = _first_shift(size, shrunk, length - radius, high)
    for n_rounds in range(_MAX_ROUNDS):
        shrunk = torch.clamp(size.sub_(step), zero, room)
        excess = shrunk.sum(1, keepdim=True).sub_(radius)
        unsettled = excess.abs() > radius * (4 * number.eps)
        if not bool(unsettled.any()):
            return shrunk
        too_small = (excess > 0).to(size.dtype)
        high = torch.addcmul(slack, high - step, too_small)
        low = torch.addcmul(-slack, low - step, 1 - too_small)
        slope = torch.eq(shrunk, size, out=torch.empty_like(size)).sum(1, keepdim=True)
        newton = excess / slope.clamp_min_(number.tiny)
        fits = (low <= newton) & (newton <= high)
        if n_rounds > 10 and n_rounds % 3 == 0:
            # Newton's method crawls or cycles: bisect.
            fits.zero_()
        step = torch.where(fits, newton, (low + high) / 2).mul_(unsettled)
    # Rounding kept some rows from settling.
    return shrunk * (radius / excess.add_(radius).clamp_min_(number.tiny)).clamp_max_(1)


def _first_shift(size, shrunk, excess, largest):
    """Return the first step of Newton's method, or a safe one where that is too long."""
    n_positive = torch.gt(size, 0, out=torch.empty_like(size)).sum(1, keepdim=True)
    n_clipped = torch.gt(size, shrunk, out=torch.empty_like(size)).sum(1, keepdim=True)
    n_free = (n_positive - n_clipped).clamp_min_(torch.finfo(size.dtype).tiny)
    newton = excess / n_free
    # No more features can shrink than are positive, so that the other step is not too long.
    return torch.where(newton <= largest, newton, excess / n_positive.clamp_min_(1))
