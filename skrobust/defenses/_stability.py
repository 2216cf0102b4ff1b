"""Stability training (Li et al. 2019)."""

from numbers import Real

import torch
from torch.nn.functional import cross_entropy

from ..utils._sklearn import Interval
from ._base import BaseDefense
from ._noise import SIGMA, gaussian_noise


class Stability(BaseDefense):
    """Cross-entropy of clean inputs plus a penalty on predictions that change under noise.

    ``eps``, ``norm``, ``bounds`` and ``mask`` of the classifier are not used.

    Parameters
    ----------
    sigma : float or array-like of shape (n_features,), default=0.25
        Standard deviation of the noise, in units of X. Inside
        :class:`~skrobust.SmoothedClassifier` it is set to the noise level of that classifier.

    weight : float, default=2.0
        Weight of the penalty: larger values trade accuracy for robustness.

    See Also
    --------
    Consistency : Compares the predictions for several noisy copies; all terms use noisy inputs.
    TRADES : The same idea with an attack instead of noise.

    Notes
    -----
    The loss is ``-log p_y(x) - weight * sum_c p_c(x) log p_c(x + d)`` with noise ``d`` from
    ``N(0, sigma^2)`` [1]_; gradients flow through both predictions. The penalty is the
    Kullback-Leibler divergence between the two predictions plus the entropy of the clean one.
    Callbacks that score the training data get the logits of the noisy input, because the classifier
    is used under noise.

    References
    ----------
    .. [1] B. Li, C. Chen, W. Wang and L. Carin, "Certified adversarial robustness with additive
       noise", NeurIPS 2019.

    Examples
    --------
    >>> from skrobust import RobustClassifier, SmoothedClassifier
    >>> from skrobust.defenses import Stability
    >>> net = RobustClassifier(defense=Stability(weight=1.0))
    >>> clf = SmoothedClassifier(net, sigma=0.5)
    """

    _parameter_constraints: dict = {
        "sigma": SIGMA,
        "weight": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, sigma=0.25, *, weight=2.0):
        self.sigma = sigma
        self.weight = weight

    def loss(self, model, x, y, threat, generator):
        """Compute the loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        noisy = x + gaussian_noise(x, self.sigma, 1, generator)[0]
        logits, logits_noisy = model(torch.cat([x, noisy])).chunk(2)
        losses = cross_entropy(logits, y, reduction="none")
        stability = cross_entropy(logits_noisy, logits.softmax(1), reduction="none")
        return losses + self.weight * stability, logits_noisy
