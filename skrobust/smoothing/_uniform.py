"""Uniform noise, for radii in l1."""

from math import sqrt

import numpy as np

from ._noise import AdditiveNoise


class UniformNoise(AdditiveNoise):
    """Uniform noise of standard deviation ``sigma``, which certifies in l1.

    Notes
    -----
    The noise of a feature is uniform on ``[-w, w]`` with ``w = sigma * sqrt(3)``. A perturbation
    moves at most a share ``|delta|_1 / (2 w)`` of the noise cube out of the original cube. The
    radius is therefore ``w * (p_A - p_B)``, where ``p_A`` and ``p_B`` are the bounds for the top
    class and for the others [1]_. With ``p_B = 1 - p_A`` it is ``w * (2 p_A - 1)``. It is never
    larger than ``w``.

    References
    ----------
    .. [1] G. Yang, T. Duan, J. E. Hu, H. Salman, I. Razenshteyn and J. Li, "Randomized smoothing of
       all shapes and sizes", ICML 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from skrobust.smoothing import UniformNoise
    >>> noise = UniformNoise().fit(np.zeros((1, 2)), sigma=0.5)
    >>> round(float(noise.radius(0.99)), 3)
    0.849
    """

    norm = "l1"

    def threshold(self, radius):
        """Return the probability that a radius needs; see :meth:`Noise.threshold`."""
        return 0.5 + radius / (2 * self._half_width)

    def radius(self, p_lower, runner_up_upper=None):
        """Return the certified radius in l1; see :meth:`Noise.radius`."""
        p = np.asarray(p_lower, dtype=np.float64)
        other = 1 - p if runner_up_upper is None else np.asarray(runner_up_upper)
        return self._half_width * (p - other)

    @property
    def _half_width(self):
        return self.sigma_ * sqrt(3)

    def _draw(self, out, generator):
        out.uniform_(-self._half_width, self._half_width, generator=generator)
