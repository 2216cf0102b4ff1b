"""What is certified, and on what grounds."""

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True, repr=False)
class Certificate:
    """Certified predictions.

    Attributes
    ----------
    label : ndarray of shape (n_samples,)
        Predicted labels, also where the certificate abstains.

    radius : ndarray of shape (n_samples,)
        Perturbations of a length below it leave the prediction ``label`` (up to it, for the norm
        l0 and for noise without randomness). 0 where the certificate abstains. Where one radius was
        asked for, no other is certified.

    abstained : bool ndarray of shape (n_samples,)
        Where nothing is certified.

    p_lower : ndarray of shape (n_samples,)
        Lower bound of the probability of ``label`` under noise. Where one radius was asked for,
        the bound that it needs and that was passed; 0 where it was not.

    n_samples : int ndarray of shape (n_samples,)
        Number of noisy points that were looked at, those that chose the label among them.

    reason : ndarray of str of shape (n_samples,)
        ``"certified"``, or why not: ``"no majority"`` (no class is sure of more votes than all
        others), ``"out of reach"`` (a test stopped early, as the radius asked for most likely is;
        for noise without randomness it surely is), ``"undecided"`` (``n_samples`` were too few to
        certify the radius asked for).

    norm : str
        Norm of the radii.

    alpha : float
        Probability that the certificate of a sample is wrong, at most, for each sample.

    method : str
        Noise and test.

    unit : str
        What lengths are measured in.
    """

    label: np.ndarray
    radius: np.ndarray
    abstained: np.ndarray
    p_lower: np.ndarray
    n_samples: np.ndarray
    reason: np.ndarray
    norm: str
    alpha: float
    method: str
    unit: str

    def __len__(self):
        return len(self.label)

    def to_frame(self):
        """The arrays as columns of a data frame.

        Returns
        -------
        frame : pandas.DataFrame
        """
        import pandas as pd

        return pd.DataFrame(
            {
                field.name: getattr(self, field.name)
                for field in fields(self)
                if isinstance(getattr(self, field.name), np.ndarray)
            }
        )

    def __repr__(self):
        n_abstained = int(self.abstained.sum())
        text = (
            f"Certificate of {len(self)} samples: {len(self) - n_abstained} certified, "
            f"{n_abstained} abstained"
        )
        if n_abstained:
            why, how_many = np.unique(self.reason[self.abstained], return_counts=True)
            text += f" ({', '.join(f'{n} {w}' for w, n in zip(why, how_many, strict=True))})"
        if len(self):
            text += f"; median radius {np.median(self.radius):.4g}"
            text += f", {self.n_samples.mean():,.0f} samples each"
        return f"{text}; norm {self.norm}, in {self.unit}; alpha={self.alpha:g}, {self.method}"
