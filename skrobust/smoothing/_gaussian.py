"""Gaussian noise, for radii in l2."""

import numpy as np
from scipy.special import ndtr, ndtri

from ._noise import AdditiveNoise


class GaussianNoise(AdditiveNoise):
    """Gaussian noise of standard deviation ``sigma``, which certifies in l2.

    Notes
    -----
    The radius is ``sigma / 2 * (Phi^-1(p_A) - Phi^-1(p_B))`` (Theorem 1 of [1]_), where ``p_A`` and
    ``p_B`` are the bounds for the top class and for the others. With ``p_B = 1 - p_A`` it is
    ``sigma * Phi^-1(p_A)``. No larger radius holds for all classifiers.

    References
    ----------
    .. [1] J. Cohen, E. Rosenfeld and J. Z. Kolter, "Certified adversarial robustness via randomized
       smoothing", ICML 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skrobust.smoothing import GaussianNoise
    >>> noise = GaussianNoise().fit(np.zeros((1, 2)), sigma=0.5)
    >>> round(float(noise.radius(0.99)), 3)
    1.163
    """

    norm = "l2"

    @property
    def normal_std(self):
        """Standard deviation of the noise, in units of X; see :attr:`Noise.normal_std`."""
        return self.sigma_ * (1.0 if self.scale_ is None else self.scale_.ravel())

    def threshold(self, radius):
        """Return the probability that a radius needs; see :meth:`Noise.threshold`."""
        return ndtr(radius / self.sigma_)

    def radius(self, p_lower, runner_up_upper=None):
        """Return the certified radius in l2; see :meth:`Noise.radius`."""
        if runner_up_upper is None:
            return self.sigma_ * ndtri(p_lower)
        return self.sigma_ / 2 * (ndtri(p_lower) - ndtri(np.asarray(runner_up_upper)))

    def _draw(self, out, generator):
        out.normal_(0.0, self.sigma_, generator=generator)
