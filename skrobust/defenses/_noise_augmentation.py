"""Training under noise of any distribution."""

from copy import copy

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch.nn.functional import cross_entropy

from ..utils._sklearn import HasMethods
from ._base import BaseDefense


class NoiseAugmentation(BaseDefense):
    """Training under noise of any distribution: the cross-entropy of noisy inputs.

    Each batch gets fresh noise, which ignores ``eps``, ``bounds`` and ``mask``. It prepares a
    classifier for randomised smoothing with this noise.
    :class:`~skrobust.SmoothedClassifier` sets it on a :class:`~skrobust.RobustClassifier` that has
    no defense, if the noise is not Gaussian.

    Parameters
    ----------
    noise : Noise
        Fitted distribution of :mod:`skrobust.smoothing`. ``clone`` keeps it fitted.

    See Also
    --------
    GaussianAugmentation : Training under Gaussian noise, without a fitted distribution.

    Examples
    --------
    >>> import numpy as np
    >>> from skrobust import RobustClassifier
    >>> from skrobust.defenses import NoiseAugmentation
    >>> from skrobust.smoothing import LaplaceNoise
    >>> noise = LaplaceNoise().fit(np.zeros((1, 4)), sigma=0.5)
    >>> clf = RobustClassifier(defense=NoiseAugmentation(noise), norm="l1")
    """

    _parameter_constraints: dict = {"noise": [HasMethods("sampler")]}

    def __init__(self, noise):
        self.noise = noise

    def loss(self, model, x, y, threat, generator):
        """Return the loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        noisy = x.new_empty(x.shape)
        self.noise.sampler(x.dtype, x.device)(noisy, x, None, generator)
        logits = model(noisy)
        return cross_entropy(logits, y, reduction="none"), logits

    def _validate_params(self):
        super()._validate_params()
        if isinstance(self.noise, BaseEstimator):
            check_is_fitted(self.noise)

    def __sklearn_clone__(self):
        # `clone` of scikit-learn would return a defense whose noise is not fitted.
        return copy(self)
