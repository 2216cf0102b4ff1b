"""Steps of attacks that take the model for linear: to the boundary, inside the box."""

import torch

from .._region import rows_where
from ._losses import likeliest_others

# Differences of logits up to so many roundings of the largest count as none.
_ROUNDINGS = 64

# In l1 few features move: so many of the steepest are tried before all are sorted.
_N_STEEPEST = 128


class Hyperplane:
    """Shortest steps across linear functions, inside a box.

    Parameters
    ----------
    space : Space
        Box and norm.

    w : tensor of shape (n, d)
        Slopes of the functions. A feature with a slope of zero stays where it is.

    n_steepest : int, default=128
        For l1: how many features are sorted; more where it turns out that they do not suffice.

    Notes
    -----
    With ``a = |w|`` and the room ``r`` that the box leaves in the direction of ``sign(w) gap``, one
    number ``t`` is unknown: ``|d| = min(t a, r)`` in l2, ``|d| = min(t, r)`` in linf. ``<a, |d|>``
    is increasing, concave and piecewise linear in it, so that Newton's method from ``t = 0`` comes
    from below, clips more features in every round, and ends at the solution. In l1 the rooms are
    filled in the order of ``a``.
    """

    def __init__(self, space, w, n_steepest=_N_STEEPEST):
        self.space = space
        self.w = w
        self.n_steepest = min(n_steepest, w.shape[1])
        # What stands for a room without end: its squares still have a finite sum.
        self.end = min(1e16, torch.finfo(w.dtype).max / 4)
        self.tiny = torch.finfo(w.dtype).tiny
        # Only ratios count; at size one, no square can vanish.
        self.a = w.abs()
        self.largest = self.a.amax(1, keepdim=True).clamp_min_(self.tiny)
        self.a.div_(self.largest)
        if space.norm == "l1":
            k = 1 if space.bottom is None else self.n_steepest
            self.a, self.index = self.a.topk(k, dim=1)
        elif space.norm == "l2":
            self.steep = self.a.square()
            self.inverse = 1 / self.a.clamp_min(self.tiny)
        else:
            self.steep = self.a
        self.sign = self._among(w).sign()

    def step(self, gap, u=None):
        """Shortest ``d`` with ``<w, d> = gap`` that stays in the box.

        Where the box is too small for that, the ``d`` that comes nearest to it.

        Parameters
        ----------
        gap : tensor of shape (n, 1)

        u : tensor of shape (n, d), default=None
            Points in the box to step from; None means zero, the inputs.

        Returns
        -------
        d : tensor of shape (n, d)
        """
        sign, wanted, room = self._prepare(gap, u)
        if self.space.norm == "l1":
            return self._fill_steepest(gap, u, sign, wanted, room)
        return self._fill_evenly(wanted, room).mul_(sign)

    def clipped_step(self, gap, u, least):
        """The step that would be the shortest without the box, clipped to it; for l2 and linf.

        Where features at their bounds make it too short, the others go further: as far as covers
        the share ``least`` of the gap if they meet no bound.
        """
        sign, wanted, room = self._prepare(gap, u)
        if room is None:
            return self._fill_evenly(wanted, room).mul_(sign)
        movable = torch.gt(room, 0, out=torch.empty_like(room))
        slope = torch.minimum(
            self.steep.sum(1, keepdim=True), _dot(movable, self.steep).div_(least)
        )
        t = (wanted / slope.clamp_min_(self.tiny)).clamp_max_(torch.finfo(room.dtype).max)
        return self._advance(t, room).mul_(sign)

    def _prepare(self, gap, u):
        """Direction of a step, what it has to bring in units of ``a``, and the room for it."""
        sign = self.sign * torch.ones_like(gap).copysign_(gap)
        wanted = gap.abs().div_(self.largest).clamp_max_(self.end)
        return sign, wanted, None if self.space.bottom is None else self._room(sign, u)

    def _among(self, tensor):
        """Of the features that can move: all, or in l1 the steepest."""
        return tensor.gather(1, self.index) if self.space.norm == "l1" else tensor

    def _room(self, sign, u):
        """Distance to the box in the direction of ``sign``."""
        below = self._among(self.space.bottom).neg().clamp_max_(self.end)
        above = self._among(self.space.top).clamp_max(self.end)
        upward = torch.gt(sign, 0, out=torch.empty_like(sign))
        room = torch.lerp(below, above, upward)
        return room if u is None else room.addcmul_(sign, self._among(u), value=-1).clamp_min_(0)

    def _fill_evenly(self, gap, room):
        """``min(t a, room)`` for l2 or ``min(t, room)`` for linf, with ``<a, size> = gap``."""
        if room is None:
            t = (gap / self.steep.sum(1, keepdim=True).clamp_min_(self.tiny)).clamp_max_(self.end)
            return t * self.a if self.space.norm == "l2" else t.expand_as(self.a).clone()
        # The t at which a feature meets its room.
        limit = room * self.inverse if self.space.norm == "l2" else room
        gain = self.a * room
        movable = torch.gt(limit, 0, out=torch.empty_like(limit))
        t = gap / _dot(movable, self.steep).clamp_min_(self.tiny)
        # Where the box is too small, every feature goes to its end.
        t.masked_fill_(gain.sum(1, keepdim=True) <= gap, torch.finfo(gain.dtype).max)
        return self._advance(_newton(t, gap, limit, gain, self.steep), room)

    def _advance(self, t, room):
        return torch.minimum(t * self.a if self.space.norm == "l2" else t, room)

    def _fill_steepest(self, gap, u, sign, wanted, room):
        """Fill the rooms in the order of ``a`` until ``<a, size>`` is what is wanted."""
        d = torch.zeros_like(self.w)
        if room is None:
            return d.scatter_(1, self.index, sign.mul_(wanted))
        gain = torch.minimum(self.a * room, wanted)
        total = gain.cumsum(1)
        size = (gain - total).add_(wanted).clamp_min_(0).div_(self.a.clamp_min(self.tiny))
        d.scatter_(1, self.index, torch.minimum(size, room).mul_(sign))
        if self.n_steepest < self.w.shape[1]:
            short = rows_where(total[:, -1:] < wanted)
            if len(short):  # by themselves: which of equals comes first must not depend on others
                plane = Hyperplane(self.space.take(short), self.w[short], self.w.shape[1])
                d[short] = plane.step(gap[short], None if u is None else u[short])
        return d


def _newton(t, gap, limit, gain, steep):
    """Smallest ``t`` for which the features with ``limit > t`` bring what the others leave."""
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
        if 2 * len(unsettled) < len(t):  # most rows need three rounds, and a few need more
            some = (x.index_select(0, unsettled) for x in (t, gap, limit, gain, steep))
            t[unsettled] = _newton(*some)
            return t


def linearize_boundary(search, u, others=None, beta=1.0):
    """Judge points, and find the linear function that is zero on the closest boundary.

    Parameters
    ----------
    search : NormSearch

    u : tensor of shape (n, d)
        Points. It is from ``beta u`` that the distance counts where ``u`` is adversarial.

    others : None, int or int64 tensor of shape (n_all, k), default=None
        Classes whose boundaries with the label are compared: all; so many, the likeliest there; or
        these. For a targeted attack the boundary is that of the target with its strongest rival.

    beta : float, default=1.0

    Returns
    -------
    share : tensor of shape (n, 1)
        ``beta`` for adversarial points, else 1.

    value : tensor of shape (n, 1)
        The function at ``u``. It is negative where the model holds.

    w : tensor of shape (n, d)
        Its slopes.

    along : tensor of shape (n, 1)
        ``<w, u>``.
    """
    logits, margin, pull = search.linearize(u)
    share = torch.where(margin > 0, beta, 1.0)
    # Exactly on the boundary, the way to it would be zero, and no step would ever leave it.
    largest = logits.abs().amax(1, keepdim=True)
    rounding = largest.mul_(_ROUNDINGS * torch.finfo(logits.dtype).eps)
    resolution = search.space.resolution
    if search.loss.targeted:
        w = pull(search.loss.direction(logits))
        rounding = torch.maximum(rounding, resolution * dual_size(w, search.space.norm))
        return share, margin - rounding, w, _dot(w, u)
    label = search.loss.index
    if isinstance(others, torch.Tensor):
        others = others if search.rows is None else others[search.rows]
    else:
        n_classes = logits.shape[1] if others is None else others
        others = likeliest_others(logits, label[:, 0], n_classes)
    columns = others.split(1, dim=1)
    nearest = best = None
    for column in columns:
        direction = torch.zeros_like(logits).scatter_(1, column, 1).scatter_(1, label, -1)
        w = pull(direction)
        size = dual_size(w, search.space.norm)
        value = (logits * direction).sum(1, keepdim=True)
        found = value.sub_(torch.maximum(rounding, resolution * size)), w, _dot(w, u)
        if len(columns) == 1:
            return share, *found
        distance = (found[0] + (share - 1) * found[2]).abs_() / size
        if best is None:
            nearest, best = distance, found
        else:
            closer = distance < nearest
            nearest = torch.minimum(distance, nearest)
            best = tuple(torch.where(closer, *pair) for pair in zip(found, best, strict=True))
    return share, *best


def dual_size(w, norm):
    """Size of ``w`` in the dual norm: the zero of a function with value v is v / size away."""
    if norm == "l2":
        size = torch.linalg.vector_norm(w, dim=1, keepdim=True)
    else:
        size = w.abs().sum(1, keepdim=True) if norm == "linf" else w.abs().amax(1, keepdim=True)
    return size.clamp_min_(torch.finfo(w.dtype).tiny)


def _dot(a, b):
    return torch.linalg.vecdot(a, b).unsqueeze(1)
