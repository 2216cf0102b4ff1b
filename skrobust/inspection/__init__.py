"""Displays: plots of robustness."""

from ._adversarial_examples import AdversarialExamplesDisplay
from ._certified_accuracy import CertifiedAccuracyDisplay
from ._robustness_curve import RobustnessCurveDisplay

__all__ = ["AdversarialExamplesDisplay", "CertifiedAccuracyDisplay", "RobustnessCurveDisplay"]
