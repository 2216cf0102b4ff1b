"""Geometry around one batch of inputs: projection, steps and draws in ball ∩ box ∩ mask."""

import copy
from math import prod

import numpy as np
import torch

from .utils._threat_parameters import mask_to_bool, per_feature

_NUMPY_DTYPES = {torch.float32, torch.float64}

# A step in l1 moves this share of the features at once. Moving only the steepest one, which is
# what the norm asks for, needs as many steps as there are features to move (Tramèr & Boneh 2019).
# Steps shorter than the radius move fewer, so that falling steps end at a vertex of the ball.
_L1_STEP_SHARE = 0.05

# Three to eight suffice to project onto the l1 ball, but for sizes of many orders of magnitude.
_MOST_ROUNDS = 200


class Region:
    """The admissible points around one batch of inputs, made by :meth:`ThreatModel.around`.

    For linf it is an interval for each value. For l2 and l1 the arithmetic runs in the coordinates
    ``u = (z - x) / eps``, in which the ball is the unit ball; for l0 in ``u = z - x``. A feature
    that the attacker cannot change has the scale zero.
    """

    def __init__(self, threat, x):
        self.threat = threat
        self.norm = threat.norm
        self.x = x = x.detach()
        eps = budgets(threat, x.shape[1:])
        self.scalar = np.ndim(eps) == 0
        self.n_free = prod(x.shape[1:]) if self.scalar else int(np.count_nonzero(eps))
        self.unlimited = bool(np.isinf(eps).any())
        self.bounded = True  # needed by what has no other limit
        if self.unlimited or self.norm == "l0":
            half_widths = _half_widths(threat, eps, x.shape[1:])
            self.bounded = bool(np.isfinite(half_widths).all())
        self.eps: float | torch.Tensor = self._per_feature(eps)
        low = high = None
        if threat.bounds is not None:
            low, high = threat._sides(x)
            low, high = torch.minimum(x, low), torch.maximum(x, high)
        if self.norm == "linf":
            self.low, self.high = x - self.eps, x + self.eps
            if low is not None:
                torch.maximum(self.low, low, out=self.low)
                torch.minimum(self.high, high, out=self.high)
            if self.unlimited:
                # The box is the ball: its half axes are what a share of the radius refers to.
                self.scalar = False
                self.eps = self._per_feature(half_widths)
        else:
            if self.scalar:
                self.inverse_eps = 1 / self.eps if self.eps > 0 else 0.0
            else:
                self.inverse_eps = torch.where(self.eps > 0, 1 / self.eps, 0.0)
            self.low, self.high = low, high
            self.work = Work(x.flatten(1))
            self.bottom = self.top = None
            if low is not None:
                self.bottom, self.top = self._in_unit(low - x), self._in_unit(high - x)

    def _per_feature(self, value):
        if np.ndim(value) == 0:
            return float(value)
        return torch.tensor(value, dtype=self.x.dtype, device=self.x.device).unsqueeze(0)

    def _in_unit(self, side):
        # A fixed feature without a bound, inf * 0, has no room.
        side = side.mul_(self.inverse_eps).flatten(1).nan_to_num_(nan=0.0)
        # Nothing in the unit ball is longer than 1, so that more room changes nothing.
        return side if self.norm == "l0" else side.clamp_(-1, 1)

    def take(self, rows):
        """Keep some of the rows."""
        part = copy.copy(self)
        for name in ("x", "low", "high", "bottom", "top"):
            value = getattr(self, name, None)
            if value is not None:
                setattr(part, name, value[rows])
        part.work = Work(part.x.flatten(1))
        return part

    def project_(self, z):
        """Move ``z`` to the nearest admissible points, in place."""
        if self.norm == "linf":
            return z.clamp_(self.low, self.high)
        if self.norm == "l0":
            u = self._to_unit(z)
            clipped = None if self.top is None else u.clamp(self.bottom, self.top).abs_()
            kept = _worth_keeping(u.abs_(), clipped, self.threat.eps)
            if self.low is not None:
                z.clamp_(self.low, self.high)
            return torch.where(kept.view_as(z) > 0, z, self.x, out=z)
        return self._from_unit(self._project_unit_(self._to_unit(z)), out=z)

    def perturbation(self, z):
        """The projection of ``z``, less ``x``: free of the rounding of their sum."""
        if self.norm == "linf":
            delta = z.clamp(self.low, self.high).sub_(self.x)
            return delta if self.unlimited else torch.clamp(delta, -self.eps, self.eps)
        if self.norm == "l0":
            return self.project_(z.clone()).sub_(self.x)
        return self._project_unit_(self._to_unit(z)).view_as(z) * self.eps

    def step_(self, z, grad, fraction):
        """Step along the steepest direction by ``fraction`` of the radius and project, in place.

        ``grad`` is overwritten. ``fraction`` is a number or, with one for each row, a tensor of
        shape (n_samples, 1). The length of the step is that of the features which the box does not
        hold back; in l1 the step is spread over the steepest of these. With ``eps=inf`` half of
        the box is the radius.
        """
        self._demand("A step")
        by_row = isinstance(fraction, torch.Tensor)
        if self.norm == "linf":
            if by_row:
                length = fraction.view(-1, *[1] * (z.ndim - 1)) * self.eps
                z.addcmul_(grad.sign_(), length)
            elif self.scalar:
                z.add_(grad.sign_(), alpha=fraction * self.eps)
            else:
                z.addcmul_(grad.sign_(), self.eps, value=fraction)
            return z.clamp_(self.low, self.high)
        u = self._to_unit(z)
        direction = grad.mul_(self.eps).flatten(1)
        sign = torch.sign(direction, out=self.work[1])
        movable = None
        if self.top is not None:
            ahead = torch.add(u, sign, alpha=1e-6, out=self.work[2])
            movable = torch.clamp(ahead, self.bottom, self.top, out=self.work[3])
            torch.eq(movable, ahead, out=movable)
        if self.norm == "l1":
            size = direction.abs_() if movable is None else direction.abs_().mul_(movable)
            threshold = _threshold(size, self._n_moved(fraction))
            moved = torch.ge(size, threshold, out=size)
            direction, length = sign.mul_(moved), moved.sum(1, keepdim=True)
        else:
            length = norm_of(direction, "l2", keepdim=True)
            if movable is not None:
                # The others push on all the same: on a linear model the optimum stays where it is.
                least = length.mul_(1e-3)
                length = norm_of(movable.mul_(direction), "l2", keepdim=True)
                length = torch.maximum(length, least)
        u.addcmul_(direction, fraction / length.clamp_min_(_tiny(u)))
        return self._from_unit(self._project_unit_(u), out=z)

    def _n_moved(self, fraction):
        """Number of features that a step in l1 moves."""
        share = _L1_STEP_SHARE * self.n_free
        if isinstance(fraction, torch.Tensor):
            return (fraction.clamp(max=1) * share).round_().clamp_min_(1).long()
        return max(1, round(share * min(1.0, fraction)))

    def steepest(self, grad):
        """Admissible points at which ``<grad, z>`` is largest."""
        self._demand("The steepest point", lengths=False)
        if self.norm == "linf":
            return torch.where(grad > 0, self.high, torch.where(grad < 0, self.low, self.x))
        direction = (grad * self.eps).flatten(1)
        size = direction.abs()
        # Only the direction counts; at size one, no square of it can vanish.
        size.div_(size.amax(1, keepdim=True).clamp_min_(_tiny(size)))
        room = torch.ones_like(size)
        if self.top is not None:
            room = torch.where(direction > 0, self.top, self.bottom.neg())
        if self.norm == "l0":
            moved = _largest(size.mul_(room), self.threat.eps).view_as(grad)
            return torch.where(moved > 0, torch.where(grad > 0, self.high, self.low), self.x)
        if self.norm == "l2":  # not inf, which makes a NaN of a zero
            fill = _fill_l2_(size, room, 1.0, torch.finfo(size.dtype).max, self.work)
        else:
            fill = _fill_l1(size, room)
        return self._from_unit(fill.copysign_(direction), out=torch.empty_like(self.x))

    def random(self, noise):
        """Points drawn uniformly from the ball, projected onto the box.

        With ``eps=inf`` they are uniform in the box.
        """
        self._demand("A random start")
        x = self.x
        n_features = prod(x.shape[1:])
        small = torch.finfo(x.dtype).eps / 2  # the functions below are finite inside (0, 1) only
        u = noise.uniform(n_features).clamp_(small, 1 - small)
        if self.unlimited:
            return torch.lerp(self.low, self.high, u.view_as(x))
        if self.norm == "linf":
            return self.project_(u.view_as(x).mul_(2).sub_(1).mul_(self.eps).add_(x))
        if self.norm == "l2":
            u = u.mul_(2).sub_(1).erfinv_()
        else:
            u = u.log_().mul_(noise.uniform(n_features).sub_(0.5).sign_())
        if not self.scalar:
            u.mul_((self.eps > 0).flatten(1))
        # The volume within radius r grows like r to the number of free features.
        radius = noise.uniform(1).pow_(1 / max(1, self.n_free))
        u.mul_(radius / norm_of(u, self.norm, keepdim=True).clamp_min_(_tiny(u)))
        return self._from_unit(self._project_unit_(u), out=torch.empty_like(x))

    def _demand(self, what, *, lengths=True):
        if lengths and self.norm == "l0":
            raise ValueError(
                f"{what} needs a norm that measures lengths, 'linf', 'l2' or 'l1'; got norm='l0', "
                "which counts features."
            )
        if not self.bounded:
            limitless = "norm='l0'" if self.norm == "l0" else "eps=inf"
            raise ValueError(
                f"{what} with {limitless} needs finite bounds of all features that the attacker "
                "can change: give bounds=(low, high)."
            )

    def _to_unit(self, z):
        """In working memory, which the next call overwrites."""
        u = self.work[0]
        torch.sub(z, self.x, out=u.view_as(z)).mul_(self.inverse_eps)
        return u

    def _from_unit(self, u, out):
        u = u.view_as(self.x)
        if self.scalar:
            z = torch.add(self.x, u, alpha=self.eps, out=out)
        else:
            z = torch.addcmul(self.x, u, self.eps, out=out)
        # The box by its own numbers: behind it may be a square root.
        return z if self.low is None else z.clamp_(self.low, self.high)

    def _project_unit_(self, u):
        return _nearest_(u, self.norm, 1.0, self.bottom, self.top, self.work)


class Work(dict):
    """Working memory of a loop, by number, in the shape of a tensor.

    Fresh memory may cost more than the arithmetic that it is for.
    """

    def __init__(self, like):
        super().__init__()
        self.like = like

    def __missing__(self, number):
        self[number] = torch.empty_like(self.like, memory_format=torch.contiguous_format)
        return self[number]


def budgets(threat, shape):
    """Budgets of the features of one sample, zero for those that cannot change: number or array.

    For l0, where ``eps`` counts features, it is one for all that can change.
    """
    eps = np.float64(1.0) if threat.norm == "l0" else per_feature(threat.eps, shape, "eps")
    if threat.mask is None:
        return eps
    return np.where(mask_to_bool(threat.mask, prod(shape)).reshape(shape), eps, 0.0)


def _half_widths(threat, eps, shape):
    """Half the width of the box in all features that can change."""
    if threat.bounds is None:
        return np.where(eps > 0, np.inf, 0.0)
    low, high = (per_feature(side, shape, "bounds") for side in threat.bounds)
    return np.broadcast_to(np.where(eps > 0, high / 2 - low / 2, 0.0), shape)


def project_ball(u, norm, radius, bottom=None, top=None, *, work=None):
    """Nearest points to ``u``, in the Euclidean sense, in ball and box around the origin.

    Parameters
    ----------
    u : tensor of shape (n, d)
        Points to project; left as they are.

    norm : {"linf", "l2", "l1", "l0"}
        Norm of the ball.

    radius : tensor of shape (n, 1)
        Radius of the ball of each row; for l0 the number of features that may differ from zero.

    bottom, top : tensors of shape (n, d), default=None
        The box, with zero in it; possibly infinite. None means no box.

    work : Work, default=None
        Working memory in the shape of ``u``, to be used again.

    Returns
    -------
    projected : tensor of shape (n, d)
    """
    work = Work(u) if work is None else work
    return _nearest_(u.clone(), norm, radius, bottom, top, work)


def _nearest_(u, norm, radius, bottom, top, work):
    """:func:`project_ball` in place."""
    if norm == "linf":
        u.clamp_(-radius, radius)
        return u if top is None else u.clamp_(bottom, top)
    if norm == "l2" and top is None:
        length = norm_of(u, norm, keepdim=True)
        return u.mul_((radius / length.clamp_min_(_tiny(u))).clamp_max_(1))
    size = torch.abs(u, out=work[1])
    clipped = None if top is None else torch.clamp(u, bottom, top, out=work[2]).abs_()
    if norm == "l2":
        nearest = _fill_l2_(size, clipped, radius, 1.0, work)
    elif norm == "l1":
        nearest = _shrink_l1_(size, clipped, radius, work)
    else:
        kept = _worth_keeping(size, clipped, radius)
        nearest = kept * (size if clipped is None else clipped)
    return u.sign_().mul_(nearest)


def _fill_l2_(size, room, radius, largest, work):
    """``min(t * size, room)`` with the largest ``t <= largest`` that keeps l2 within ``radius``.

    With ``largest=1`` a ``room`` that is more than ``size`` may as well be ``size``. Comparisons
    are written into floats and used as factors: on a CPU that takes a tenth of the time of a
    boolean mask.
    """
    t = (radius / norm_of(size, "l2", keepdim=True).clamp_min_(_tiny(size))).clamp_max_(largest)
    limit = torch.clamp(size, min=_tiny(size), out=work[3])
    torch.div(room, limit, out=limit)  # the t at which a value meets its room
    n_before = torch.zeros_like(t)
    while True:
        clipped = torch.le(limit, t, out=work[4])
        n_clipped = clipped.sum(1, keepdim=True)
        if torch.equal(n_clipped, n_before):  # more and more are, so that they are the same
            return torch.minimum(size.mul_(t), room, out=size)
        left = radius * radius - _square_norm(clipped.mul_(room))
        free = _square_norm(torch.gt(limit, t, out=work[4]).mul_(size))
        # Without a free value every t gives the same point: take the largest.
        wanted = (left.clamp_min_(0) / free).sqrt_().nan_to_num_(nan=largest, posinf=largest)
        t = torch.maximum(wanted.clamp_max_(largest), t)
        n_before = n_clipped


def _square_norm(values):
    return torch.linalg.vecdot(values, values).unsqueeze(1)


def _shrink_l1_(size, room, radius, work):
    """``clip(size - shift, 0, room)`` with the smallest ``shift >= 0`` that has l1 <= ``radius``.

    Where ``room`` is more than ``size`` it may as well be ``size``. Newton's method. Sizes shrink
    in place, step by step: what is left of one far larger than the radius is as exact as the radius
    needs it.
    """
    zero = size.new_zeros(())
    nearest = torch.clamp(size, zero, room, out=work[3])
    length = nearest.sum(1, keepdim=True)
    radius = torch.minimum(length, torch.as_tensor(radius).to(length))  # there already, if shorter
    precision = torch.finfo(size.dtype).eps
    rows, value, free = None, nearest, work[4]
    # Seen from the shift that is reached: one too small, one too large, and what rounding moves.
    low, high = torch.zeros_like(length), size.amax(1, keepdim=True)
    slack = high * precision
    n_positive = torch.gt(size, 0, out=free).sum(1, keepdim=True)
    n_free = n_positive - torch.gt(size, nearest, out=free).sum(1, keepdim=True)
    newton = (length - radius).div_(n_free.clamp_min_(_tiny(size)))
    # No more features can shrink than are above zero, so that the other is not too long.
    step = torch.where(newton <= high, newton, (length - radius).div_(n_positive.clamp_min_(1)))
    for n_rounds in range(_MOST_ROUNDS):
        torch.clamp(size.sub_(step), zero, room, out=value)
        excess = value.sum(1, keepdim=True).sub_(radius)
        unsettled = excess.abs() > radius * (4 * precision)
        left = rows_where(unsettled)
        if not len(left):
            break
        too_small = (excess > 0).to(size.dtype)  # a factor: a mask would take more time
        high = torch.addcmul(slack, high - step, too_small)
        low = torch.addcmul(-slack, low - step, 1 - too_small)
        slope = torch.eq(value, size, out=free).sum(1, keepdim=True)
        newton = excess / slope.clamp_min_(_tiny(size))
        fits = (low <= newton) & (newton <= high)
        if n_rounds > 10 and n_rounds % 3 == 0:  # it crawls, or goes round in circles
            fits.zero_()
        step = torch.where(fits, newton, (low + high) / 2).mul_(unsettled)
        if 2 * len(left) <= len(size):
            if rows is not None:
                nearest.index_copy_(0, rows, value)
            rows = left if rows is None else rows[left]
            size, radius, low, high, slack, step = (
                part.index_select(0, left) for part in (size, radius, low, high, slack, step)
            )
            room = None if room is None else room.index_select(0, left)
            value, free = work[4][: len(left)], work[5][: len(left)]
    else:  # rounding kept some from settling
        value *= (radius / excess.add_(radius).clamp_min_(_tiny(size))).clamp_max_(1)
    return nearest if rows is None else nearest.index_copy_(0, rows, value)


def _fill_l1(size, room):
    """Fill the rooms in the order of ``size`` until the l1 norm is 1."""
    order = size.argsort(1, descending=True)
    room = room.masked_fill(size == 0, 0)
    room_sorted = room.gather(1, order)
    used_before = room_sorted.cumsum(1) - room_sorted
    filled = torch.minimum(room_sorted, (1 - used_before).clamp_min_(0))
    return torch.zeros_like(size).scatter_(1, order, filled)


def _worth_keeping(size, clipped, n_kept):
    """1 for the ``n_kept`` values of each row whose loss would cost the most, 0 for others.

    To lose a value costs its square, and to keep it the square of what the box clips from it.
    """
    if clipped is None:
        return _largest(size, n_kept)
    # The root of the difference of the two, in which no square overflows or vanishes.
    return _largest(clipped.sqrt() * (2 * size - clipped).sqrt_(), n_kept)


def _largest(size, count):
    """1 for the ``count`` largest values of each row, of equal ones the first, and 0 for others."""
    threshold = _threshold(size, count)
    among = torch.ge(size, threshold, out=torch.empty_like(size))
    if bool((among.sum(1, keepdim=True) > count).any()):
        above = torch.gt(size, threshold, out=torch.empty_like(size))
        equal = among.sub_(above)
        among = above + equal * (equal.cumsum(1) <= count - above.sum(1, keepdim=True))
    return among


def spread_steepest(direction, n_moved):
    """Signs of the largest entries of each row, zero elsewhere.

    Parameters
    ----------
    direction : tensor of shape (n, d)

    n_moved : int or int tensor of shape (n, 1)
        How many entries; fewer where fewer differ from zero, and more where several are as large
        as the smallest of them.

    Returns
    -------
    signs : tensor of shape (n, d)
    """
    size = direction.abs()
    reached = torch.ge(size, _threshold(size, n_moved), out=size)
    return direction.sign().mul_(reached)


def _threshold(size, count):
    """Positive number that the ``count`` largest values of each row reach; more only with ties."""
    n_features = size.shape[1]
    count = torch.as_tensor(count, device=size.device).long().clamp(max=n_features)
    if size.device.type == "cpu":  # NumPy sorts rows in a fifth of the time
        values = size if size.dtype in _NUMPY_DTYPES else size.float()
        ordered = torch.from_numpy(np.sort(values.numpy(), axis=1)).to(size.dtype)
    else:
        ordered = size.sort(1).values
    index = n_features - count.clamp(min=1)
    threshold = ordered.gather(1, index.expand(len(size), 1))
    return threshold.clamp_min_(_tiny(size)).masked_fill_(count < 1, torch.inf)


def rows_where(mask):
    """Rows of a column of booleans that are true."""
    return mask.flatten().nonzero()[:, 0]


def norm_of(delta, norm, keepdim=False):
    """Norm of each row; for l0 the number of values that are not zero."""
    if norm == "l2":
        return torch.linalg.vector_norm(delta, dim=1, keepdim=keepdim)
    if norm == "l0":  # written into floats: summing booleans takes several times as long
        return torch.ne(delta, 0, out=torch.empty_like(delta)).sum(1, keepdim=keepdim)
    size = delta.abs()
    # These take a tenth of the time of vector_norm on a CPU.
    return size.sum(1, keepdim=keepdim) if norm == "l1" else size.amax(1, keepdim=keepdim)


def _tiny(tensor):
    return torch.finfo(tensor.dtype).tiny
