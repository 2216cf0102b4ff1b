"""Laplace noise, for radii in l1."""

from math import sqrt

import numpy as np
import torch

from ._noise import AdditiveNoise, safe_log


class LaplaceNoise(AdditiveNoise):
    """Laplace noise of standard deviation ``sigma``, which certifies in l1.

    Notes
    -----
    ``p_A`` and ``p_B`` are the bounds for the top class and for the others, and
    ``b = sigma / sqrt(2)`` is the scale of the distribution. The radius is [1]_ ::

        max(b / 2 * log(p_A / p_B), -b * log(1 - p_A + p_B))

    With ``p_B = 1 - p_A`` it is ``-b * log(2 * (1 - p_A))``. Near the decision boundary it is
    smaller than with :class:`UniformNoise`. Unlike there, it has no upper limit.

    References
    ----------
    .. [1] J. Teng, G.-H. Lee and Y. Yuan, "l1 adversarial robustness certificates: a randomized
       smoothing approach", 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skrobust.smoothing import LaplaceNoise
    >>> noise = LaplaceNoise().fit(np.zeros((1, 2)), sigma=0.5)
    >>> round(float(noise.radius(0.99)), 3)
    1.383
    """

    norm = "l1"

    def threshold(self, radius):
        """Return the probability that a radius needs; see :meth:`Noise.threshold`."""
        return 1.0 - 0.5 * np.exp(-radius / self._b)

    def radius(self, p_lower, runner_up_upper=None):
        """Return the certified radius in l1; see :meth:`Noise.radius`."""
        p = np.asarray(p_lower, dtype=np.float64)
        if runner_up_upper is None:
            return -self._b * safe_log(2 * (1 - p))
        q = np.asarray(runner_up_upper, dtype=np.float64)
        ratio = self._b / 2 * (safe_log(p) - safe_log(q))
        return np.maximum(ratio, -self._b * safe_log(1 - p + q))

    @property
    def _b(self):
        return self.sigma_ / sqrt(2)

    def _draw(self, out, generator):
        # Inverse transform sampling takes a third of the time of `exponential_` on a CPU. Clamping
        # to the largest number below 1 keeps the logarithm finite if the uniform number is -1.
        out.uniform_(-1, 1, generator=generator)
        largest = 1 - torch.finfo(out.dtype).eps / 2
        magnitude = out.abs().clamp_(max=largest).neg_().log1p_()
        out.sign_().mul_(magnitude).mul_(self._b)
