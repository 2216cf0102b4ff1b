"""What an attack, or a score, may know of the estimator it is pointed at."""

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet

from ..differentiable import to_torch
from ..utils._containers import column_names
from ..utils._sklearn import check_feature_names
from ..utils._torch import input_options, outputs


class Target:
    """A fitted classifier as an attack sees it: classes, predictions, and the view if it has one.

    Parameters
    ----------
    estimator : fitted classifier or torch.nn.Module

    Raises
    ------
    NotFittedError
        The estimator is not fitted.

    TypeError
        It is not a classifier.
    """

    def __init__(self, estimator):
        self.estimator = estimator
        self.is_module = isinstance(estimator, torch.nn.Module)
        if not self.is_module:
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
                    f"estimator must know at least two classes; {type(estimator).__name__} was "
                    f"fitted on one class only, {self.classes[0]!r}, and no input changes its mind."
                )
        self._view = None

    @property
    def view(self):
        """Differentiable view of the estimator."""
        if self._view is None:
            self._view = to_torch(self.estimator)
        return self._view

    def check_X(self, X, array):
        """Raise a ValueError where the features of ``X`` are not those of the estimator."""
        n_features = getattr(self.estimator, "n_features_in_", None)
        if n_features is not None and array.ndim == 2 and array.shape[1] != n_features:
            raise ValueError(
                f"X has {array.shape[1]} features, but {type(self.estimator).__name__} is "
                f"expecting {n_features} features as input."
            )
        if column_names(X) is not None and hasattr(self.estimator, "feature_names_in_"):
            check_feature_names(self.estimator, X, reset=False)

    def encode(self, y, array, name="y"):
        """Class indices of the labels ``y``; unknown labels are an error."""
        if self.is_module:
            n_classes = outputs(self.view, array[:1]).shape[1]
            self.classes = np.arange(n_classes)
        y = np.asarray(y)
        index, known = self.positions(y)
        if not np.all(known):
            unknown = np.unique(y[~known].astype(str))[:5]
            raise ValueError(
                f"{name} contains labels that the estimator does not know: {', '.join(unknown)}. "
                f"Its classes are {', '.join(map(str, self.classes[:20]))}; give {name} in the "
                "same label space as at fit."
            )
        return index

    def positions(self, y):
        """Class indices of the labels ``y``, and which of them are known."""
        order = np.argsort(self.classes)
        try:
            position = np.searchsorted(self.classes, y, sorter=order)
            index = order[np.minimum(position, len(order) - 1)]
            return index, self.classes[index] == y
        except TypeError:
            index = np.zeros(len(y), dtype=np.intp)
            return index, np.array([label in set(self.classes.tolist()) for label in y.tolist()])

    def predict(self, X):
        """Labels that the estimator itself gives, in its own label space."""
        if self.is_module:
            return outputs(self.view, X).argmax(1)
        labels = self.ask("predict", X)
        # Some estimators answer in a column.
        return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels

    def ask(self, method, X):
        """What a method of the estimator answers for an array or a data frame.

        The method gets a copy, as a transformer with ``copy=False`` works in what it is given.
        """
        X = X.copy()
        if isinstance(self.estimator, NeuralNet):
            # skorch hands the array to the module as it is, and a float64 one does not fit.
            dtype = input_options(self.estimator.module_)["dtype"]
            X = torch.from_numpy(np.ascontiguousarray(X)).to(dtype).numpy()
        return np.asarray(getattr(self.estimator, method)(X))
