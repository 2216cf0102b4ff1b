"""Training data in a form that does not depend on how they were written down."""

import numpy as np
import torch

from ..utils._random import hash_rows


def merge_samples(X, y, sample_weight):
    """Drop samples without weight, merge equal ones, and put them in an order of their own.

    Two data sets that say the same (a sample twice, or once with weight 2; in this order or in
    another) become the same arrays, so that what is trained on them is the same to the last bit.

    Parameters
    ----------
    X : ndarray of shape (n_samples, ...)

    y : int ndarray of shape (n_samples,)

    sample_weight : ndarray of shape (n_samples,)

    Returns
    -------
    rows : int ndarray of shape (n_merged,)
        One sample of each group of equal ones.

    weights : ndarray of shape (n_merged,)
        The total weight of each group.
    """
    rows = np.flatnonzero(sample_weight > 0)
    keys = hash_rows(torch.from_numpy(np.ascontiguousarray(X[rows]))).numpy()
    order = np.lexsort((y[rows], keys))
    rows, keys = rows[order], keys[order]
    flat = X.reshape(len(X), -1)
    # Equal hashes make neighbours; the values decide.
    same = (keys[1:] == keys[:-1]) & (y[rows[1:]] == y[rows[:-1]])
    candidates = np.flatnonzero(same)
    same[candidates] = (flat[rows[candidates]] == flat[rows[candidates + 1]]).all(axis=1)
    starts = np.flatnonzero(np.r_[True, ~same])
    return rows[starts], np.add.reduceat(sample_weight[rows], starts)


def hold_out_samples(y, fraction, seed):
    """Split into training and validation rows, class by class.

    Every class gives about ``fraction`` of its samples, at least one if it has two, and none if it
    has one: unlike a split by exact shares, that works for any data.

    Parameters
    ----------
    y : int ndarray of shape (n_samples,)

    fraction : float

    seed : int

    Returns
    -------
    train, valid : int ndarrays
    """
    rng = np.random.RandomState(seed)
    held_out = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        wanted = max(1, round(fraction * len(members)))
        held_out[members[: min(wanted, len(members) - 1)]] = True
    if not held_out.any():
        raise ValueError(
            "early_stopping holds out samples for validation, and needs a class with at least two "
            "different samples; there is none. Fit with early_stopping=False."
        )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
