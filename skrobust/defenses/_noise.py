"""Gaussian noise and mean predictions, shared by the defenses for randomised smoothing."""

from math import log
from numbers import Real

import torch

from ..utils._sklearn import Interval
from ..utils._validation import per_feature

# Constraint of the parameter sigma.
SIGMA = [Interval(Real, 0, None, closed="left"), "array-like"]


def gaussian_noise(x, sigma, n_copies, generator):
    """Draw Gaussian noise for several copies of a batch.

    Parameters
    ----------
    x : tensor of shape (n_samples, ...)
        Batch of inputs.

    sigma : float or array-like of shape (n_features,)
        Standard deviation, in the units of ``x``.

    n_copies : int
        Number of copies.

    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    noise : tensor of shape (n_copies, n_samples, ...)
    """
    sigma = per_feature(sigma, x.shape[1:], "sigma")
    noise = torch.randn((n_copies, *x.shape), generator=generator, dtype=x.dtype, device=x.device)
    return noise.mul_(torch.as_tensor(sigma, dtype=x.dtype, device=x.device))


def logits_of_copies(model, copies):
    """Return logits of shape (n_copies, n_samples, n_classes), from one forward pass."""
    return model(copies.flatten(0, 1)).unflatten(0, copies.shape[:2])


def log_mean_softmax(logits):
    """Return the logarithm of the softmax averaged over the copies, the first axis."""
    return logits.log_softmax(2).logsumexp(0) - log(len(logits))
