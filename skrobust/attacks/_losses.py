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
classes all losses have the same direction.
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
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(part, name, value[rows])
        return part

    def __call__(self, logits):
        others = logits + self._barrier(logits)
        margin, direction = self._margin(logits, others), self._direction(logits, others)
        return (margin.neg_(), direction.neg_()) if self.targeted else (margin, direction)

    def margin(self, logits):
        """The margin alone, where no gradient is wanted."""
        margin = self._margin(logits, logits + self._barrier(logits))
        return margin.neg_() if self.targeted else margin

    def direction(self, logits):
        """The direction alone, where nothing is judged."""
        direction = self._direction(logits, logits + self._barrier(logits))
        return direction.neg_() if self.targeted else direction

    def value(self, logits):
        """What is climbed, of shape (n, 1): the loss or an increasing function of it."""
        value = self._value(logits, logits + self._barrier(logits))
        return value.neg_() if self.targeted else value

    def _barrier(self, logits):
        """Minus infinity in the place of the label, zero elsewhere."""
        if self.own is None:
            self.own = torch.zeros_like(logits).scatter_(1, self.index, 1)
            self.barrier = torch.zeros_like(logits).scatter_(1, self.index, -torch.inf)
        return self.barrier

    def _margin(self, logits, others):
        return others.amax(1, keepdim=True).sub_(logits.gather(1, self.index))

    @abstractmethod
    def _direction(self, logits, others):
        """Gradient with respect to the logits, for leaving the label."""

    @abstractmethod
    def _value(self, logits, others):
        """An increasing function of the loss, for leaving the label."""


class CrossEntropy(Loss):
    """The cross-entropy ``log sum_j exp z_j - z_y``."""

    def _direction(self, logits, others):
        return others.softmax(1).sub_(self.own)

    def _value(self, logits, others):
        # The log-odds of the error, which do not round to zero where the loss does.
        return others.logsumexp(1, keepdim=True).sub_(logits.gather(1, self.index))


class Margin(Loss):
    """The margin itself (Carlini & Wagner 2017, f_6 without its cut-off)."""

    def _direction(self, logits, others):
        return _one_hot(others, others.argmax(1, keepdim=True)).sub_(self.own)

    def _value(self, logits, others):
        return self._margin(logits, others)


class DifferenceOfLogitsRatio(Loss):
    """The margin over the spread of the largest logits (Croce & Hein 2020, eq. (6)).

    Scaling or shifting the logits does not change it. With two classes the quotient is constant,
    and the margin itself takes its place.
    """

    def _direction(self, logits, others):
        direction = _one_hot(others, others.argmax(1, keepdim=True)).sub_(self.own)
        return _over_spread(direction, self._margin(logits, others), logits)

    def _value(self, logits, others):
        margin = self._margin(logits, others)
        return margin if logits.shape[1] < 3 else margin.div_(_spread(logits)[0])


class TowardsClass(Loss):
    """The margin of one other class over the label, and success as for any other class.

    Parameters
    ----------
    labels, targets : int64 tensors of shape (n,)
        Class to leave, and class to head for.

    scaled : bool, default=False
        Over the spread ``z_(1) - (z_(3) + z_(4)) / 2`` of the sorted logits (Croce & Hein 2020, eq.
        (7)). With three classes the third counts for both, and with two there is no spread.
    """

    def __init__(self, labels, targets, *, scaled=False):
        super().__init__(labels)
        self.targets = targets.unsqueeze(1)
        self.scaled = scaled

    def _difference(self, logits):
        return logits.gather(1, self.targets).sub_(logits.gather(1, self.index))

    def _direction(self, logits, others):
        direction = _one_hot(others, self.targets).sub_(self.own)
        if not self.scaled:
            return direction
        return _over_spread(direction, self._difference(logits), logits, n_low=2)

    def _value(self, logits, others):
        difference = self._difference(logits)
        if not self.scaled or logits.shape[1] < 3:
            return difference
        return difference.div_(_spread(logits, n_low=2)[0])


def _one_hot(like, index):
    return torch.zeros_like(like).scatter_(1, index, 1)


def _spread(logits, n_low=1):
    """Largest logit less the third (or the mean of the third and the fourth), and its gradient."""
    n_low = min(n_low, logits.shape[1] - 2)
    top, order = logits.topk(2 + n_low, dim=1)
    spread = top[:, :1] - top[:, 2:].mean(1, keepdim=True)
    weight = torch.zeros_like(top)
    weight[:, 0], weight[:, 2:] = 1, -1 / n_low
    gradient = torch.zeros_like(logits).scatter_(1, order, weight)
    return spread.clamp_min_(torch.finfo(logits.dtype).tiny), gradient


def _over_spread(direction, difference, logits, n_low=1):
    """Gradient of ``difference / spread``, times the spread; that of the difference given."""
    if logits.shape[1] < 3:
        return direction
    spread, gradient = _spread(logits, n_low)
    return direction.sub_(gradient.mul_(difference / spread))


LOSSES = {"ce": CrossEntropy, "margin": Margin, "dlr": DifferenceOfLogitsRatio}


def likeliest_others(logits, labels, n_classes):
    """The ``n_classes`` classes with the largest logits but the label, most likely first.

    Returns
    -------
    targets : int64 tensor of shape (n, min(n_classes, n_classes of the logits - 1))
    """
    n_classes = min(n_classes, logits.shape[1] - 1)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return others.topk(n_classes, dim=1).indices
