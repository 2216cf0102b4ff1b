"""Searches: evaluate points of a batch, remember the best, and drop the rows that are done."""

from abc import ABC, abstractmethod
from functools import partial

import torch

from ...utils._rows import rows_where
from ._best_points import BestPoints
from ._losses import Margin, TowardsClass

# Dropping rows copies the others: it is done where at least one row in this number is done.
_WORTH_DROPPING = 8

# A point counts as closer than another if it is by this number of roundings. Otherwise rounding
# would decide between two points of the same sphere.
_TIE = 16


class Search(ABC):
    """Base of searches over a batch.

    Attributes
    ----------
    model : access
        See :mod:`skrobust.adapters._access`.

    feasible_set : FeasibleSet
        Around the rows that are still searched.

    loss : Loss
        Loss to climb, with the labels of the rows that are still searched.

    rows : None or int64 tensor of shape (n,)
        Positions of these rows in the batch; None means all.

    best : BestPoints
        Best points of all rows of the batch.
    """

    best: BestPoints

    def __init__(self, batch, loss):
        self.model, self.feasible_set = batch.model, batch.feasible_set
        self.stop_on_success = batch.stop_on_success
        self.loss = loss(batch.labels, targeted=batch.targeted)
        self.rows = None

    def __len__(self):
        return len(self.feasible_set.x)

    @abstractmethod
    def _is_done(self, score):
        """Return for each row whether its best score is good enough to stop."""

    def _drop(self, at_least):
        """Drop the rows that are done, if there are enough; return the positions of the others."""
        done = self._is_done(self.best.of("score", self.rows))
        kept = rows_where(~done)
        if len(done) - len(kept) < at_least:
            return None
        self.rows = kept if self.rows is None else self.rows[kept]
        self.feasible_set, self.loss = self.feasible_set.take(kept), self.loss.take(kept)
        return kept

    def drop(self):
        """Drop the rows that are done where that saves time.

        Returns
        -------
        kept : None or int64 tensor
            Positions of the rows that remain; None where all do.
        """
        # Any device but the CPU would have to wait for the number of rows.
        if self.feasible_set.x.device.type != "cpu":
            return None
        return self._drop(at_least=max(1, len(self) // _WORTH_DROPPING))


class MarginSearch(Search):
    """Look for points with a large margin inside a feasible set.

    Points are ranked by their margin (:mod:`skrobust.attacks.core._losses`): an adversarial point
    is better than any other. Every forward pass also ranks its points, so that ranking costs none.

    Parameters
    ----------
    batch : AttackBatch
        With ``stop_on_success``, a row is dropped once it is adversarial.

    loss : type
        A subclass of Loss.

    eot_samples : int, default=1
        Passes to average over, for models that are random themselves.
    """

    def __init__(self, batch, loss, *, eot_samples=1):
        super().__init__(batch, loss)
        self.eot_samples = eot_samples
        x = batch.feasible_set.x
        self.best = BestPoints(x.new_full((len(x), 1), -torch.inf), point=x)

    def _is_done(self, score):
        return (score > 0) & self.stop_on_success

    def try_points(self, z):
        """Rank points, one for each row that is searched, and drop the rows that are done."""
        if len(z):
            self.rank(z, self.loss.margin(self._mean_logits(z)))
        return self._drop(at_least=1)

    def try_inputs(self):
        """Rank the inputs themselves, and drop the rows that are done.

        Returns
        -------
        logits : tensor of shape (n_searched before, n_classes)
        """
        logits = self._mean_logits(self.feasible_set.x)
        self.rank(self.feasible_set.x, self.loss.margin(logits))
        self._drop(at_least=1)
        return logits

    @torch.no_grad()
    def _mean_logits(self, z):
        return _mean([self.model.logits(z) for _ in range(self.eot_samples)])

    def targets(self, classes, *, scaled=False):
        """Iterate over the runs of one restart, for as long as rows are left.

        Parameters
        ----------
        classes : None or int64 tensor of shape (n_all, n_targets)
            Target classes of all rows, dropped or not: the loss heads for one after the other.
            None is a single run with the loss as it is.

        scaled : bool, default=False
            See :class:`~skrobust.attacks.core._losses.TowardsClass`.
        """
        if classes is None:
            yield
            return
        for column in classes.unbind(1):
            if len(self):
                current = column if self.rows is None else column[self.rows]
                self.loss = TowardsClass(self.loss.index[:, 0], current, scaled=scaled)
                yield

    def gradient(self, z):
        """Rank points, and return the gradients of the loss.

        Returns
        -------
        z, grad : tensors of shape (n_searched, ...)
            Points of the rows that are still searched, and the gradients there.

        kept : None or int64 tensor
            Positions of the rows that remain; None where all do.
        """
        margin, grad, _ = self.evaluate(z)
        kept = self.judge(z, margin)
        return (z, grad, None) if kept is None else (z[kept], grad[kept], kept)

    def evaluate(self, z, with_value=False):
        """Return margins, gradients of the loss and, if wanted, its values, without ranking."""
        margins, grads, values = [], [], []
        for _ in range(self.eot_samples):
            logits, vjp = self.model(z)
            margin, grad_logits = self.loss(logits)
            margins.append(margin)
            grads.append(vjp(grad_logits))
            if with_value:
                values.append(self.loss.value(logits))
        return _mean(margins), _mean(grads), _mean(values) if with_value else None

    def judge(self, z, margin):
        """Rank points by their margins, and drop rows that are done where that saves time."""
        self.rank(z, margin)
        return self.drop() if self.stop_on_success else None

    def rank(self, z, margin):
        """Remember points whose margins are the largest so far."""
        if self.stop_on_success:
            # The first success counts, so that it makes no difference when a row is dropped.
            fallen = self.best.of("score", self.rows) > 0
            margin = margin.masked_fill(fallen, -torch.inf)
        self.best.update(margin, self.rows, point=z)

    def best_points(self):
        """Return a copy of the best points of the rows that are still searched."""
        return self.best.of("point", self.rows).clone()

    def result(self):
        """Return the best points of all rows, and whether they are adversarial."""
        return self.best.point, self.best.score[:, 0] > 0


class NormSearch(Search):
    """Look for the closest adversarial point of each row.

    Points are perturbations ``u`` in units of the feasible set. Every forward pass also ranks its
    points. Rows that are adversarial from the start, and with ``stop_on_success`` rows with a point
    inside the radius, are done.

    Parameters
    ----------
    batch : AttackBatch

    confidence : float, default=0.0
        Subtracted from all margins.

    Attributes
    ----------
    enough : float
        Size at which a row is done.
    """

    def __init__(self, batch, *, confidence=0.0):
        super().__init__(batch, Margin)
        self.whole = batch.feasible_set
        self.confidence = confidence
        self.enough = self.whole.radius if batch.stop_on_success else 0.0
        u = self.whole.zeros()
        self.best = BestPoints(u.new_full((len(u), 1), -torch.inf), u=u)

    def _is_done(self, score):
        return -score <= self.enough

    def climb(self, loss):
        """Let :meth:`gradient` be that of another loss, a class, from now on."""
        self.loss = loss(self.loss.index[:, 0], targeted=self.loss.targeted)

    def try_points(self, u):
        """Rank perturbations, one for each row that is searched.

        Returns
        -------
        margin : tensor of shape (n, 1)
            Positive where adversarial.
        """
        with torch.no_grad():
            logits = self.model.logits(self.feasible_set.from_units(u))
        margin = self.loss.margin(logits) - self.confidence
        self.rank(u, margin)
        return margin

    def linearize(self, u):
        """Rank perturbations, and return what a linear model of the classifier needs.

        Returns
        -------
        logits : tensor of shape (n, n_classes)

        margin : tensor of shape (n, 1)

        vjp : callable
            From a gradient with respect to the logits to the one with respect to ``u``; can be
            called any number of times.
        """
        logits, vjp = self.model(self.feasible_set.from_units(u))
        margin = self.loss.margin(logits) - self.confidence
        self.rank(u, margin)
        return logits, margin, partial(_vjp_in_units, self.feasible_set, vjp)

    def gradient(self, u):
        """Rank perturbations.

        Returns
        -------
        margin : tensor of shape (n, 1)

        grad : tensor of shape (n, d)
            Of the loss, with respect to ``u``.
        """
        logits, vjp = self.model(self.feasible_set.from_units(u))
        margin, grad_logits = self.loss(logits)
        margin -= self.confidence
        self.rank(u, margin)
        return margin, self.feasible_set.grad_to_units(vjp(grad_logits))

    def rank(self, u, margin):
        """Remember adversarial perturbations that are the closest so far."""
        score = torch.where(margin > 0, -self.feasible_set.size(u), -torch.inf)
        tie = _TIE * torch.finfo(score.dtype).eps
        self.best.update(score, self.rows, tie=tie, u=u)

    def closest(self):
        """Return the closest perturbations of the rows that are searched, and their sizes.

        Returns
        -------
        u : tensor of shape (n, d)
            Zero where there is none.

        size : tensor of shape (n, 1)
            Infinite where there is none.
        """
        return self.best.of("u", self.rows), -self.best.of("score", self.rows)

    def result(self):
        """Return the closest points of all rows, and which are adversarial inside the radius."""
        return closest_result(self.best, self.whole)


def closest_result(best, feasible_set):
    """Return the points of the closest perturbations, and which of them are a success.

    Parameters
    ----------
    best : BestPoints
        Perturbations ``u``, and minus their sizes as scores.

    feasible_set : FeasibleSet

    Returns
    -------
    points : tensor of shape (n, ...)

    success : bool tensor of shape (n,)
        Adversarial and inside the radius.
    """
    size = -best.score[:, 0]
    return feasible_set.from_units(best.u), (size <= feasible_set.radius) & (size < torch.inf)


def _vjp_in_units(feasible_set, vjp, grad_logits):
    return feasible_set.grad_to_units(vjp(grad_logits))


def _mean(tensors):
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).mean(0)
