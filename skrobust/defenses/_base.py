"""Base class of defenses."""

from abc import ABCMeta, abstractmethod

from sklearn.base import BaseEstimator


class BaseDefense(BaseEstimator, metaclass=ABCMeta):
    """Base class of training objectives.

    A defense defines the loss of one batch; :class:`~skrobust.RobustClassifier` minimises it. The
    parameters of a defense are set as ``defense__<name>`` in ``set_params`` and in parameter grids.

    Examples
    --------
    >>> from torch.nn.functional import cross_entropy
    >>> from skrobust import RobustClassifier
    >>> from skrobust.defenses import BaseDefense
    >>> class RandomPoints(BaseDefense):
    ...     def loss(self, model, x, y, threat, generator):
    ...         logits = model(threat.random_start(x, generator))
    ...         return cross_entropy(logits, y, reduction="none"), logits
    >>> clf = RobustClassifier(defense=RandomPoints(), eps=0.1)
    """

    _parameter_constraints: dict = {}

    @abstractmethod
    def loss(self, model, x, y, threat, generator):
        """Compute the loss of each sample of a batch.

        Parameters
        ----------
        model : torch.nn.Module
            Maps inputs in the units of X to logits of shape (n_samples, n_classes), with
            n_classes >= 2. It is in training mode, and its parameters require gradients.

        x : tensor of shape (n_samples, ...)
            Inputs in the units of X.

        y : int64 tensor of shape (n_samples,)
            Class indices.

        threat : ThreatModel
            Threat model of the classifier. During the warm-up, its ``eps`` is smaller.

        generator : torch.Generator
            Source of all randomness.

        Returns
        -------
        losses : tensor of shape (n_samples,)
            Loss of each sample. Training minimises the weighted mean.

        logits : tensor of shape (n_samples, n_classes)
            Predictions for this batch, for callbacks that score the training data.
        """
