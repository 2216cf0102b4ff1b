"""What an attack climbs: losses of the logits, with their gradients in closed form.

A loss is made for the labels of one batch and called with logits of shape (n, n_classes >= 2). It
returns

- the margin ``max_{j != y} z_j - z_y`` of shape (n, 1): positive exactly where y is not the
  prediction. It judges success whatever the loss, and ranks the points that an attack has seen;
- a direction of shape (n, n_classes): the gradient of the loss with respect to the logits, up to a
  positive factor for each row, which no attack heeds.

For a targeted attack both have the other sign. Written out, the gradients spare each step the
passes through the loss, and they do not vanish: the cross-entropy's is ``(1 - p_y) (softmax of the
other logits - e_y)``, and it is the factor in front that becomes zero in floating point where a
model is sure of itself (Carlini & Wagner 2017, section V; Croce & Hein 2020, section 4). With two
classes both losses have the same direction.
"""

from abc import ABC, abstractmethod
from copy import copy

import torch


class Loss(ABC):
    """A loss for one batch.

    Parameters
    ----------
    labels : int64 tensor of shape (n,)
        Classes to leave, or to reach where ``targeted``.

    targeted : bool, default=False
    """

    def __init__(self, labels, *, targeted=False):
        self.targeted = targeted
        self.index = labels.unsqueeze(1)
        self.own = self.barrier = None  # made when the first logits tell how many classes there are

    def take(self, rows):
        """The loss for some of the rows."""
        part = copy(self)
        for name in ("index", "own", "barrier"):
            value = getattr(self, name)
            setattr(part, name, None if value is None else value[rows])
        return part

    def __call__(self, logits):
        others = logits + self._barrier(logits)
        margin, direction = self._margin(logits, others), self._direction(others)
        return (margin.neg_(), direction.neg_()) if self.targeted else (margin, direction)

    def margin(self, logits):
        """The margin alone, where no gradient is wanted."""
        margin = self._margin(logits, logits + self._barrier(logits))
        return margin.neg_() if self.targeted else margin

    def direction(self, logits):
        """The direction alone, where nothing is judged."""
        direction = self._direction(logits + self._barrier(logits))
        return direction.neg_() if self.targeted else direction

    def _barrier(self, logits):
        """Minus infinity in the place of the label, zero elsewhere."""
        if self.own is None:
            self.own = torch.zeros_like(logits).scatter_(1, self.index, 1)
            self.barrier = torch.zeros_like(logits).scatter_(1, self.index, -torch.inf)
        return self.barrier

    def _margin(self, logits, others):
        return others.amax(1, keepdim=True).sub_(logits.gather(1, self.index))

    @abstractmethod
    def _direction(self, others):
        """Gradient with respect to the logits, for leaving the label."""


class CrossEntropy(Loss):
    """The cross-entropy ``log sum_j exp z_j - z_y``."""

    def _direction(self, others):
        return others.softmax(1).sub_(self.own)


class Margin(Loss):
    """The margin itself (Carlini & Wagner 2017, f_6 without its cut-off)."""

    def _direction(self, others):
        return (
            torch.zeros_like(others).scatter_(1, others.argmax(1, keepdim=True), 1).sub_(self.own)
        )


LOSSES = {"ce": CrossEntropy, "margin": Margin}
