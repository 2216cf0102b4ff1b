"""SmoothedCertificate: the certificate of randomised smoothing."""

from dataclasses import dataclass

import numpy as np

from ..verification import Certificate


@dataclass(frozen=True, repr=False, kw_only=True)
class SmoothedCertificate(Certificate):
    """Predictions that are certified by randomised smoothing.

    Each certificate holds with probability ``1 - alpha``. ``label``, ``abstained``, ``norm``,
    ``unit`` and ``method`` are described in :class:`~skrobust.verification.Certificate`.

    Attributes
    ----------
    radius : ndarray of shape (n_samples,)
        Certified radius: no perturbation whose norm is below it changes the prediction from
        ``label``. For the norm l0 and for exact certificates this includes a norm equal to
        ``radius``. It is 0 where the certificate abstains. If one radius was requested, larger
        radii were not tested.

    reason : ndarray of str of shape (n_samples,)
        ``"certified"``, or the reason why the certificate abstains:

        - ``"no majority"``: it is not certain that one class gets more votes than all others.
        - ``"out of reach"``: the test stopped early, because the requested radius most likely
          cannot be certified. For exact certificates it certainly cannot.
        - ``"undecided"``: ``n_samples`` votes were too few to certify the requested radius.

    p_lower : ndarray of shape (n_samples,)
        Lower confidence bound on the probability of ``label`` under noise. If one radius was
        requested, the bound that was proved: at least the bound that the radius needs; 0 where the
        certificate abstains.

    n_samples : int ndarray of shape (n_samples,)
        Number of noisy points that were evaluated, including those that selected the label.

    alpha : float
        Largest probability that the certificate of a sample is wrong. It holds for each sample
        separately. 0 for exact certificates.

    See Also
    --------
    skrobust.SmoothedClassifier.certify : Returns this certificate.
    """

    p_lower: np.ndarray
    n_samples: np.ndarray
    alpha: float

    _columns = ("label", "radius", "abstained", "p_lower", "n_samples", "reason")

    def __repr__(self):
        text = f"{super().__repr__()}; alpha={self.alpha:g}"
        if len(self):
            text += f", {self.n_samples.mean():,.0f} noisy points per sample on average"
        return text
