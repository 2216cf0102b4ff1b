"""Consistency regularisation of predictions under noise (Jeong & Shin 2020)."""

from numbers import Integral, Real

from torch.nn.functional import cross_entropy

from ..utils._sklearn import Interval
from ._base import BaseDefense
from ._noise import SIGMA, gaussian_noise, log_mean_softmax, logits_of_copies


class Consistency(BaseDefense):
    """Training with Gaussian noise that makes predictions for noisy copies of an input agree.

    When predictions under noise agree, certified radii are larger. ``eps``, ``norm``, ``bounds``
    and ``mask`` of the classifier are not used.

    Parameters
    ----------
    sigma : float or array-like of shape (n_features,), default=0.25
        Standard deviation of the noise, in units of X. Inside
        :class:`~skrobust.SmoothedClassifier` it is set to the noise level of that classifier.

    weight : float, default=10.0
        Weight of the divergence of the predictions from their mean: larger values trade accuracy
        for robustness. It is lambda in the paper.

    entropy_weight : float, default=0.5
        Weight of the entropy of the mean prediction. It prevents predictions that agree because
        they are all uniform. It is eta in the paper.

    n_noise : int, default=2
        Noisy copies of each input. Training time is proportional to it.

    See Also
    --------
    Stability : Compares the predictions for a noisy copy and for the input itself.
    GaussianAugmentation : Noise alone: faster, but with smaller radii in most cases.

    Notes
    -----
    With the predictions ``p_j`` for the noisy copies and ``q = mean_j p_j`` the loss is ([1]_,
    section 3)

    ``mean_j -log p_j,y + weight * mean_j KL(q || p_j) + entropy_weight * H(q)``.

    Callbacks that score the training data get the logits of the first copy.

    References
    ----------
    .. [1] J. Jeong and J. Shin, "Consistency regularization for certified robustness of smoothed
       classifiers", NeurIPS 2020.

    Examples
    --------
    >>> from skrobust import RobustClassifier, SmoothedClassifier
    >>> from skrobust.defenses import Consistency
    >>> net = RobustClassifier(defense=Consistency(weight=5.0))
    >>> clf = SmoothedClassifier(net, sigma=0.5)
    """

    _parameter_constraints: dict = {
        "sigma": SIGMA,
        "weight": [Interval(Real, 0, None, closed="left")],
        "entropy_weight": [Interval(Real, 0, None, closed="left")],
        "n_noise": [Interval(Integral, 2, None, closed="left")],
    }

    def __init__(self, sigma=0.25, *, weight=10.0, entropy_weight=0.5, n_noise=2):
        self.sigma = sigma
        self.weight = weight
        self.entropy_weight = entropy_weight
        self.n_noise = n_noise

    def loss(self, model, x, y, threat, generator):
        """Compute the loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        noise = gaussian_noise(x, self.sigma, self.n_noise, generator)
        logits = logits_of_copies(model, x + noise)
        losses = cross_entropy(logits.flatten(0, 1), y.repeat(self.n_noise), reduction="none").view(
            self.n_noise, -1
        )
        log_mean = log_mean_softmax(logits)
        mean = log_mean.exp()
        # mean_j KL(q || p_j) == sum(q * (log q - mean_j log p_j)): average the logarithms first.
        divergence = (mean * (log_mean - logits.log_softmax(2).mean(0))).sum(1)
        entropy = -(mean * log_mean).sum(1)
        penalty = self.weight * divergence + self.entropy_weight * entropy
        return losses.mean(0) + penalty, logits[0]
