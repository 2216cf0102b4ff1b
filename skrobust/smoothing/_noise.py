"""What a noise distribution is: how to sample it, and the radius that it makes of a probability."""

from abc import ABCMeta, abstractmethod

import numpy as np
import torch
from sklearn.base import BaseEstimator


class Noise(BaseEstimator, metaclass=ABCMeta):
    """Base class of the noise distributions of randomised smoothing.

    A distribution is fitted with the level of the noise, gives a function that samples, and says
    from which probability on no perturbation of some norm can change the vote.

    Attributes
    ----------
    norm : {"l2", "l1", "l0"}
        Norm of the radii.

    n_points_ : int or None
        Number of noisy points of an input where they are all there are, so that nothing is
        random; None for a distribution to sample from.

    sigma_ : float
        Level of the noise.

    scale_ : None or ndarray of the shape of a sample
        What the noise of each feature is multiplied by. Radii are lengths of perturbations divided
        by it.
    """

    norm: str
    n_points_: int | None = None

    _parameter_constraints: dict = {}

    def fit(self, X, sigma, scale=None, *, feature_names=None, seed=0):
        """Set the level of the noise, and what else there is to know of the data.

        Parameters
        ----------
        X : ndarray of shape (n_samples, ...)
            Training inputs.

        sigma : float
            Level of the noise.

        scale : ndarray of the shape of a sample, default=None
            Factor for each feature.

        feature_names : list of str, default=None
            Names of the features.

        seed : int, default=0
            For what is random once and for all.

        Returns
        -------
        self : object
        """
        self.sigma_ = float(sigma)
        self.scale_ = scale
        return self

    def check(self, X):
        """Raise a ValueError for inputs about which the certificates say nothing."""
        return

    @abstractmethod
    def sampler(self, dtype, device):
        """Function that makes noisy points of one input.

        Returns
        -------
        sample : callable
            ``sample(out, x, start, generator)`` fills ``out`` of shape (n, ...) with the noisy
            points ``start``, ``start + 1``, ... of ``x``. All that is random comes from the
            generator. With ``start=None`` they are any of the points, at random.
        """

    @abstractmethod
    def threshold(self, radius):
        """Probability that the votes for a class must exceed to be certified at ``radius``.

        It is 1 or more where no votes are enough.
        """

    @abstractmethod
    def radius(self, p_lower, runner_up_upper=None):
        """Radius within which no perturbation changes the majority.

        Parameters
        ----------
        p_lower : array
            Lower bound of the probability of the class with most votes.

        runner_up_upper : array, default=None
            Upper bound of the probability of each other class. None means ``1 - p_lower``.

        Returns
        -------
        radius : ndarray
            In the norm ``norm``; negative where nothing is certified.
        """


class AdditiveNoise(Noise):
    """Base class of noise that is added, independent and alike for all features."""

    def sampler(self, dtype, device):
        """Function that makes noisy points of one input; see :meth:`Noise.sampler`."""
        scale = self.scale_
        if scale is not None:
            scale = torch.as_tensor(scale, dtype=dtype, device=device)

        def sample(out, x, start, generator):
            self._draw(out, generator)
            if scale is not None:
                out.mul_(scale)
            out.add_(x)

        return sample

    @abstractmethod
    def _draw(self, out, generator):
        """Fill ``out`` with the noise of level ``sigma_``."""


def logarithm(p):
    """Natural logarithm, minus infinity at 0."""
    with np.errstate(divide="ignore"):
        return np.log(p)
