"""Standard training."""

from torch.nn.functional import cross_entropy

from ._base import BaseDefense


class StandardTraining(BaseDefense):
    """Cross-entropy of clean inputs: no defense.

    See Also
    --------
    AdversarialTraining : Cross-entropy of attacked inputs.

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.defenses import StandardTraining
    >>> clf = RobustClassifier(defense=StandardTraining())
    """

    def loss(self, model, x, y, threat, generator):
        """Compute the loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        logits = model(x)
        return cross_entropy(logits, y, reduction="none"), logits
