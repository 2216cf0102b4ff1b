"""Training with noise of any distribution."""

from torch.nn.functional import cross_entropy

from ..utils._sklearn import HasMethods
from ._base import BaseDefense


class NoiseAugmentation(BaseDefense):
    """Cross-entropy of inputs with random noise, which is drawn anew for every batch.

    Training for randomised smoothing with noise that is not Gaussian. ``eps``, ``norm``, ``bounds``
    and ``mask`` of the classifier are not used.

    Parameters
    ----------
    noise : Noise
        Fitted noise distribution of :mod:`skrobust.smoothing`. Its ``sampler`` draws the noise.

    See Also
    --------
    GaussianAugmentation : Gaussian noise, with its standard deviation as a parameter.
    skrobust.SmoothedClassifier : Uses this defense for networks without a defense of their own.

    Notes
    -----
    :func:`sklearn.base.clone` keeps the fitted ``noise``. It would otherwise clone the noise, too,
    and so discard its level.

    Examples
    --------
    >>> import numpy as np
    >>> from skrobust import RobustClassifier
    >>> from skrobust.defenses import NoiseAugmentation
    >>> from skrobust.smoothing import UniformNoise
    >>> noise = UniformNoise().fit(np.zeros((1, 4)), sigma=0.5)
    >>> clf = RobustClassifier(defense=NoiseAugmentation(noise))
    """

    _parameter_constraints: dict = {"noise": [HasMethods("sampler")]}

    def __init__(self, noise):
        self.noise = noise

    def __sklearn_clone__(self):
        return type(self)(self.noise)

    def loss(self, model, x, y, threat, generator):
        """Compute the loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        noisy = x.new_empty(x.shape)
        self.noise.sampler(x.dtype, x.device)(noisy, x, None, generator)
        logits = model(noisy)
        return cross_entropy(logits, y, reduction="none"), logits
