"""The best point of each row that a search has seen."""

import torch

from ...utils._rows import RowState, replace_rows_


class BestPoints(RowState):
    """Best candidate of each row by a score, and the tensors that belong to it.

    Parameters
    ----------
    score : tensor of shape (n, 1)
        Scores of the first candidates; higher is better. Minus infinity stands for no candidate.

    **tensors : tensors of shape (n, ...)
        First candidates, and what else to remember with them; attributes by these names.

    Attributes
    ----------
    score : tensor of shape (n, 1)
        Scores of the best candidates.
    """

    def __init__(self, score, **tensors):
        super().__init__(**{name: t.clone() for name, t in {"score": score, **tensors}.items()})

    def update(self, score, rows=None, *, tie=0.0, **tensors):
        """Remember candidates whose scores are higher than the best so far.

        A score that is not a number is never higher.

        Parameters
        ----------
        score : tensor of shape (n_rows, 1)

        rows : None or int64 tensor of shape (n_rows,), default=None
            Rows of the candidates; None means all.

        tie : float, default=0.0
            Relative difference of scores up to which the earlier candidate is kept.

        **tensors : tensors of shape (n_rows, ...)
            The candidates, by the names of the attributes.
        """
        # Logits may have another precision than the inputs.
        given = {"score": score.to(self.score.dtype), **tensors}
        best = {name: self.of(name, rows) for name in given}
        threshold = best["score"]
        if tie:
            higher = threshold + tie * threshold.abs()
            threshold = torch.where(threshold.isfinite(), higher, threshold)
        replace_rows_(given["score"] > threshold, *((best[name], given[name]) for name in given))
        if rows is not None:
            for name, tensor in best.items():
                vars(self)[name][rows] = tensor

    def of(self, name, rows=None):
        """Return a tensor of the best candidates: the tensor itself, or a copy of some rows."""
        tensor = vars(self)[name]
        return tensor if rows is None else tensor[rows]
