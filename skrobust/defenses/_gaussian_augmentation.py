"""Training with Gaussian noise (Cohen et al. 2019)."""

from torch.nn.functional import cross_entropy

from ._base import BaseDefense
from ._noise import SIGMA, gaussian_noise


class GaussianAugmentation(BaseDefense):
    """Cross-entropy of inputs with Gaussian noise.

    The usual training for randomised smoothing [1]_. Against attacks it helps a little in l2, and
    hardly in linf. ``eps``, ``norm``, ``bounds`` and ``mask`` of the classifier are not used.

    Parameters
    ----------
    sigma : float or array-like of shape (n_features,), default=0.25
        Standard deviation of the noise, in units of X. Inside
        :class:`~skrobust.SmoothedClassifier` it is set to the noise level of that classifier.

    See Also
    --------
    NoiseAugmentation : The same with other noise distributions.
    Consistency, MACER, SmoothAdv, Stability : Slower, with larger certified radii in most cases.

    References
    ----------
    .. [1] J. Cohen, E. Rosenfeld and J. Z. Kolter, "Certified adversarial robustness via randomized
       smoothing", ICML 2019.

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.defenses import GaussianAugmentation
    >>> clf = RobustClassifier(defense=GaussianAugmentation(sigma=0.5), norm="l2")
    """

    _parameter_constraints: dict = {"sigma": SIGMA}

    def __init__(self, sigma=0.25):
        self.sigma = sigma

    def loss(self, model, x, y, threat, generator):
        """Compute the loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        logits = model(x + gaussian_noise(x, self.sigma, 1, generator)[0])
        return cross_entropy(logits, y, reduction="none"), logits
