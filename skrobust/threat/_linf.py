"""Feasible sets in linf: an interval for each feature."""

from functools import cached_property

import torch

from ._feasible_set import FeasibleSet
from ._hyperplane import LinfHyperplane
from ._messages import check_bounded


class LinfSet(FeasibleSet):
    """Ball of linf ∩ box ∩ mask; see :class:`FeasibleSet`.

    It is the product of the intervals from ``lowest`` to ``highest``.
    """

    norm = "linf"

    @staticmethod
    def size(u):
        """Return the largest absolute value of each row, of shape (n, 1)."""
        # A tenth of the time of torch.linalg.vector_norm on a CPU.
        return u.abs().amax(1, keepdim=True)

    @staticmethod
    def dual_size(w):
        """Return the sum of the absolute values of each row, of shape (n, 1); never zero."""
        return w.abs().sum(1, keepdim=True).clamp_min_(torch.finfo(w.dtype).tiny)

    @staticmethod
    def project_ball(u, radius, bottom=None, top=None):
        """Project onto a ball and a box; see :meth:`FeasibleSet.project_ball`."""
        u = u.clamp(-radius, radius)
        return u if top is None else u.clamp_(bottom, top)

    def project_(self, z):
        """Project inputs onto the set, in place."""
        return z.clamp_(self.lowest, self.highest)

    def perturbation(self, z):
        """Return the projection of ``z`` less ``x``, without the rounding of their sum."""
        reach = self._reach()
        return z.clamp(self.lowest, self.highest).sub_(self.x).clamp_(-reach, reach)

    @cached_property
    def _step_unit(self):
        """Change of each feature by a step of the whole radius, in units of X."""
        if self.radius == 1.0:
            return self._reach()
        check_bounded(self, "A step")
        return ((self.highest - self.lowest) / 2)[:1]

    def step_(self, z, grad, fraction):
        """Go along the steepest direction by a fraction of the radius, and project, in place."""
        unit = self._step_unit
        if isinstance(fraction, torch.Tensor):
            fraction = fraction.view(-1, *[1] * (z.ndim - 1))
        if isinstance(fraction, float) and isinstance(unit, float):
            z.add_(grad.sign_(), alpha=fraction * unit)
        else:
            z.addcmul_(grad.sign_(), fraction * unit)
        return self.project_(z)

    @staticmethod
    def unit_direction(v):
        """Return the signs of each gradient: the steepest direction of size 1."""
        return v.sign()

    def _random_direction(self, uniform, noise):
        return uniform.mul_(2).sub_(1)

    def _fill_ball(self, u, noise):
        return u

    def random_start(self, noise):
        """Draw inputs uniformly from the ball, or from the box where the ball has no end."""
        if self.radius == 1.0:
            return super().random_start(noise)
        check_bounded(self, "A random start")
        uniform = noise.uniform(self.x[0].numel()).view_as(self.x)
        return torch.lerp(self.lowest, self.highest, uniform)

    def maximize_linear(self, grad):
        """Return the points of the set at which ``<grad, z>`` is largest."""
        check_bounded(self, "The steepest point")
        return torch.where(grad > 0, self.highest, torch.where(grad < 0, self.lowest, self.x))

    def linear_upper_bound(self, grad):
        """Return the largest value of ``<grad, z - x>`` over the set, of shape (n,)."""
        return ((self.maximize_linear(grad) - self.x) * grad).flatten(1).sum(1)

    def hyperplane(self, w):
        """Prepare shortest steps across linear functions; see :class:`FeasibleSet`."""
        return LinfHyperplane(self, w)
