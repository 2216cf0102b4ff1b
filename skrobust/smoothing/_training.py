"""Fitting a classifier to noisy data."""

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from ..utils._containers import frame_like
from ..utils._random import RowNoise, make_generator
from ._gaussian import GaussianNoise


def fit_on_noise(estimator, X, array, y, sample_weight, noise, *, n_augment, seed):
    """Fit a clone of a classifier under noise.

    A :class:`~skrobust.RobustClassifier` without a defense gets one that adds fresh noise to every
    batch; a defense of its own that has a parameter ``sigma`` gets that of Gaussian noise. Any
    other classifier gets ``n_augment`` noisy copies of every row.

    Parameters
    ----------
    estimator : classifier
        Not fitted.

    X : array or DataFrame
        Training inputs.

    array : ndarray
        Their values.

    y : ndarray of shape (n_samples,)
        Labels.

    sample_weight : None or ndarray of shape (n_samples,)
        Weights.

    noise : Noise
        Fitted.

    n_augment, seed : int

    Returns
    -------
    estimator : classifier
        Fitted.
    """
    # These rooms are further down in the house, and know this one.
    from ..classifiers import RobustClassifier

    estimator = clone(estimator)
    if isinstance(estimator, RobustClassifier):
        _prepare(estimator, noise)
        return estimator.fit(X, y, **_weights(estimator, sample_weight, 1))
    noisy = frame_like(X, noisy_copies(array, noise, n_augment, seed))
    weights = _weights(estimator, sample_weight, n_augment)
    return estimator.fit(noisy, np.repeat(y, n_augment), **weights)


def _prepare(estimator, noise):
    """Set the defense of a RobustClassifier, or the noise of the one that it has."""
    from ..defenses import GaussianAugmentation, NoiseAugmentation

    gaussian = isinstance(noise, GaussianNoise)
    if estimator.defense is None:
        defense = GaussianAugmentation() if gaussian else NoiseAugmentation(noise)
        estimator.set_params(defense=defense)
    if gaussian and "sigma" in estimator.defense.get_params():
        scale = 1.0 if noise.scale_ is None else noise.scale_.ravel()
        estimator.set_params(defense__sigma=noise.sigma_ * scale)


def noisy_copies(array, noise, n_copies, seed):
    """Noisy copies of rows, those of each row one after the other; equal rows get equal noise."""
    x = torch.tensor(array)
    # Another seed than that of the votes: predictions for training data see noise that is new.
    keys = RowNoise(x, seed + 1).keys.tolist()
    sample, generator = noise.sampler(x.dtype, x.device), make_generator(0)
    copies = x.new_empty((len(x), n_copies, *x.shape[1:]))
    for row, key, out in zip(x, keys, copies, strict=True):
        generator.manual_seed(key & 0xFFFFFFFF)
        sample(out, row, None, generator)
    return copies.flatten(0, 1).numpy()


def _weights(estimator, sample_weight, n_copies):
    if sample_weight is None:
        return {}
    if not has_fit_parameter(estimator, "sample_weight"):
        raise ValueError(
            f"sample_weight was given, and {type(estimator).__name__}, the estimator of "
            "SmoothedClassifier, takes none in fit. Leave it out, or take another estimator."
        )
    return {"sample_weight": np.repeat(sample_weight, n_copies)}
