"""The state of a search: the gradient at a point, and the best point seen for every row."""

import torch

from ..differentiable._pullback import pullback


class Search:
    """Look for adversarial points around a batch and remember the best for each row.

    Points are ranked by their margin (:mod:`skrobust.attacks._losses`): one that is adversarial is
    better than any that is not. Every pass forward serves the ranking, so that judging costs none.

    Parameters
    ----------
    model : torch.nn.Module
        From a batch of inputs to logits; frozen.

    region : Region
        The admissible points around the batch.

    loss : Loss
        What to climb, with the labels of the batch.

    stop_on_success : bool, default=False
        Whether a row is dropped once it is adversarial.

    Attributes
    ----------
    margin_best : tensor of shape (n, 1)
        Margins of the best points of all rows, dropped or not: positive for adversarial ones.

    region, loss
        Of the rows that are still searched.
    """

    def __init__(self, model, region, loss, *, stop_on_success=False):
        self.model = model
        self.linearize = pullback(model)
        self.region = region
        self.loss = loss
        self.stop_on_success = stop_on_success
        self.x_best = region.x.clone()
        self.margin_best = self.x_best.new_full((len(self.x_best), 1), -torch.inf)
        self.rows = None  # all of them
        self.row_shape = (-1, *[1] * (self.x_best.ndim - 1))

    def __len__(self):
        return len(self.region.x)

    def look(self, z):
        """Judge the points ``z``, one for each row that is searched."""
        if len(z):
            with torch.no_grad():
                self._remember(z, self.loss.margin(self.model(z)))
        self._drop(at_least=1)

    def gradient(self, z):
        """Judge the points ``z``; those of the rows still searched, and the loss's gradients.

        Returns
        -------
        z, grad : tensors of shape (n_searched, ...)
        """
        logits, pull = self.linearize(z)
        margin, direction = self.loss(logits)
        grad = pull(direction)
        self._remember(z, margin)
        # Dropping copies what remains, and would make any device but the CPU wait.
        if self.stop_on_success and z.device.type == "cpu":
            kept = self._drop(at_least=max(1, len(z) // 8))
            if kept is not None:
                return z[kept], grad[kept]
        return z, grad

    def result(self):
        """Best points of all rows, and whether they are adversarial."""
        return self.x_best, self.margin_best[:, 0] > 0

    def _remember(self, z, margin):
        x_best, margin_best = self.x_best, self.margin_best
        if self.rows is not None:
            x_best, margin_best = x_best[self.rows], margin_best[self.rows]
        if self.stop_on_success:  # whether a row is dropped at once must make no difference
            margin = margin.where(margin_best <= 0, -torch.inf)
        better = (margin > margin_best).view(self.row_shape)
        torch.fmax(margin, margin_best, out=margin_best)
        torch.where(better, z, x_best, out=x_best)
        if self.rows is not None:
            self.x_best[self.rows], self.margin_best[self.rows] = x_best, margin_best

    def _drop(self, at_least):
        """Drop the rows that have fallen, if worth it; return the positions of the rest."""
        if not self.stop_on_success:
            return None
        margin = self.margin_best if self.rows is None else self.margin_best[self.rows]
        kept = (margin <= 0).nonzero()[:, 0]
        if len(margin) - len(kept) < at_least:
            return None
        self.rows = kept if self.rows is None else self.rows[kept]
        self.region, self.loss = self.region.take(kept), self.loss.take(kept)
        return kept
