"""The state of a search: the gradient at a point, and the best point seen for every row."""

import torch

from .._region import rows_where
from ._losses import TowardsClass


class Search:
    """Look for adversarial points around a batch and remember the best for each row.

    Points are ranked by their margin (:mod:`skrobust.attacks._losses`): one that is adversarial is
    better than any that is not. Every pass forward serves the ranking, so that judging costs none.

    Parameters
    ----------
    model : access
        See :mod:`skrobust.attacks._access`.

    region : Region
        The admissible points around the batch.

    loss : Loss
        What to climb, with the labels of the batch.

    stop_on_success : bool, default=False
        Whether a row is dropped once it is adversarial.

    eot_samples : int, default=1
        Passes to average over, for models that are random themselves.

    Attributes
    ----------
    margin_best : tensor of shape (n, 1)
        Margins of the best points of all rows, dropped or not: positive for adversarial ones.

    rows : None or int64 tensor
        Which rows are still searched; None means all.

    region, loss
        Of the rows that are still searched.
    """

    def __init__(self, model, region, loss, *, stop_on_success=False, eot_samples=1):
        self.model = model
        self.region = region
        self.loss = loss
        self.stop_on_success = stop_on_success
        self.eot_samples = eot_samples
        self.x_best = region.x.clone()
        self.margin_best = self.x_best.new_full((len(self.x_best), 1), -torch.inf)
        self.rows = None
        self.row_shape = (-1, *[1] * (self.x_best.ndim - 1))

    def __len__(self):
        return len(self.region.x)

    def look(self, z):
        """Judge the points ``z``, one for each row that is searched, and drop the fallen.

        Returns
        -------
        kept : None or int64 tensor
            Positions of the rows that remain; None where all do.
        """
        if len(z):
            with torch.no_grad():
                margins = [self.loss.margin(self.model.logits(z)) for _ in range(self.eot_samples)]
            self._remember(z, _mean(margins))
        return self._drop(at_least=1)

    def look_at_inputs(self):
        """Judge the inputs themselves, and drop those that are adversarial.

        Returns
        -------
        logits : tensor of shape (n_searched before, n_classes)
        """
        with torch.no_grad():
            logits = _mean([self.model.logits(self.region.x) for _ in range(self.eot_samples)])
        self._remember(self.region.x, self.loss.margin(logits))
        self._drop(at_least=1)
        return logits

    def runs(self, targets=None, *, scaled=False):
        """Go through the runs of one restart, for as long as rows are left.

        Parameters
        ----------
        targets : None or int64 tensor of shape (n_all, n_targets)
            The classes to head for, one after the other, of all rows, dropped or not: sets the
            loss. None is a single run with the loss as it is.

        scaled : bool, default=False
            See :class:`~skrobust.attacks._losses.TowardsClass`.
        """
        if targets is None:
            yield
            return
        for column in targets.unbind(1):
            if len(self):
                current = column if self.rows is None else column[self.rows]
                self.loss = TowardsClass(self.loss.index[:, 0], current, scaled=scaled)
                yield

    def gradient(self, z):
        """Judge the points ``z``; those of the rows still searched, and the loss's gradients.

        Returns
        -------
        z, grad : tensors of shape (n_searched, ...)

        kept : None or int64 tensor
            Positions of the rows that remain; None where all do.
        """
        margin, grad, _ = self.evaluate(z)
        kept = self.judge(z, margin)
        return (z, grad, None) if kept is None else (z[kept], grad[kept], kept)

    def gradient_and_value(self, z):
        """Judge the points; the loss's gradients, its values, and the rows that remain.

        Returns
        -------
        grad, value : tensors of shape (n_searched before, ...) and (n_searched before, 1)

        kept : None or int64 tensor
            Positions of the rows that remain; None where all do.
        """
        margin, grad, value = self.evaluate(z, with_value=True)
        return grad, value, self.judge(z, margin)

    def best(self):
        """Best points of the rows that are still searched."""
        return self.x_best if self.rows is None else self.x_best[self.rows]

    def result(self):
        """Best points of all rows, and whether they are adversarial."""
        return self.x_best, self.margin_best[:, 0] > 0

    def evaluate(self, z, with_value=False):
        """Margins, the loss's gradients and, where wanted, its values, without judging."""
        margins, grads, values = [], [], []
        for _ in range(self.eot_samples):
            logits, pull = self.model(z)
            margin, direction = self.loss(logits)
            margins.append(margin)
            grads.append(pull(direction))
            if with_value:
                values.append(self.loss.value(logits))
        return _mean(margins), _mean(grads), _mean(values) if with_value else None

    def judge(self, z, margin):
        """Judge points by their margins; drop the fallen if worth it, and say which remain."""
        self._remember(z, margin)
        # Dropping copies what remains, and would make any device but the CPU wait.
        if self.stop_on_success and z.device.type == "cpu":
            return self._drop(at_least=max(1, len(z) // 8))
        return None

    def _remember(self, z, margin):
        x_best, margin_best = self.x_best, self.margin_best
        if self.rows is not None:
            x_best, margin_best = x_best[self.rows], margin_best[self.rows]
        if self.stop_on_success:  # whether a row is dropped at once must make no difference
            margin = margin.where(margin_best <= 0, -torch.inf)
        replace_rows_(margin > margin_best, (x_best, z))
        torch.fmax(margin, margin_best, out=margin_best)
        if self.rows is not None:
            self.x_best[self.rows], self.margin_best[self.rows] = x_best, margin_best

    def _drop(self, at_least):
        """Drop the rows that have fallen, if worth it; return the positions of the rest."""
        if not self.stop_on_success:
            return None
        margin = self.margin_best if self.rows is None else self.margin_best[self.rows]
        kept = rows_where(margin <= 0)
        if len(margin) - len(kept) < at_least:
            return None
        self.rows = kept if self.rows is None else self.rows[kept]
        self.region, self.loss = self.region.take(kept), self.loss.take(kept)
        return kept


def replace_rows_(where, *pairs):
    """In each pair, write rows of the second tensor into the first.

    Choices by factors would take less time, and let the NaN of a wild model through.

    Parameters
    ----------
    where : boolean tensor of shape (n, 1)

    *pairs : pairs of tensors of shape (n, ...)
    """
    if where.device.type != "cpu":  # any other device would have to wait
        for target, source in pairs:
            torch.where(where.view(-1, *[1] * (source.ndim - 1)), source, target, out=target)
        return
    rows = rows_where(where)
    for target, source in pairs:
        target.index_copy_(0, rows, source.index_select(0, rows))


def _mean(tensors):
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).mean(0)
