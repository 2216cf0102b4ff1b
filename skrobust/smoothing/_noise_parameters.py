"""Noise distribution of a SmoothedClassifier, from its parameters."""

import numpy as np
from sklearn.base import clone

from ..utils._validation import per_feature
from ._flips import FlipNoise
from ._gaussian import GaussianNoise
from ._laplace import LaplaceNoise
from ._splitting import SplittingNoise
from ._uniform import UniformNoise

NOISES = {
    "gaussian": GaussianNoise,
    "laplace": LaplaceNoise,
    "uniform": UniformNoise,
    "splitting": SplittingNoise,
    "flips": FlipNoise,
}


def fit_noise(noise, sigma, scale, X, sample_weight, *, feature_names, seed):
    """Return the fitted distribution for the parameters ``noise``, ``sigma`` and ``scale``."""
    noise = NOISES[noise]() if isinstance(noise, str) else clone(noise)
    noise._validate_params()
    factors = None
    if np.ndim(sigma):
        sigma, factors = 1.0, _check_sigmas(sigma, X.shape[1:])
    if scale == "std":
        std = _standard_deviations(X, sample_weight)
        factors = std if factors is None else factors * std
    seen = X if sample_weight is None else X[sample_weight > 0]
    return noise.fit(seen, sigma, factors, feature_names=feature_names, seed=seed)


def describe_unit(noise, sigma, scale):
    """Return the unit of the radii in words."""
    if noise.unit is not None:
        return noise.unit
    if np.ndim(sigma):
        return "sigma of each feature" + (" times its std" if scale else "")
    return "standard deviations of the features" if scale else "units of X"


def _check_sigmas(sigma, shape):
    """Return one sigma for each feature, in the shape of a sample."""
    sigma = per_feature(np.asarray(sigma, dtype=np.float64), shape, "sigma")
    if not (np.isfinite(sigma).all() and (sigma > 0).all()):
        raise ValueError(
            "sigma of SmoothedClassifier must be positive for all features; got "
            f"{sigma.min():g}. A feature without noise makes every certificate void: increase its "
            "sigma."
        )
    return sigma


def _standard_deviations(X, sample_weight):
    """Return the standard deviation of each feature, and 1 if it is constant up to rounding."""
    mean = np.average(X, axis=0, weights=sample_weight)
    std = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=sample_weight))
    std[std <= 10 * np.finfo(X.dtype).eps * np.abs(mean)] = 1.0
    return std
