"""Shortest steps across linear functions, inside the box of a feasible set."""

from functools import cached_property

import torch

from ..utils._rows import rows_where

# In l1 few features move: this number of the steepest is tried before all are sorted.
_N_STEEPEST = 128


class Hyperplane:
    """Shortest steps across linear functions inside a box; one subclass for each norm.

    Made by :meth:`FeasibleSet.hyperplane`.

    Parameters
    ----------
    feasible_set : FeasibleSet
        Box and norm.

    w : tensor of shape (n, d)
        Slopes of the functions in units. A feature with a slope of zero does not move.

    Notes
    -----
    With ``a = |w|`` and the room ``r`` of the box in the direction of ``sign(w) gap``, one number
    ``t`` is unknown: ``|d| = min(t a, r)`` in l2, ``|d| = min(t, r)`` in linf. ``<a, |d|>`` is
    increasing, concave and piecewise linear in ``t``, so that Newton's method from ``t = 0`` stays
    below the solution, clips more features in every round, and ends at it. In l1 the rooms are
    filled in the order of ``a``.
    """

    def __init__(self, feasible_set, w):
        self.feasible_set, self.w = feasible_set, w
        # Stands for a room without end: the sum of its squares is still finite.
        self.end = min(1e16, torch.finfo(w.dtype).max / 4)
        self.tiny = torch.finfo(w.dtype).tiny
        # Only ratios of slopes matter; relative to the largest, no square underflows.
        self.a = w.abs()
        self.largest = self.a.amax(1, keepdim=True).clamp_min_(self.tiny)
        self.a.div_(self.largest)

    def step(self, gap, u=None):
        """Return the shortest ``d`` in the box with ``<w, d> = gap``.

        Where the box is too small, return the ``d`` that comes closest to it.

        Parameters
        ----------
        gap : tensor of shape (n, 1)

        u : tensor of shape (n, d), default=None
            Points in the box to step from; None means zero, the inputs.

        Returns
        -------
        d : tensor of shape (n, d)
        """
        raise NotImplementedError

    def _prepare(self, gap, u):
        """Return signs of the step, the gap to close in units of ``a``, and the room of the box."""
        sign = self.signs * torch.ones_like(gap).copysign_(gap)
        wanted = gap.abs().div_(self.largest).clamp_max_(self.end)
        bottom, top = self.feasible_set.bottom, self.feasible_set.top
        if bottom is None:
            return sign, wanted, None
        below = self._among(bottom).neg().clamp_max_(self.end)
        above = self._among(top).clamp_max(self.end)
        upward = torch.gt(sign, 0, out=torch.empty_like(sign))
        room = torch.lerp(below, above, upward)
        if u is not None:
            room.addcmul_(sign, self._among(u), value=-1).clamp_min_(0)
        return sign, wanted, room

    @cached_property
    def signs(self):
        """Signs of the slopes of the features that can move."""
        return self._among(self.w).sign()

    def _among(self, tensor):
        """Return the columns of the features that can move."""
        return tensor


class _EvenHyperplane(Hyperplane):
    """Steps in which all features move at once, each up to its room.

    Attributes
    ----------
    steep : tensor of shape (n, d)
        Gain of each feature per unit of ``t``.
    """

    steep: torch.Tensor

    def step(self, gap, u=None):
        """Return the shortest step across the gap; see :meth:`Hyperplane.step`."""
        sign, wanted, room = self._prepare(gap, u)
        return self._fill(wanted, room).mul_(sign)

    def clipped_step(self, gap, u, least):
        """Return the step that is shortest without the box, clipped to the box.

        Where features at their bounds make it too short, the others go further: as far as covers
        the share ``least`` of the gap if they meet no bound.

        Parameters
        ----------
        gap, u
            As for :meth:`step`.

        least : float

        Returns
        -------
        d : tensor of shape (n, d)
        """
        sign, wanted, room = self._prepare(gap, u)
        if room is None:
            return self._fill(wanted, room).mul_(sign)
        movable = torch.gt(room, 0, out=torch.empty_like(room))
        slope = torch.minimum(
            self.steep.sum(1, keepdim=True), _dot(movable, self.steep).div_(least)
        )
        t = (wanted / slope.clamp_min_(self.tiny)).clamp_max_(torch.finfo(room.dtype).max)
        return torch.minimum(self._paces(t), room).mul_(sign)

    def _fill(self, gap, room):
        """Return sizes of the form ``min(paces(t), room)`` with ``<a, size> = gap``."""
        if room is None:
            t = (gap / self.steep.sum(1, keepdim=True).clamp_min_(self.tiny)).clamp_max_(self.end)
            return self._paces(t).clone()
        limit = self._limit(room)
        gain = self.a * room
        movable = torch.gt(limit, 0, out=torch.empty_like(limit))
        t = gap / _dot(movable, self.steep).clamp_min_(self.tiny)
        # Where the box is too small, every feature goes to its end.
        t.masked_fill_(gain.sum(1, keepdim=True) <= gap, torch.finfo(gain.dtype).max)
        return torch.minimum(self._paces(_newton(t, gap, limit, gain, self.steep)), room)

    def _paces(self, t):
        """Return how far each feature goes for ``t`` of shape (n, 1), without the box."""
        raise NotImplementedError

    def _limit(self, room):
        """Return the ``t`` at which each feature meets its room."""
        raise NotImplementedError


class LinfHyperplane(_EvenHyperplane):
    """Shortest steps in linf: all features go equally far; see :class:`Hyperplane`."""

    def __init__(self, feasible_set, w):
        super().__init__(feasible_set, w)
        self.steep = self.a

    def _paces(self, t):
        return t.expand_as(self.a)

    def _limit(self, room):
        return room


class L2Hyperplane(_EvenHyperplane):
    """Shortest steps in l2: features go in proportion to slopes; see :class:`Hyperplane`."""

    def __init__(self, feasible_set, w):
        super().__init__(feasible_set, w)
        self.steep = self.a.square()
        self.inverse = 1 / self.a.clamp_min(self.tiny)

    def _paces(self, t):
        return t * self.a

    def _limit(self, room):
        return room * self.inverse


class L1Hyperplane(Hyperplane):
    """Shortest steps in l1: the steepest features go first; see :class:`Hyperplane`.

    Parameters
    ----------
    feasible_set, w
        As for :class:`Hyperplane`.

    n_steepest : int, default=128
        Number of features to sort; more where they turn out not to suffice.
    """

    def __init__(self, feasible_set, w, n_steepest=_N_STEEPEST):
        super().__init__(feasible_set, w)
        n_steepest = 1 if feasible_set.bottom is None else min(n_steepest, w.shape[1])
        self.a, self.index = self.a.topk(n_steepest, dim=1)

    def _among(self, tensor):
        return tensor.gather(1, self.index)

    def step(self, gap, u=None):
        """Return the shortest step across the gap; see :meth:`Hyperplane.step`."""
        sign, wanted, room = self._prepare(gap, u)
        d = torch.zeros_like(self.w)
        if room is None:
            return d.scatter_(1, self.index, sign.mul_(wanted))
        gain = torch.minimum(self.a * room, wanted)
        total = gain.cumsum(1)
        size = (gain - total).add_(wanted).clamp_min_(0).div_(self.a.clamp_min(self.tiny))
        d.scatter_(1, self.index, torch.minimum(size, room).mul_(sign))
        if self.a.shape[1] < self.w.shape[1]:
            self._step_further_(d, gap, u, rows_where(total[:, -1:] < wanted))
        return d

    def _step_further_(self, d, gap, u, rows):
        """Overwrite the steps of rows for which the steepest features do not suffice."""
        if len(rows):
            # By themselves: the order of equal slopes must not depend on the other rows.
            part = self.feasible_set.take(rows)
            plane = L1Hyperplane(part, self.w[rows], self.w.shape[1])
            d[rows] = plane.step(gap[rows], None if u is None else u[rows])


def _newton(t, gap, limit, gain, steep):
    """Return the smallest ``t`` at which the steps bring the gap, by Newton's method from below.

    Features with ``limit <= t`` bring their ``gain``, the others ``t * steep``.
    """
    flags = torch.empty_like(limit)
    number = torch.finfo(t.dtype)
    while True:
        left = gap - _dot(torch.le(limit, t, out=flags), gain)
        slope = _dot(torch.gt(limit, t, out=flags), steep)
        wanted = left.div_(slope.clamp_min_(number.tiny)).clamp_max_(number.max)
        t_before, t = t, torch.fmax(t, wanted)
        unsettled = rows_where(t > t_before)
        if not len(unsettled):
            return t
        # Most rows need three rounds, and a few need more.
        if 2 * len(unsettled) < len(t):
            some = (x.index_select(0, unsettled) for x in (t, gap, limit, gain, steep))
            t[unsettled] = _newton(*some)
            return t


def _dot(a, b):
    return torch.linalg.vecdot(a, b).unsqueeze(1)
