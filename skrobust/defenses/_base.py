"""What a defense is: the loss of one batch."""

from abc import ABCMeta, abstractmethod

from sklearn.base import BaseEstimator


class BaseDefense(BaseEstimator, metaclass=ABCMeta):
    """Base class of training objectives.

    A defense says what the loss of one batch is; :class:`~skrobust.RobustClassifier` does the
    rest. Its parameters are reached as ``defense__...`` in ``set_params`` and grids.
    """

    _parameter_constraints: dict = {}

    @abstractmethod
    def loss(self, model, x, y, threat, generator):
        """Loss of each sample of a batch.

        Parameters
        ----------
        model : callable
            From inputs in the units of X to logits of shape (n_samples, n_classes >= 2), in
            training mode and with gradients to its parameters.

        x : tensor of shape (n_samples, ...)
            Inputs, in the units of X.

        y : int64 tensor of shape (n_samples,)
            Class indices.

        threat : ThreatModel
            What the classifier is to withstand.

        generator : torch.Generator
            For all that is random.

        Returns
        -------
        losses : tensor of shape (n_samples,)
            To be weighted, averaged and minimised.

        logits : tensor of shape (n_samples, n_classes)
            The predictions that count as those of this batch in the history of the training.
        """
