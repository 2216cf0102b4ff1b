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
