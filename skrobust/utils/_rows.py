"""Batches of which some rows are dropped, and rows that are replaced by better ones."""

from copy import copy
from typing import TYPE_CHECKING

import torch


class RowBatch:
    """Base of objects that hold one entry for each row of a batch.

    Attributes
    ----------
    _row_attributes : tuple of str
        Names of the attributes whose first axis is the rows of the batch. Those that are None or
        not set are skipped.
    """

    _row_attributes: tuple[str, ...] = ()

    def take(self, rows):
        """Return a copy with some of the rows.

        Parameters
        ----------
        rows : int64 tensor, bool tensor or list of int

        Returns
        -------
        part : object of the same class
        """
        part = copy(self)
        for name in self._row_attributes:
            value = vars(self).get(name)
            if value is not None:
                setattr(part, name, value[rows])
        return part


class RowState:
    """Tensors of a loop over a batch, with one entry for each row, as attributes.

    Parameters
    ----------
    **tensors : None, tensors of shape (n, ...), or other states
    """

    if TYPE_CHECKING:

        def __getattr__(self, name): ...

        def __setattr__(self, name, value): ...

    def __init__(self, **tensors):
        vars(self).update(tensors)

    def keep(self, rows):
        """Keep some of the rows, in place; None keeps all."""
        if rows is not None:
            for name, tensor in vars(self).items():
                if isinstance(tensor, RowState):
                    tensor.keep(rows)
                elif tensor is not None:
                    setattr(self, name, tensor[rows])


def rows_where(mask):
    """Return the indices of the rows where a boolean column is true."""
    return mask.flatten().nonzero()[:, 0]


def replace_rows_(where, *pairs):
    """Overwrite rows of the first tensor of each pair by those of the second, in place.

    Parameters
    ----------
    where : bool tensor of shape (n, 1)
        The rows to overwrite.

    *pairs : pairs of tensors of shape (n, ...)
    """
    if where.device.type != "cpu":
        # Indexing by rows would make an accelerator wait for their number.
        for target, source in pairs:
            torch.where(where.view(-1, *[1] * (source.ndim - 1)), source, target, out=target)
        return
    # Multiplication by a 0/1 factor would be faster, but 0 * NaN spreads to rows that are kept.
    rows = rows_where(where)
    for target, source in pairs:
        target.index_copy_(0, rows, source.index_select(0, rows))
