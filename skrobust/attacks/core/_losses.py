"""Losses that attacks climb, with gradients with respect to the logits in closed form.

A loss is made for the labels of one batch and called with logits of shape (n, n_classes >= 2). It
returns

- the margin ``max_{j != y} z_j - z_y`` of shape (n, 1), which is positive exactly where y is not
  the prediction. Whatever the loss, the margin decides about success and ranks points;
- ``grad_logits`` of shape (n, n_classes): the gradient of the loss with respect to the logits, up
  to a positive factor per row, to which the attacks are invariant.

For a targeted attack both change sign. In closed form, the gradients cost no pass through the loss,
and they do not vanish: the gradient of the cross-entropy is ``(1 - p_y) (softmax of the other
logits - e_y)``, and its first factor underflows where a model is confident (Carlini & Wagner 2017,
section V; Croce & Hein 2020, section 4). With two classes all losses have the same gradient.
"""

from abc import ABC, abstractmethod

import torch

from ...utils._rows import RowBatch


class Loss(RowBatch, ABC):
    """A loss for one batch.

    Parameters
    ----------
    labels : int64 tensor of shape (n,)
        Classes to leave, or to reach where ``targeted``.

    targeted : bool, default=False
    """

    _row_attributes = ("index", "one_hot", "barrier", "targets")

    def __init__(self, labels, *, targeted=False):
        self.targeted = targeted
        self.index = labels.unsqueeze(1)
        # Made when the first logits tell the number of classes.
        self.one_hot = self.barrier = None

    def __call__(self, logits):
        others = self._others(logits)
        return self._signed(self._margin(logits, others)), self._signed(
            self._grad_logits(logits, others)
        )

    def margin(self, logits):
        """Return the margin alone, of shape (n, 1)."""
        return self._signed(self._margin(logits, self._others(logits)))

    def grad_logits(self, logits):
        """Return the gradient with respect to the logits alone, of shape (n, n_classes)."""
        return self._signed(self._grad_logits(logits, self._others(logits)))

    def value(self, logits):
        """Return the loss or an increasing function of it, of shape (n, 1)."""
        return self._signed(self._value(logits, self._others(logits)))

    def _signed(self, tensor):
        return tensor.neg_() if self.targeted else tensor

    def _others(self, logits):
        """Return the logits with minus infinity in the place of the label."""
        if self.one_hot is None:
            self.one_hot = torch.zeros_like(logits).scatter_(1, self.index, 1)
            self.barrier = torch.zeros_like(logits).scatter_(1, self.index, -torch.inf)
        return logits + self.barrier

    def _margin(self, logits, others):
        return others.amax(1, keepdim=True).sub_(logits.gather(1, self.index))

    @abstractmethod
    def _grad_logits(self, logits, others):
        """Return the gradient for leaving the label."""

    @abstractmethod
    def _value(self, logits, others):
        """Return an increasing function of the loss for leaving the label."""


class CrossEntropy(Loss):
    """The cross-entropy ``log sum_j exp z_j - z_y``."""

    def _grad_logits(self, logits, others):
        return others.softmax(1).sub_(self.one_hot)

    def _value(self, logits, others):
        # The log-odds of an error do not round to zero where the loss does.
        return others.logsumexp(1, keepdim=True).sub_(logits.gather(1, self.index))


class Margin(Loss):
    """The margin itself (Carlini & Wagner 2017, f_6 without its cut-off)."""

    def _grad_logits(self, logits, others):
        return _one_hot(others, others.argmax(1, keepdim=True)).sub_(self.one_hot)

    def _value(self, logits, others):
        return self._margin(logits, others)


class DifferenceOfLogitsRatio(Loss):
    """The margin over the spread of the largest logits (Croce & Hein 2020, eq. (6)).

    It is invariant to scaling and shifting the logits. With two classes the quotient is constant,
    and the margin itself takes its place.
    """

    def _grad_logits(self, logits, others):
        grad = _one_hot(others, others.argmax(1, keepdim=True)).sub_(self.one_hot)
        return _divide_by_spread(grad, self._margin(logits, others), logits)

    def _value(self, logits, others):
        margin = self._margin(logits, others)
        return margin if logits.shape[1] < 3 else margin.div_(_spread(logits)[0])


class TowardsClass(Loss):
    """The margin of one other class over the label; any class but the label is a success.

    Parameters
    ----------
    labels, targets : int64 tensors of shape (n,)
        Class to leave, and class to head for.

    scaled : bool, default=False
        Divide by the spread ``z_(1) - (z_(3) + z_(4)) / 2`` of the sorted logits (Croce & Hein
        2020, eq. (7)). With three classes the third counts for both; with two there is no spread.
    """

    def __init__(self, labels, targets, *, scaled=False):
        super().__init__(labels)
        self.targets = targets.unsqueeze(1)
        self.scaled = scaled

    def _difference(self, logits):
        return logits.gather(1, self.targets).sub_(logits.gather(1, self.index))

    def _grad_logits(self, logits, others):
        grad = _one_hot(others, self.targets).sub_(self.one_hot)
        if not self.scaled:
            return grad
        return _divide_by_spread(grad, self._difference(logits), logits, n_low=2)

    def _value(self, logits, others):
        difference = self._difference(logits)
        if not self.scaled or logits.shape[1] < 3:
            return difference
        return difference.div_(_spread(logits, n_low=2)[0])


def _one_hot(like, index):
    return torch.zeros_like(like).scatter_(1, index, 1)


def _spread(logits, n_low=1):
    """Return the largest logit less the mean of the next but one or two, and its gradient."""
    n_low = min(n_low, logits.shape[1] - 2)
    top, order = logits.topk(2 + n_low, dim=1)
    spread = top[:, :1] - top[:, 2:].mean(1, keepdim=True)
    weight = torch.zeros_like(top)
    weight[:, 0], weight[:, 2:] = 1, -1 / n_low
    grad = torch.zeros_like(logits).scatter_(1, order, weight)
    return spread.clamp_min_(torch.finfo(logits.dtype).tiny), grad


def _divide_by_spread(grad, difference, logits, n_low=1):
    """Return the gradient of ``difference / spread`` up to a factor, given that of ``difference``.

    The factor is the spread, which is positive; steps only use the direction. ``grad`` is
    overwritten.
    """
    if logits.shape[1] < 3:
        return grad
    spread, grad_spread = _spread(logits, n_low)
    return grad.sub_(grad_spread.mul_(difference / spread))


LOSSES = {"ce": CrossEntropy, "margin": Margin, "dlr": DifferenceOfLogitsRatio}


def likeliest_others(logits, labels, n_classes):
    """Return the classes with the largest logits except the label, the likeliest first.

    Parameters
    ----------
    logits : tensor of shape (n, n_classes)

    labels : int64 tensor of shape (n,)

    n_classes : int
        Number of classes to return; at most all but one.

    Returns
    -------
    targets : int64 tensor of shape (n, n_targets)
    """
    n_classes = min(n_classes, logits.shape[1] - 1)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return others.topk(n_classes, dim=1).indices
