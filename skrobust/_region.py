"""Geometry around one batch of inputs: projection, steps and draws in ball ∩ box ∩ mask."""

import copy
from math import prod

import numpy as np
import torch

from .utils._threat_parameters import mask_to_bool, per_feature

# A step in l1 moves this share of the features at once. Moving only the steepest one, which is
# what the norm asks for, needs as many steps as there are features to move (Tramèr & Boneh 2019).
# Steps shorter than the radius move fewer, so that falling steps end at a vertex of the ball.
_L1_STEP_SHARE = 0.05


class Region:
    """The admissible points around one batch of inputs, made by :meth:`ThreatModel.around`.

    For linf it is an interval for each value. For l2 and l1 the arithmetic runs in the coordinates
    ``u = (z - x) / eps``, in which the ball is the unit ball.
    """

    def __init__(self, threat, x):
        self.norm = threat.norm
        self.x = x = x.detach()
        eps = per_feature(threat.eps, x.shape[1:], "eps")
        if threat.mask is not None:
            # A budget of zero is how the arithmetic knows a feature that cannot be changed.
            changeable = mask_to_bool(threat.mask, prod(x.shape[1:])).reshape(x.shape[1:])
            eps = np.where(changeable, eps, 0.0)
        self.scalar = np.ndim(eps) == 0
        self.n_free = prod(x.shape[1:]) if self.scalar else int(np.count_nonzero(eps))
        if self.scalar:
            self.eps: float | torch.Tensor = float(eps)
        else:
            self.eps = torch.tensor(eps, dtype=x.dtype, device=x.device).unsqueeze(0)
        low = high = None
        if threat.bounds is not None:
            low, high = threat._sides(x)
            low, high = torch.minimum(x, low), torch.maximum(x, high)
        if self.norm == "linf":
            self.low, self.high = x - self.eps, x + self.eps
            if low is not None:
                torch.maximum(self.low, low, out=self.low)
                torch.minimum(self.high, high, out=self.high)
        else:
            if self.scalar:
                self.inverse_eps = 1 / self.eps if self.eps > 0 else 0.0
            else:
                self.inverse_eps = torch.where(self.eps > 0, 1 / self.eps, 0.0)
            self.low, self.high = low, high
            self.below = self.above = None
            if low is not None:
                self.below = self._in_unit(x - low)
                self.above = self._in_unit(high - x)

    def _in_unit(self, distance):
        # Nothing in the unit ball is longer than 1, so that more room changes nothing. A fixed
        # feature without a bound, inf * 0, has none.
        return distance.mul_(self.inverse_eps).flatten(1).nan_to_num_(nan=0.0).clamp_max_(1)

    def take(self, rows):
        """Keep some of the rows."""
        part = copy.copy(self)
        for name in ("x", "low", "high", "below", "above"):
            value = getattr(self, name, None)
            if value is not None:
                setattr(part, name, value[rows])
        return part

    def project_(self, z):
        """Move ``z`` to the nearest admissible points, in place."""
        if self.norm == "linf":
            return z.clamp_(self.low, self.high)
        return self._from_unit(self._project_unit(self._to_unit(z)), out=z)

    def perturbation(self, z):
        """The projection of ``z``, less ``x``: free of the rounding of their sum."""
        if self.norm == "linf":
            delta = z.clamp(self.low, self.high).sub_(self.x)
            return torch.clamp(delta, -self.eps, self.eps)
        return self._project_unit(self._to_unit(z)).view_as(z).mul_(self.eps)

    def step_(self, z, grad, fraction):
        """Step along the steepest direction by ``fraction`` of the radius and project, in place.

        ``grad`` is overwritten. The length of the step is that of the features which the box does
        not hold back; in l1 the step is spread over the steepest of these.
        """
        if self.norm == "linf":
            if self.scalar:
                z.add_(grad.sign_(), alpha=fraction * self.eps)
            else:
                z.addcmul_(grad.sign_(), self.eps, value=fraction)
            return z.clamp_(self.low, self.high)
        u = self._to_unit(z)
        direction = grad.mul_(self.eps).flatten(1)
        movable = direction
        if self.above is not None:
            way = direction.sign().mul_(u).add_(1e-6)
            movable = direction * torch.lt(way, self._room(direction), out=way)
        if self.norm == "l1":
            share = _L1_STEP_SHARE * min(1.0, fraction)
            direction = movable = _spread_steepest(movable, max(1, round(share * self.n_free)))
        # In l2 the others push on all the same: on a linear model the optimum stays where it is.
        length = norm_of(movable, self.norm, keepdim=True)
        if movable is not direction:
            length = torch.maximum(length, norm_of(direction, self.norm, keepdim=True).mul_(1e-3))
        direction.div_(length.clamp_min_(_tiny(direction)))
        return self._from_unit(self._project_unit(u.add_(direction, alpha=fraction)), out=z)

    def steepest(self, grad):
        """Admissible points at which ``<grad, z>`` is largest."""
        if self.norm == "linf":
            return torch.where(grad > 0, self.high, torch.where(grad < 0, self.low, self.x))
        direction = (grad * self.eps).flatten(1)
        size = direction.abs()
        # Only the direction counts; at size one, no square of it can vanish.
        size.div_(size.amax(1, keepdim=True).clamp_min_(_tiny(size)))
        room = self._room(direction)
        if self.norm == "l2":  # not inf, which makes a NaN of a zero
            fill = _fill_l2(size, room, largest=torch.finfo(size.dtype).max)
        else:
            fill = _fill_l1(size, room)
        return self._from_unit(fill.copysign_(direction), out=torch.empty_like(self.x))

    def random(self, noise):
        """Points drawn uniformly from the ball, projected onto the box."""
        x = self.x
        n_features = prod(x.shape[1:])
        small = torch.finfo(x.dtype).eps / 2  # the functions below are finite inside (0, 1) only
        u = noise.uniform(n_features).clamp_(small, 1 - small)
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
        return self._from_unit(self._project_unit(u), out=torch.empty_like(x))

    def _to_unit(self, z):
        return (z - self.x).mul_(self.inverse_eps).flatten(1)

    def _from_unit(self, u, out):
        z = torch.add(self.x, u.view_as(self.x).mul_(self.eps), out=out)
        # The box by its own numbers: behind it may be a square root.
        return z if self.low is None else z.clamp_(self.low, self.high)

    def _room(self, direction):
        """Distance to the box on the side of ``direction``, in units of eps."""
        if self.above is None:
            return torch.ones_like(direction)
        upward = torch.gt(direction, 0, out=torch.empty_like(direction))
        return torch.lerp(self.below, self.above, upward)

    def _project_unit(self, u):
        if self.above is None and self.norm == "l2":
            return u.div_(norm_of(u, "l2", keepdim=True).clamp_min_(1))
        size = u.abs()
        if self.norm == "l2":
            nearest = _fill_l2(size, self._room(u), largest=1.0)
        else:
            nearest = _shrink_l1(size, self._room(u))
        return nearest.copysign_(u)


def _fill_l2(size, room, largest):
    """``min(t * size, room)`` with the largest ``t <= largest`` that keeps the l2 norm at 1.

    Comparisons are written into floats and used as factors: on a CPU that takes a tenth of the
    time of a boolean mask.
    """
    t = (1 / norm_of(size, "l2", keepdim=True).clamp_min_(_tiny(size))).clamp_max_(largest)
    limit = room / size.clamp_min(_tiny(size))  # the t at which a value meets its room
    squares, room_squares = size.square(), room.square()
    clipped, clipped_before = torch.empty_like(size), torch.zeros_like(size)
    while True:
        torch.le(limit, t, out=clipped)
        if torch.equal(clipped, clipped_before):
            return torch.minimum(t * size, room)
        left = 1 - torch.linalg.vecdot(clipped, room_squares).unsqueeze(1)
        free = torch.linalg.vecdot(1 - clipped, squares).unsqueeze(1)
        # Without a free value every t gives the same point: take the largest.
        wanted = (left.clamp_min_(0) / free).sqrt_().nan_to_num_(nan=largest, posinf=largest)
        t = torch.maximum(wanted.clamp_max_(largest), t)
        clipped, clipped_before = clipped_before, clipped


def _shrink_l1(size, room):
    """``clip(size - shift, 0, room)`` with the smallest ``shift >= 0`` that has l1 norm <= 1."""
    # The norm is > 1 at low and <= 1 at high, unless the shift is 0.
    shift = low = torch.zeros_like(size[:, :1])
    high = size.amax(1, keepdim=True)
    free, below_room = torch.empty_like(size), torch.empty_like(size)
    while True:
        rest = (size - shift).clamp_min_(0)
        torch.lt(rest, room, out=below_room)
        slope = torch.gt(rest, 0, out=free).mul_(below_room).sum(1, keepdim=True)
        value = torch.minimum(rest, room, out=rest)
        excess = value.sum(1, keepdim=True) - 1
        low = torch.where(excess > 0, shift, low)
        high = torch.where(excess > 0, high, shift)
        newton = shift + excess / slope
        following = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
        # A shift of 0 with a norm <= 1 has low == high == 0, and so ends here too.
        settled = (excess.abs() <= 4 * torch.finfo(size.dtype).eps) | (following <= low)
        settled |= following >= high
        if bool(settled.all()):
            return value
        shift = torch.where(settled, shift, following)


def _fill_l1(size, room):
    """Fill the rooms in the order of ``size`` until the l1 norm is 1."""
    order = size.argsort(1, descending=True)
    room = room.masked_fill(size == 0, 0)
    room_sorted = room.gather(1, order)
    used_before = room_sorted.cumsum(1) - room_sorted
    filled = torch.minimum(room_sorted, (1 - used_before).clamp_min_(0))
    return torch.zeros_like(size).scatter_(1, order, filled)


def _spread_steepest(direction, n_moved):
    """Signs of the ``n_moved`` largest entries of each row, zero elsewhere."""
    index = direction.abs().topk(n_moved, dim=1).indices
    return torch.zeros_like(direction).scatter_(1, index, direction.gather(1, index).sign_())


def norm_of(delta, norm, keepdim=False):
    """Norm of each row."""
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm(delta, ord=order, dim=1, keepdim=keepdim)


def _tiny(tensor):
    return torch.finfo(tensor.dtype).tiny
