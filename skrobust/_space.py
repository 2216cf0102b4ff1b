"""Geometry without a radius: where the nearest adversarial point is looked for."""

import copy
from functools import cached_property
from math import prod

import numpy as np
import torch

from ._region import norm_of
from .utils._threat_parameters import mask_to_bool, per_feature

# Distances are not below this, so that their squares can be divided by.
_SHORTEST = 1e-16


class Space:
    """Box and mask around one batch of inputs, and the norm that measures distance.

    Points are perturbations ``u`` of shape (n, d) in units of ``scale``: ``z = x + scale u``. With
    one number ``eps`` they are the plain differences, and with one per feature they are relative to
    it, so that the ball of the threat model is the unit ball. In l0 each is a share of its box.

    Parameters
    ----------
    threat : ThreatModel
        Bounds, mask, and the budgets per feature where it has them.

    norm : {"linf", "l2", "l1", "l0"}
        What measures ``u``.

    x : tensor of shape (n, ...)
        The inputs; their dtype and device are those of all the arithmetic.

    Attributes
    ----------
    radius : float
        The size that counts as a success; may be infinite.

    bottom, top : None or tensors of shape (n, d)
        The box around ``u``, with zero in it; may be infinite. Zero for a feature that cannot
        change. None where nothing limits any feature.

    n_free : int
        How many features can change, at least 1.

    scale : float or tensor of shape (1, d)
        Zero for a feature that cannot change.
    """

    def __init__(self, threat, norm, x):
        self.norm = norm
        self.x = x = x.detach()
        n_features = prod(x.shape[1:])
        scalar = np.ndim(threat.eps) == 0
        self.radius = threat.eps if scalar else 1.0
        scale = np.ones(n_features) if scalar else per_feature(threat.eps, (n_features,), "eps")
        if norm == "l0":  # how much a feature changes does not count: its box is its unit
            scale = _widths(threat, n_features)
        if threat.mask is not None:
            scale = np.where(mask_to_bool(threat.mask, n_features), scale, 0.0)
        self.low = self.high = self.bottom = self.top = None
        if threat.bounds is not None:
            low, high = threat._sides(x)
            self.low, self.high = torch.minimum(x, low), torch.maximum(x, high)
        self.n_free = max(1, int(np.count_nonzero(scale)))
        if (scale == 1).all():
            self.scale: float | torch.Tensor = 1.0
        else:
            self.scale = torch.tensor(scale, dtype=x.dtype, device=x.device).unsqueeze(0)
        if self.low is not None or (scale == 0).any():
            self.bottom = self._room(None if self.low is None else x - self.low).neg()
            self.top = self._room(None if self.high is None else self.high - x)

    def _room(self, distance):
        if distance is None:
            distance = torch.full_like(self.x, torch.inf)
        room = distance.flatten(1)
        if isinstance(self.scale, float):
            return room
        # inf / 0 is what a feature without bounds that cannot change would have.
        return torch.where(self.scale > 0, room / self.scale, 0.0)

    def take(self, rows):
        """Keep some of the rows."""
        part = copy.copy(self)
        for name in ("x", "low", "high", "bottom", "top", "farthest", "resolution"):
            value = vars(self).get(name)  # the last two only where they have been asked for
            if value is not None:
                setattr(part, name, value[rows])
        return part

    def zeros(self):
        """The inputs themselves."""
        return torch.zeros_like(self.x).flatten(1)

    def point(self, u):
        """The inputs that perturbations lead to, of the shape of ``x``."""
        z = self.x + (u if isinstance(self.scale, float) else u * self.scale).view_as(self.x)
        # The box by its own numbers: behind it may be a square root.
        return z if self.low is None else z.clamp_(self.low, self.high)

    def unit(self, z):
        """The perturbations that lead to ``z``."""
        u = (z - self.x).flatten(1)
        if isinstance(self.scale, float):
            return u
        return torch.where(self.scale > 0, u / self.scale, 0)

    def pull(self, grad):
        """Gradient with respect to ``u`` from that with respect to the inputs."""
        grad = grad.flatten(1)
        return grad if isinstance(self.scale, float) else grad * self.scale

    def clip_(self, u):
        """Move ``u`` into the box, in place."""
        return u if self.bottom is None else u.clamp_(self.bottom, self.top)

    def widest(self):
        """Longest side of the box of each row, of shape (n, 1)."""
        if self.bottom is None:
            return self.x.new_full((len(self.x), 1), torch.inf)
        return (self.top - self.bottom).amax(1, keepdim=True)

    @cached_property
    def farthest(self):
        """Distance of the corner of the box that is the farthest away, of shape (n, 1)."""
        if self.bottom is None:
            return self.x.new_full((len(self.x), 1), torch.inf)
        return self.size(torch.maximum(-self.bottom, self.top))

    @cached_property
    def resolution(self):
        """Perturbations of this size, of shape (n, 1), are not lost in rounding."""
        largest = self.x.flatten(1).abs().amax(1, keepdim=True)
        return largest.mul_(64 * torch.finfo(self.x.dtype).eps).clamp_min_(_SHORTEST)

    def size(self, u):
        """Norm of each row, of shape (n, 1)."""
        return norm_of(u, self.norm, keepdim=True)

    def resize_(self, u, size):
        """Give perturbations another norm, in place; those that are zero stay so."""
        return u.mul_(size / self.size(u).clamp_min_(torch.finfo(u.dtype).tiny))


def _widths(threat, n_features):
    """Length of the box of each feature; 1 where it has none."""
    if threat.bounds is None:
        return np.ones(n_features)
    low, high = (per_feature(side, (n_features,), "bounds") for side in threat.bounds)
    width = np.broadcast_to(high - low, (n_features,))
    return np.where(np.isfinite(width), width, 1.0)
