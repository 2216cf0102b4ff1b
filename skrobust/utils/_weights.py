"""Validation of sample weights."""

import numpy as np

from ._sklearn import check_sample_weight


def check_weights(sample_weight, X):
    """Return sample weights as float64, ones for None; raise a ValueError if they are all zero."""
    weights = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if sample_weight is not None and not weights.any():
        raise ValueError(
            "sample_weight must be positive for at least one sample; all weights are zero."
        )
    return weights
