"""Sample weights."""

import numpy as np

from ._sklearn import check_sample_weight


def check_weights(sample_weight, X):
    """Weights of the samples of ``X`` as float64, ones for None; they must weigh something."""
    weights = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if sample_weight is not None and not weights.any():
        raise ValueError("sample_weight must not be zero for all samples: none would count.")
    return weights
