"""Checks of parameters that have one value for all features or one for each."""

from math import prod

import numpy as np


def fit_length(value, n_features, name):
    """Return a number, or a flat array with one number per feature; check its length.

    Parameters
    ----------
    value : float or array-like of n_features values

    n_features : int

    name : str
        Name of the parameter, for the error.

    Returns
    -------
    value : ndarray of shape () or (n_features,)
    """
    value = np.asarray(value)
    if value.ndim > 0 and value.size != n_features:
        raise ValueError(
            f"{name} has {value.size} values, but X has {n_features} features: give one number "
            "for all of them or one per feature."
        )
    return value.ravel() if value.ndim else value


def per_feature(value, shape, name):
    """Return a number, or an array in the shape of one sample; check its length."""
    value = fit_length(value, prod(shape), name)
    return value.reshape(shape) if value.ndim else value


def for_each_feature(value, n_features, name):
    """Return one number for each of ``n_features``; check the length."""
    return np.broadcast_to(fit_length(value, n_features, name), (n_features,))


def read_only(array):
    """Return a copy of an array that cannot be written to."""
    array = array.copy()
    array.setflags(write=False)
    return array
