"""The fitted classifier: classes, predictions, features and view."""

from functools import cached_property

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet

from ..differentiable import to_torch
from ..utils._containers import column_names
from ..utils._random import TorchRandomState
from ..utils._sklearn import check_feature_names
from ..utils._torch import input_options, outputs


class FittedClassifier:
    """A fitted classifier behind one interface, whatever its library.

    Parameters
    ----------
    estimator : fitted classifier or torch.nn.Module
        A module maps inputs to logits.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        Labels. Those of a module are the numbers of its outputs, which :meth:`check_inputs` finds.

    Raises
    ------
    NotFittedError
        The estimator is not fitted.

    TypeError
        It is not a classifier.
    """

    classes: np.ndarray

    def __init__(self, estimator):
        self.estimator = estimator
        self.is_module = isinstance(estimator, torch.nn.Module)
        if self.is_module:
            return
        if not hasattr(estimator, "predict"):
            raise TypeError(
                "estimator must be a classifier with predict, or a torch.nn.Module from inputs "
                f"to logits; got {estimator!r}."
            )
        check_is_fitted(estimator)
        if getattr(estimator, "classes_", None) is None:
            raise TypeError(
                "estimator must be a fitted classifier, with its labels in `classes_`; "
                f"{type(estimator).__name__} has none. Only classifiers can be attacked."
            )
        self.classes = np.asarray(estimator.classes_)
        if len(self.classes) < 2:
            raise ValueError(
                f"estimator must know at least two classes; {type(estimator).__name__} was fitted "
                f"on one class only, {self.classes[0]!r}, which it predicts for every input."
            )

    @cached_property
    def view(self):
        """Differentiable view of the estimator."""
        return to_torch(self.estimator)

    def check_inputs(self, X, array):
        """Raise a ValueError where the features of ``X`` are not those of the estimator.

        Parameters
        ----------
        X : array or DataFrame of shape (n_samples, ...)
            Inputs.

        array : ndarray of shape (n_samples, ...)
            Their values.
        """
        if self.is_module:
            with TorchRandomState(0, input_options(self.view)["device"]).swapped():
                self.classes = np.arange(outputs(self.view, array[:1]).shape[1])
        n_features = getattr(self.estimator, "n_features_in_", None)
        if n_features is not None and array.ndim == 2 and array.shape[1] != n_features:
            raise ValueError(
                f"X has {array.shape[1]} features, but {type(self.estimator).__name__} is "
                f"expecting {n_features} features as input."
            )
        if column_names(X) is not None and hasattr(self.estimator, "feature_names_in_"):
            check_feature_names(self.estimator, X, reset=False)

    def encode(self, y, name="y"):
        """Return the class indices of labels; unknown labels are an error.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            Labels.

        name : str, default="y"
            Name of the parameter, for the error.

        Returns
        -------
        index : int ndarray of shape (n_samples,)
            Positions of the labels in ``classes``.
        """
        y = np.asarray(y)
        index, known = self.find_labels(y)
        if not np.all(known):
            unknown = np.unique(y[~known].astype(str))[:5]
            raise ValueError(
                f"{name} contains labels that the estimator does not know: {', '.join(unknown)}. "
                f"Its classes are {', '.join(map(str, self.classes[:20]))}; give {name} in the "
                "same label space as at fit."
            )
        return index

    def find_labels(self, y):
        """Return the class indices of labels, and which of the labels are known.

        Parameters
        ----------
        y : ndarray of shape (n_samples,)
            Labels.

        Returns
        -------
        index : int ndarray of shape (n_samples,)
            Positions of the labels in ``classes``; arbitrary for unknown labels.

        known : bool ndarray of shape (n_samples,)
            True for labels of the estimator.
        """
        order = np.argsort(self.classes)
        try:
            position = np.searchsorted(self.classes, y, sorter=order)
            index = order[np.minimum(position, len(order) - 1)]
            return index, self.classes[index] == y
        except TypeError:
            # Labels that cannot be compared with the classes.
            index = np.zeros(len(y), dtype=np.intp)
            return index, np.array([label in set(self.classes.tolist()) for label in y.tolist()])

    def predict(self, X):
        """Return the labels that the estimator itself predicts, in its own label space.

        Parameters
        ----------
        X : array or DataFrame of shape (n_samples, ...)
            Inputs.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Labels.
        """
        if self.is_module:
            return outputs(self.view, X).argmax(1)
        labels = self.call("predict", X)
        # Some estimators predict a column.
        return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels

    def call(self, method, X):
        """Return the output of a method of the estimator as an ndarray.

        The method gets a copy, as a transformer with ``copy=False`` overwrites its input.

        Parameters
        ----------
        method : str
            Name of the method.

        X : array or DataFrame of shape (n_samples, ...)
            Inputs.

        Returns
        -------
        output : ndarray
            Output of the method.
        """
        X = X.copy()
        if isinstance(self.estimator, NeuralNet):
            # skorch hands the array to the module as it is; float64 would not fit a float32 module.
            dtype = input_options(self.estimator.module_)["dtype"]
            X = torch.from_numpy(np.ascontiguousarray(X)).to(dtype).numpy()
        return np.asarray(getattr(self.estimator, method)(X))
