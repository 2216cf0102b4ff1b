"""Feasible sets: the inputs that an attacker can reach from each input of a batch."""

from abc import ABC, abstractmethod
from functools import cached_property
from math import isinf, prod

import numpy as np
import torch

from ..utils._rows import RowBatch
from ..utils._validation import per_feature
from ._parameters import mask_to_bool

# Smallest distance that attacks measure by, so that its square can be a divisor.
_SHORTEST = 1e-16


class FeasibleSet(RowBatch, ABC):
    """Ball ∩ box ∩ mask around each input of a batch; one subclass for each norm.

    Made by :meth:`~skrobust.threat.ThreatModel.feasible_set`.

    Points are either inputs ``z`` of the shape of ``x``, or perturbations in units of the budget:
    ``u`` of shape (n, d) with ``z = x + scale * u``, for which the ball is ``size(u) <= radius``.
    For finite ``eps`` the scale is ``eps`` and the radius 1. Without a limit (``eps=inf``) the
    scale is 1 and the radius infinite. In l0 the scale of a feature is the width of its bounds, and
    the radius is the number of features.

    Parameters
    ----------
    threat : ThreatModel
        Budgets, bounds and mask.

    x : tensor of shape (n, ...)
        Inputs; their dtype and device are those of all the arithmetic.

    Attributes
    ----------
    norm : str
        Name of the norm.

    radius : float
        Radius of the ball in units of ``scale``; possibly infinite.

    scale : float or tensor of shape (1, d)
        Unit of each feature; zero for features that cannot change.

    is_uniform : bool
        Whether all features that can change have the same unit.

    n_free : int
        Number of features that can change, at least 1.

    low, high : None or tensors of the shape of ``x``
        The box, extended to ``x`` where that lies outside. None without bounds.

    bottom, top : None or tensors of shape (n, d)
        The box around ``u``. It contains zero, and is zero for features that cannot change. None
        where nothing limits any feature.
    """

    _row_attributes = (
        "x", "low", "high", "bottom", "top", "lowest", "highest", "farthest", "resolution",
    )  # fmt: skip

    norm: str

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

    # --- coordinates ---

    def to_units(self, z):
        """Return the perturbations ``u`` that lead to the inputs ``z``."""
        return torch.sub(z, self.x).flatten(1).mul_(self.inverse_scale)

    def from_units(self, u, rows=None, out=None):
        """Return the inputs ``z`` that perturbations lead to, clipped to the box.

        Parameters
        ----------
        u : tensor of shape (m, d)

        rows : None or int64 tensor of shape (m,), default=None
            Rows of the batch that the perturbations belong to; None means one for each row.

        out : None or tensor of shape (m, ...), default=None
            Where to write the result.

        Returns
        -------
        z : tensor of shape (m, ...)
        """
        x, low, high = (
            side if side is None or rows is None else side[rows]
            for side in (self.x, self.low, self.high)
        )
        if isinstance(self.scale, float):
            z = torch.add(x, u.view_as(x), alpha=self.scale, out=out)
        else:
            z = torch.addcmul(x, u.view_as(x), self.scale.view(1, *x.shape[1:]), out=out)
        # Clip here, too: the change of units rounds.
        return z if low is None else z.clamp_(low, high)

    def grad_to_units(self, grad):
        """Return the gradient with respect to ``u``, given the one with respect to ``z``."""
        return grad.flatten(1) * self.scale

    def zeros(self):
        """Return the perturbations of the inputs themselves: zeros of shape (n, d)."""
        return torch.zeros_like(self.x).flatten(1)

    # --- sizes ---

    @staticmethod
    @abstractmethod
    def size(u):
        """Return the norm of each row, of shape (n, 1)."""

    @staticmethod
    @abstractmethod
    def dual_size(w):
        """Return the dual norm of each row, of shape (n, 1); never zero.

        A linear function with slope ``w`` and value ``v`` is zero at distance ``|v| /
        dual_size(w)``.
        """

    def resize_(self, u, size):
        """Scale perturbations to another size, in place; rows of zeros stay."""
        return u.mul_(size / self.size(u).clamp_min_(torch.finfo(u.dtype).tiny))

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
        """Return the longest side of the box of each row in units, of shape (n, 1)."""
        if self.bottom is None:
            return self.x.new_full((len(self.x), 1), torch.inf)
        return (self.top - self.bottom).amax(1, keepdim=True)

    @cached_property
    def farthest(self):
        """Size of the farthest corner of the box of each row in units, of shape (n, 1)."""
        if self.bottom is None:
            return self.x.new_full((len(self.x), 1), torch.inf)
        return self.size(torch.maximum(-self.bottom, self.top))

    @cached_property
    def resolution(self):
        """Size of perturbations in units that rounding does not erase, of shape (n, 1)."""
        largest = (self.x.flatten(1) * self.inverse_scale).abs().amax(1, keepdim=True)
        return largest.mul_(64 * torch.finfo(self.x.dtype).eps).clamp_min_(_SHORTEST)

    # --- projections and steps ---

    def clip_(self, u):
        """Clip perturbations to the box, in place."""
        return u if self.bottom is None else u.clamp_(self.bottom, self.top)

    @staticmethod
    @abstractmethod
    def project_ball(u, radius, bottom=None, top=None):
        """Project onto a ball and a box around the origin, in the Euclidean sense.

        Parameters
        ----------
        u : tensor of shape (n, d)
            Points; not modified.

        radius : float or tensor of shape (n, 1)
            Radius of the ball; in l0 the number of values that may differ from zero.

        bottom, top : None or tensors of shape (n, d)
            The box, which contains zero; possibly infinite. None means no box.

        Returns
        -------
        projected : tensor of shape (n, d)
        """

    def project_units(self, u, radius=None):
        """Project perturbations onto the ball and the box.

        Parameters
        ----------
        u : tensor of shape (n, d)

        radius : float or tensor of shape (n, 1), default=None
            Radius of the ball; None means that of the set.

        Returns
        -------
        projected : tensor of shape (n, d)
        """
        radius = self.radius if radius is None else radius
        return self.project_ball(u, radius, self.bottom, self.top)

    def project_(self, z):
        """Project inputs onto the set, in place."""
        return self.from_units(self.project_units(self.to_units(z)), out=z)

    def perturbation(self, z):
        """Return the projection of ``z`` less ``x``, without the rounding of their sum."""
        return (self.project_units(self.to_units(z)) * self.scale).view_as(z)

    def step_(self, z, grad, fraction):
        """Go along the steepest direction by a fraction of the radius, and project, in place.

        Features that the box blocks do not count for the length of the step. In l1 the step is
        spread over the steepest features. With ``eps=inf``, half the width of the box takes the
        place of the radius.

        Parameters
        ----------
        z : tensor of the shape of ``x``
            Points of the set; overwritten.

        grad : tensor of the shape of ``x``
            Gradients with respect to ``z``; may be overwritten.

        fraction : float or tensor of shape (n, 1)

        Returns
        -------
        z : tensor of the shape of ``x``
        """
        u, direction = self.to_units(z), self.grad_to_units(grad)
        u = self._move_(u, direction, self.unblocked(u, direction), fraction)
        return self.from_units(self.project_units(u), out=z)

    def _move_(self, u, direction, unblocked, fraction):
        """Move ``u`` along the steepest direction by a fraction of the radius, in place."""
        raise NotImplementedError

    def unblocked(self, u, direction):
        """Return the direction, with zeros for features that the box holds back.

        Parameters
        ----------
        u, direction : tensors of shape (n, d)
        """
        if self.bottom is None:
            return direction
        # Limits of 0 or the largest number, as comparisons written into floats: on a CPU, boolean
        # masks take several times as long.
        largest = torch.finfo(u.dtype).max
        down = torch.gt(u, self.bottom, out=torch.empty_like(u)).mul_(-largest)
        up = torch.lt(u, self.top, out=torch.empty_like(u)).mul_(largest)
        return direction.clamp(down, up)

    @staticmethod
    @abstractmethod
    def unit_direction(v):
        """Return the steepest direction of size 1 for each gradient ``v`` of shape (n, d)."""

    # --- random points ---

    def random_in_ball(self, noise):
        """Draw perturbations uniformly from the ball of size 1.

        Parameters
        ----------
        noise : RowNoise or GeneratorNoise
            Source of uniform numbers.

        Returns
        -------
        u : tensor of shape (n, d)
            Zero for features that cannot change.
        """
        # Keep away from 0 and 1, where the quantile functions are infinite.
        small = torch.finfo(self.x.dtype).eps / 2
        uniform = noise.uniform(prod(self.x.shape[1:])).clamp_(small, 1 - small)
        u = self._random_direction(uniform, noise)
        if not isinstance(self.scale, float):
            u.mul_(self.scale > 0)
        return self._fill_ball(u, noise)

    @abstractmethod
    def _random_direction(self, uniform, noise):
        """Return vectors whose direction is uniform on the sphere (linf: points of the ball)."""

    def _fill_ball(self, u, noise):
        """Scale directions so that they fill the ball of size 1 uniformly."""
        # The volume within radius r is proportional to r to the number of free features.
        return self.resize_(u, noise.uniform(1).pow_(1 / self.n_free))

    def random_start(self, noise):
        """Draw inputs uniformly from the ball and project them onto the box.

        With ``eps=inf`` they are uniform in the box.

        Parameters
        ----------
        noise : RowNoise or GeneratorNoise

        Returns
        -------
        z : tensor of the shape of ``x``
        """
        u = self.random_in_ball(noise).mul_(self.radius)
        return self.from_units(self.project_units(u))

    # --- linear functions ---

    def maximize_linear(self, grad):
        """Return the points of the set at which ``<grad, z>`` is largest.

        Parameters
        ----------
        grad : tensor of the shape of ``x``

        Returns
        -------
        z : tensor of the shape of ``x``
        """
        direction, size, room = self._slopes_and_rooms(grad)
        fill, _ = self._fill(size, room)
        return self.from_units(fill.copysign_(direction))

    def linear_upper_bound(self, grad):
        """Return an upper bound of ``<grad, z - x>`` over the set, by its dual value.

        It equals the maximum up to rounding. By weak duality it is a bound however inexact the
        maximiser is: the gradient is split into two parts, one bounded over the ball, the other
        over the box, and every split gives a bound. The rounding of its own sums is not accounted
        for.

        Parameters
        ----------
        grad : tensor of the shape of ``x``

        Returns
        -------
        bound : tensor of shape (n,)
        """
        direction, size, room = self._slopes_and_rooms(grad)
        _, over_ball = self._fill(size, room)
        over_box = (size - over_ball).mul_(room).sum(1, keepdim=True)
        bound = self.radius * self.dual_size(over_ball) + over_box
        return (bound * direction.abs().amax(1, keepdim=True))[:, 0]

    def _slopes_and_rooms(self, grad):
        """Return slopes in units, their sizes relative to the largest, and the room ahead."""
        direction = self.grad_to_units(grad)
        size = direction.abs()
        # Relative to the largest, no square underflows.
        size.div_(size.amax(1, keepdim=True).clamp_min_(torch.finfo(size.dtype).tiny))
        room = torch.full_like(size, self.radius)
        if self.top is not None:
            # Nothing in the ball is longer than the radius.
            room = torch.where(direction > 0, self.top, self.bottom.neg()).clamp_max_(self.radius)
        return direction, size, room

    def _fill(self, size, room):
        """Return the best step within ball and rooms, and the part of ``size`` bounded by the ball.

        Both are tensors of shape (n, d) that are not negative; the part is at most ``size``.
        """
        raise NotImplementedError

    @abstractmethod
    def hyperplane(self, w):
        """Prepare shortest steps across linear functions inside the box.

        Parameters
        ----------
        w : tensor of shape (n, d)
            Slopes of the functions in units.

        Returns
        -------
        hyperplane : Hyperplane
        """


def _inverse(scale):
    """Return 1 / scale, and 0 for features that cannot change."""
    return np.divide(1.0, scale, out=np.zeros_like(scale, dtype=np.float64), where=scale > 0)
