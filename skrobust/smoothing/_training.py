"""Fit the inner classifier under noise."""

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from ..utils._containers import frame_like
from ..utils._random import RowNoise, make_generator


def fit_under_noise(estimator, X, array, y, sample_weight, noise, *, n_augment, seed):
    """Fit a clone of a classifier under noise.

    A classifier with a method ``__fit_under_noise__`` is prepared by it and fitted on the clean
    inputs. Every other classifier is fitted on ``n_augment`` noisy copies of each row.

    Parameters
    ----------
    estimator : classifier
        Unfitted classifier.

    X : array or DataFrame
        Training inputs, in the container that the classifier is fitted on.

    array : ndarray
        The values of X.

    y : ndarray of shape (n_samples,)
        Labels.

    sample_weight : None or ndarray of shape (n_samples,)
        Weights.

    noise : Noise
        Fitted distribution.

    n_augment : int
        Number of noisy copies of each row.

    seed : int
        Seed of the noisy copies.

    Returns
    -------
    estimator : classifier
        Fitted clone.
    """
    estimator = clone(estimator)
    if hasattr(estimator, "__fit_under_noise__"):
        estimator.__fit_under_noise__(noise)
        return estimator.fit(X, y, **_fit_params(estimator, sample_weight, 1))
    noisy = frame_like(X, make_noisy_copies(array, noise, n_augment, seed))
    params = _fit_params(estimator, sample_weight, n_augment)
    return estimator.fit(noisy, np.repeat(y, n_augment), **params)


def make_noisy_copies(array, noise, n_copies, seed):
    """Return ``n_copies`` noisy copies of each row, one row after the other.

    Equal rows get equal noise.
    """
    x = torch.tensor(array)
    # Not the seed of the votes: predictions for training data then use new noise.
    keys = RowNoise(x, seed + 1).keys.tolist()
    sample, generator = noise.sampler(x.dtype, x.device), make_generator(0)
    copies = x.new_empty((len(x), n_copies, *x.shape[1:]))
    for row, key, out in zip(x, keys, copies, strict=True):
        generator.manual_seed(key & 0xFFFFFFFF)
        sample(out, row, None, generator)
    return copies.flatten(0, 1).numpy()


def _fit_params(estimator, sample_weight, n_copies):
    if sample_weight is None:
        return {}
    if not has_fit_parameter(estimator, "sample_weight"):
        raise ValueError(
            f"sample_weight was given, but {type(estimator).__name__}, the estimator of "
            "SmoothedClassifier, does not take sample_weight in fit. Fit without sample_weight, or "
            "use another estimator."
        )
    return {"sample_weight": np.repeat(sample_weight, n_copies)}
