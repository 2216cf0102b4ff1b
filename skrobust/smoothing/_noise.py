"""Base classes of the noise distributions."""

from abc import ABCMeta, abstractmethod

import numpy as np
import torch
from sklearn.base import BaseEstimator


class Noise(BaseEstimator, metaclass=ABCMeta):
    """Base class of the noise distributions of randomised smoothing.

    A distribution is fitted with a noise level. It then draws noisy points of an input, and
    converts bounds on the probabilities of the classes into a certified radius.

    Attributes
    ----------
    norm : {"l2", "l1", "l0"}
        Norm of the radii. A class attribute.

    unit : str or None
        Unit of the radii, if they are not lengths, for example ``"columns"``. None means lengths in
        the units of X, or in multiples of ``scale_``. A class attribute.

    n_points_ : int or None
        Number of noisy points of an input, if the distribution is finite. All of them are then
        evaluated, and certificates are exact. None if noisy points are drawn at random.

    sigma_ : float
        Noise level.

    scale_ : None or ndarray of the shape of a sample
        Factor by which the noise of each feature is multiplied. Radii are norms of perturbations
        divided by it.

    Notes
    -----
    A subclass sets ``norm`` and implements :meth:`sampler`, :meth:`threshold` and :meth:`radius`.
    If it sets ``n_points_``, it also has a method ``radius_of_votes(counts)``; see
    :meth:`SplittingNoise.radius_of_votes`.

    An estimator that trains under noise by itself has a method ``__fit_under_noise__(self, noise)``
    which prepares the estimator and returns None; see the Notes of
    :class:`~skrobust.SmoothedClassifier`. It gets a fitted distribution. :attr:`normal_std` says
    whether the noise is Gaussian; :meth:`sampler` draws noisy inputs from any distribution.
    """

    norm: str
    unit: str | None = None
    n_points_: int | None = None

    _parameter_constraints: dict = {}

    def fit(self, X, sigma, scale=None, *, feature_names=None, seed=0):
        """Set the noise level, and learn from the data what the distribution needs.

        Parameters
        ----------
        X : ndarray of shape (n_samples, ...)
            Training inputs.

        sigma : float
            Noise level.

        scale : ndarray of the shape of a sample, default=None
            Factor by which the noise of each feature is multiplied. None means 1.

        feature_names : list of str, default=None
            Names of the features.

        seed : int, default=0
            Seed of random choices that are made once, in this method.

        Returns
        -------
        self : object
            The fitted object itself.
        """
        self.sigma_ = float(sigma)
        self.scale_ = scale
        return self

    def check(self, X):
        """Raise a ValueError for inputs that certificates do not cover.

        Parameters
        ----------
        X : ndarray of shape (n_samples, ...)
            Inputs to predict or to certify.
        """
        return

    @property
    def normal_std(self):
        """Standard deviation of Gaussian noise, in units of X.

        A float, or an ndarray of shape (n_features,) if features have different levels. None for
        every other distribution.
        """
        return None

    @abstractmethod
    def sampler(self, dtype, device):
        """Return a function that draws noisy points of one input.

        Parameters
        ----------
        dtype : torch.dtype
            Dtype of the noisy points.

        device : torch.device or str
            Device of the noisy points.

        Returns
        -------
        sample : callable
            ``sample(out, x, start, generator)`` fills ``out``, a tensor of shape (n, ...), with the
            noisy points ``start``, ``start + 1``, ... of ``x``. With ``start=None`` it fills
            ``out`` with random noisy points. All random numbers come from ``generator``.
        """

    @abstractmethod
    def threshold(self, radius):
        """Return the probability that the top class must exceed for a certificate of ``radius``.

        Parameters
        ----------
        radius : float
            Radius in the norm ``norm``.

        Returns
        -------
        threshold : float
            1 or more if the noise cannot certify the radius.
        """

    @abstractmethod
    def radius(self, p_lower, runner_up_upper=None):
        """Return the certified radius for bounds on the probabilities of the classes.

        Parameters
        ----------
        p_lower : array-like
            Lower bound on the probability of the top class.

        runner_up_upper : array-like, default=None
            Upper bound on the probability of every other class. None means ``1 - p_lower``.

        Returns
        -------
        radius : ndarray
            Radius in the norm ``norm``, such that no smaller perturbation changes the top class.
            Negative where nothing is certified.
        """


class AdditiveNoise(Noise):
    """Base class of additive noise, independent and identically distributed for all features.

    A subclass implements ``_draw(out, generator)``, :meth:`~Noise.threshold` and
    :meth:`~Noise.radius`.
    """

    def sampler(self, dtype, device):
        """Return a function that draws noisy points of one input; see :meth:`Noise.sampler`."""
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
        """Fill ``out`` with noise of level ``sigma_``."""


def safe_log(p):
    """Return the natural logarithm, and minus infinity for 0 without a warning."""
    with np.errstate(divide="ignore"):
        return np.log(p)
