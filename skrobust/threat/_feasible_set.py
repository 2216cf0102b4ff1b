"""Feasible sets: the inputs that an attacker can reach from each input of a batch."""

from abc import ABC, abstractmethod
from functools import cached_property
from math import prod

import torch

from ._coordinates import UnitCoordinates
from ._messages import needs_lengths


class FeasibleSet(UnitCoordinates, ABC):
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

    _row_attributes = (*UnitCoordinates._row_attributes, "farthest")

    norm: str

    # --- sizes ---

    @staticmethod
    @abstractmethod
    def size(u):
        """Return the norm of each row.

        Parameters
        ----------
        u : tensor of shape (n, d)
            Perturbations.

        Returns
        -------
        size : tensor of shape (n, 1)
            Their norms.
        """

    @staticmethod
    @abstractmethod
    def dual_size(w):
        """Return the dual norm of each row, which is never zero.

        A linear function with slope ``w`` and value ``v`` is zero at distance ``|v| /
        dual_size(w)``.

        Parameters
        ----------
        w : tensor of shape (n, d)
            Slopes.

        Returns
        -------
        size : tensor of shape (n, 1)
            Their dual norms, at least the smallest normal number.
        """

    def resize_(self, u, size):
        """Scale perturbations to another size, in place; rows of zeros stay.

        Parameters
        ----------
        u : tensor of shape (n, d)
            Perturbations; overwritten.

        size : float or tensor of shape (n, 1)
            Norm that they get.

        Returns
        -------
        u : tensor of shape (n, d)
            The same tensor.
        """
        return u.mul_(size / self.size(u).clamp_min_(torch.finfo(u.dtype).tiny))

    @cached_property
    def farthest(self):
        """Size of the farthest corner of the box of each row in units, of shape (n, 1)."""
        if self.bottom is None:
            return self.x.new_full((len(self.x), 1), torch.inf)
        return self.size(torch.maximum(-self.bottom, self.top))

    # --- projections and steps ---

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
            Nearest points of ball and box.
        """

    def project_units(self, u, radius=None):
        """Project perturbations onto the ball and the box.

        Parameters
        ----------
        u : tensor of shape (n, d)
            Perturbations; not modified.

        radius : float or tensor of shape (n, 1), default=None
            Radius of the ball; None means the radius of the set.

        Returns
        -------
        projected : tensor of shape (n, d)
            Nearest perturbations of ball and box.
        """
        radius = self.radius if radius is None else radius
        return self.project_ball(u, radius, self.bottom, self.top)

    def project_(self, z):
        """Project inputs onto the set, in place.

        Parameters
        ----------
        z : tensor of the shape of ``x``
            Inputs; overwritten.

        Returns
        -------
        z : tensor of the shape of ``x``
            The same tensor.
        """
        return self.from_units(self.project_units(self.to_units(z)), out=z)

    def perturbation(self, z):
        """Return the projection of inputs minus ``x``, without the rounding of their sum.

        Parameters
        ----------
        z : tensor of the shape of ``x``
            Inputs; not modified.

        Returns
        -------
        delta : tensor of the shape of ``x``
            Perturbations in units of X.
        """
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
            Length of the step as a fraction of the radius.

        Returns
        -------
        z : tensor of the shape of ``x``
            The same tensor.
        """
        u, direction = self.to_units(z), self.grad_to_units(grad)
        u = self._move_(u, direction, self.unblocked(u, direction), fraction)
        return self.from_units(self.project_units(u), out=z)

    def _move_(self, u, direction, unblocked, fraction):
        """Move ``u`` along the steepest direction by a fraction of the radius, in place."""
        raise needs_lengths("A step")

    @staticmethod
    def unit_direction(v):
        """Return the steepest direction of size 1.

        Parameters
        ----------
        v : tensor of shape (n, d)
            Gradients in units.

        Returns
        -------
        direction : tensor of shape (n, d)
            Directions of size 1 with the largest product with the gradients.
        """
        raise needs_lengths("A step")

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

    def _random_direction(self, uniform, noise):
        """Return vectors whose direction is uniform on the sphere (linf: points of the ball)."""
        raise needs_lengths("A random start")

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
            Source of uniform numbers.

        Returns
        -------
        z : tensor of the shape of ``x``
            Inputs in the set.
        """
        u = self.random_in_ball(noise).mul_(self.radius)
        return self.from_units(self.project_units(u))

    # --- linear functions ---

    def maximize_linear(self, grad):
        """Return the points of the set at which ``<grad, z>`` is largest.

        Parameters
        ----------
        grad : tensor of the shape of ``x``
            Slopes of the linear functions.

        Returns
        -------
        z : tensor of the shape of ``x``
            Inputs in the set.
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
            Slopes of the linear functions.

        Returns
        -------
        bound : tensor of shape (n,)
            Upper bounds.
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

    def hyperplane(self, w):
        """Prepare shortest steps across linear functions inside the box.

        Parameters
        ----------
        w : tensor of shape (n, d)
            Slopes of the functions in units.

        Returns
        -------
        hyperplane : Hyperplane
            Has a method ``step(gap, u=None)``.
        """
        raise needs_lengths("A step")
