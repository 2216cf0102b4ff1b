"""Certificate: the base class of certified predictions."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, repr=False, kw_only=True)
class Certificate:
    """Certified predictions, one for each sample.

    Attributes
    ----------
    label : ndarray of shape (n_samples,)
        Predicted labels, also where the certificate abstains.

    radius : ndarray of shape (n_samples,)
        Certified radius: no perturbation whose norm is below it changes the prediction from
        ``label``. It is 0 where the certificate abstains.

    abstained : bool ndarray of shape (n_samples,)
        True where nothing is certified.

    reason : ndarray of str of shape (n_samples,)
        ``"certified"``, or the reason why the certificate abstains.

    norm : str
        Norm of the radii.

    unit : str
        Unit of the radii.

    method : str
        Method that computed the certificate.

    See Also
    --------
    skrobust.smoothing.SmoothedCertificate : Certificate that holds with a given probability.

    Examples
    --------
    >>> import numpy as np
    >>> from skrobust.verification import Certificate
    >>> Certificate(
    ...     label=np.array(["cat", "dog"]),
    ...     radius=np.array([0.5, 0.0]),
    ...     abstained=np.array([False, True]),
    ...     reason=np.array(["certified", "no majority"]),
    ...     norm="l2",
    ...     unit="units of X",
    ...     method="example",
    ... )
    Certificate of 2 samples: 1 certified, 1 abstained (1 no majority); median radius 0.25;
    norm l2, in units of X; example
    """

    label: np.ndarray
    radius: np.ndarray
    abstained: np.ndarray
    reason: np.ndarray
    norm: str
    unit: str
    method: str

    # Attributes with one value for each sample, in the order of the columns of `to_frame`.
    _columns = ("label", "radius", "abstained", "reason")

    def __len__(self):
        return len(self.label)

    def to_frame(self):
        """Return the values of each sample as the rows of a data frame.

        Returns
        -------
        frame : pandas.DataFrame of shape (n_samples, n_columns)
            Columns ``label``, ``radius``, ``abstained`` and ``reason``; a subclass can add more.

        Raises
        ------
        ImportError
            pandas is not installed.
        """
        import pandas as pd

        return pd.DataFrame({name: getattr(self, name) for name in self._columns})

    def __repr__(self):
        n_abstained = int(self.abstained.sum())
        parts = [
            f"Certificate of {len(self)} samples: {len(self) - n_abstained} certified, "
            f"{n_abstained} abstained"
        ]
        if n_abstained:
            reasons, counts = np.unique(self.reason[self.abstained], return_counts=True)
            listed = ", ".join(f"{n} {why}" for n, why in zip(counts, reasons, strict=True))
            parts[0] += f" ({listed})"
        if len(self):
            parts.append(f"median radius {np.median(self.radius):.4g}")
        return "; ".join([*parts, f"norm {self.norm}, in {self.unit}", self.method])
