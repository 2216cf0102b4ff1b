"""Gaussian noise: radii in l2."""

import numpy as np
from scipy.special import ndtr, ndtri

from ._noise import AdditiveNoise


class GaussianNoise(AdditiveNoise):
    """Gaussian noise of standard deviation ``sigma``: certifies in l2.

    Notes
    -----
    The radius is ``sigma / 2 * (Phi^-1(p_A) - Phi^-1(p_B))``, [1]_ Theorem 1, which with
    ``p_B = 1 - p_A`` is ``sigma * Phi^-1(p_A)``. No larger one holds for all classifiers.

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

    def threshold(self, radius):
        """Probability that a radius needs; see :meth:`Noise.threshold`."""
        return ndtr(radius / self.sigma_)

    def radius(self, p_lower, runner_up_upper=None):
        """Certified radius in l2; see :meth:`Noise.radius`."""
        if runner_up_upper is None:
            return self.sigma_ * ndtri(p_lower)
        return self.sigma_ / 2 * (ndtri(p_lower) - ndtri(np.asarray(runner_up_upper)))

    def _draw(self, out, generator):
        out.normal_(0.0, self.sigma_, generator=generator)
