"""MACER: training that maximises the certified radius (Zhai et al. 2020)."""

from math import log, log1p
from numbers import Integral, Real

import numpy as np
import torch

from ..utils._sklearn import Interval
from ._base import BaseDefense
from ._noise import SIGMA, gaussian_noise, log_mean_softmax, logits_of_copies

# Limits of the probabilities: inside, the normal quantile and its derivative are finite in float32.
_LOG_P_MIN, _LOG_P_MAX = log(1e-30), log1p(-1e-6)


class MACER(BaseDefense):
    """Training with Gaussian noise that maximises the certified radius, without an attack.

    ``eps``, ``norm``, ``bounds`` and ``mask`` of the classifier are not used.

    Parameters
    ----------
    sigma : float or array-like of shape (n_features,), default=0.25
        Standard deviation of the noise, in units of X. Inside
        :class:`~skrobust.SmoothedClassifier` it is set to the noise level of that classifier.

    n_noise : int, default=16
        Noisy copies of each input. More copies give a better estimate of the radius. Training time
        is proportional to them.

    weight : float, default=12.0
        Weight of the radius: larger values trade accuracy for radius. It is lambda in the paper.
        Radii are in units of X, so a good weight depends on them: 12 suits a ``sigma`` of about
        0.25. If ``weight * sigma`` is much larger than 3, learning starts slowly.

    gamma : float, default=8.0
        Radii above ``gamma * sigma / 2`` are not increased any further.

    inverse_temperature : float, default=16.0
        Factor of the logits in the estimate of the radius. With larger values, mean probabilities
        are closer to the shares of votes on which certificates are based. It is beta in the paper.

    See Also
    --------
    Consistency : Faster, with two copies of each input.
    GaussianAugmentation : Noise alone: faster, but with smaller radii in most cases.

    Notes
    -----
    The loss is [1]_, algorithm 1,

    ``-log p_y + weight * sigma / 2 * max(gamma - xi, 0)``, with
    ``xi = Phi^-1(z_y) - Phi^-1(max_{c != y} z_c)``,

    where ``p`` and ``z`` are averages over the noisy copies: ``p`` of the softmax of the logits,
    ``z`` of the softmax of ``inverse_temperature`` times the logits. The second term is
    ``gamma * sigma / 2`` minus the certified radius. It is zero for samples that ``z`` classifies
    wrongly, because they have no radius. If ``sigma`` is given per feature, radii are in units of
    ``sigma``, and ``sigma`` is replaced by 1 in the second term.

    For precision, ``z`` is computed as a logarithm, and ``Phi^-1(z_y)`` as ``-Phi^-1`` of the sum
    of the other classes. Probabilities are clamped to ``[1e-30, 1 - 1e-6]`` before ``Phi^-1``. The
    lower limit corresponds to ``xi = 22.9``; above it, the radius has no gradient. The upper limit
    affects only samples that are classified wrongly. Callbacks that score the training data get the
    logits of the first copy.

    References
    ----------
    .. [1] R. Zhai, C. Dan, D. He, H. Zhang, B. Gong, P. Ravikumar, C.-J. Hsieh and L. Wang,
       "MACER: Attack-free and scalable robust training via maximizing certified radius", ICLR 2020.

    Examples
    --------
    >>> from skrobust import RobustClassifier, SmoothedClassifier
    >>> from skrobust.defenses import MACER
    >>> net = RobustClassifier(defense=MACER(weight=4.0))
    >>> clf = SmoothedClassifier(net, sigma=0.5)
    """

    _parameter_constraints: dict = {
        "sigma": SIGMA,
        "n_noise": [Interval(Integral, 1, None, closed="left")],
        "weight": [Interval(Real, 0, None, closed="left")],
        "gamma": [Interval(Real, 0, None, closed="left")],
        "inverse_temperature": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, sigma=0.25, *, n_noise=16, weight=12.0, gamma=8.0, inverse_temperature=16.0):
        self.sigma = sigma
        self.n_noise = n_noise
        self.weight = weight
        self.gamma = gamma
        self.inverse_temperature = inverse_temperature

    def loss(self, model, x, y, threat, generator):
        """Compute the loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        noise = gaussian_noise(x, self.sigma, self.n_noise, generator)
        logits = logits_of_copies(model, x + noise)
        index = y.unsqueeze(1)
        losses = -log_mean_softmax(logits).gather(1, index).squeeze(1)
        gap = certified_gap(log_mean_softmax(self.inverse_temperature * logits), index)
        missing = torch.where(gap > 0, (self.gamma - gap).clamp_min(0), 0)
        unit = 1.0 if np.ndim(self.sigma) else float(self.sigma)
        return losses + self.weight * unit / 2 * missing, logits[0]


def certified_gap(log_p, index):
    """Return ``Phi^-1(p_y)`` minus ``Phi^-1`` of the largest other probability.

    If it is positive, it is twice the certified radius in standard deviations of the noise. If not,
    the sample is classified wrongly and has no radius.

    Parameters
    ----------
    log_p : tensor of shape (n_samples, n_classes)
        Logarithms of probabilities.

    index : int64 tensor of shape (n_samples, 1)
        Class indices of the labels.

    Returns
    -------
    gap : tensor of shape (n_samples,)
    """
    others = log_p.scatter(1, index, -torch.inf)
    return -_quantile(others.logsumexp(1)) - _quantile(others.amax(1))


def _quantile(log_p):
    return torch.special.ndtri(log_p.clamp(_LOG_P_MIN, _LOG_P_MAX).exp())
