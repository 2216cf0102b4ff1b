"""Access to a classifier: by its gradients, by its scores, or by its decisions.

An access represents the model in an attack. It maps tensors to tensors, whatever library the
estimator computes with:

- ``access(z)``: logits of shape (n, n_classes >= 2), and a function for vector-Jacobian products
  (:func:`~skrobust.differentiable.runtime.logits_and_vjp`); gradients only;
- ``access.logits(z)``: the logits, or scores that take their place; gradients and scores;
- ``access.decide(z)``: class indices, an int64 tensor; all.

``access.prepared(seed)`` is the context in which these are called.
"""

from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from ..differentiable.runtime import deterministic_convolutions, logits_and_vjp
from ..exceptions import NotDifferentiableError
from ..utils._containers import frame_like
from ..utils._random import TorchRandomState
from ..utils._sklearn import BaseSearchCV
from ..utils._torch import frozen, input_options


class GradientAccess:
    """Access to gradients, scores and decisions through a differentiable view.

    Parameters
    ----------
    view : torch.nn.Module
        From inputs to logits.
    """

    provides = ("gradients", "scores", "decisions")

    def __init__(self, view):
        self.view = view
        self.options = input_options(view)
        self._evaluate = self._random_state = self._is_random = None

    def __call__(self, z):
        return self._isolate(self._evaluate, z)

    def logits(self, z):
        """Return the logits.

        Parameters
        ----------
        z : tensor of shape (n, ...)
            Inputs.

        Returns
        -------
        logits : tensor of shape (n, n_classes)
            Logits in the order of the classes.
        """
        return self._isolate(self._evaluate.logits, z)

    def decide(self, z):
        """Return the predicted classes.

        Parameters
        ----------
        z : tensor of shape (n, ...)
            Inputs.

        Returns
        -------
        index : int64 tensor of shape (n,)
            Class indices.
        """
        return self.logits(z).argmax(1)

    @contextmanager
    def prepared(self, seed):
        """Context for passes through the view, which is put back as it was afterwards.

        Parameters
        ----------
        seed : int
            For modules that draw random numbers: they neither use nor move torch's global state.

        Yields
        ------
        None
            Nothing: the access itself is ready.
        """
        self._random_state = TorchRandomState(seed, self.options["device"])
        self._is_random = None
        with frozen(self.view), deterministic_convolutions():
            self._evaluate = logits_and_vjp(self.view)
            yield

    def isolated(self):
        """Return a context for predictions of the estimator, which may run modules of the view.

        Returns
        -------
        context : context manager
            Inside, random numbers of modules come from the seed of ``prepared``.
        """
        return nullcontext() if self._is_random is False else self._random_state.swapped()

    def _isolate(self, function, z):
        """Call a function; if the model draws random numbers, from a state of its own."""
        if self._is_random is None:
            # The first pass tells: deterministic models need no lock, so that threads run freely.
            before = self._random_state.global_state()
            result = function(z)
            self._is_random = self._random_state.restore_global(before)
            if not self._is_random:
                return result
        if not self._is_random:
            return function(z)
        with self._random_state.active():
            return function(z)


class _MethodAccess:
    """Base of the accesses that call methods of an estimator without a view.

    Parameters
    ----------
    classifier : FittedClassifier
        The estimator.

    X : array or DataFrame
        Inputs, for their columns.

    array : ndarray
        Their values, for their precision.

    Attributes
    ----------
    reason : NotDifferentiableError
        Reason why the estimator has no view.
    """

    reason: NotDifferentiableError

    def __init__(self, classifier, X, array):
        self.classifier = classifier
        self.frame = X
        self.options = {
            "dtype": torch.float32 if array.dtype == np.float32 else torch.float64,
            "device": torch.device("cpu"),
        }

    def decide(self, z):
        """Return the predicted classes.

        Parameters
        ----------
        z : tensor of shape (n, ...)
            Inputs.

        Returns
        -------
        index : int64 tensor of shape (n,)
            Class indices.
        """
        labels = self.classifier.predict(frame_like(self.frame, z.numpy()))
        return torch.from_numpy(self.classifier.find_labels(labels)[0])

    def prepared(self, seed):
        """Return a context for calls of the estimator: nothing needs preparation."""
        return nullcontext()

    def isolated(self):
        """Return a context for predictions of the estimator: nothing needs isolation."""
        return nullcontext()


class ScoreAccess(_MethodAccess):
    """Access to scores and decisions through methods of the estimator.

    Parameters
    ----------
    classifier : FittedClassifier
        The estimator.

    X : array or DataFrame
        Inputs, for their columns.

    array : ndarray
        Their values, for their precision.

    method : {"decision_function", "predict_proba"}
        Method that gives one score per class. Probabilities become logarithms, which are logits.
    """

    provides = ("scores", "decisions")

    def __init__(self, classifier, X, array, method):
        super().__init__(classifier, X, array)
        self.method = method

    def logits(self, z):
        """Return scores in place of logits.

        Parameters
        ----------
        z : tensor of shape (n, ...)
            Inputs.

        Returns
        -------
        scores : tensor of shape (n, n_classes)
            Scores in the order of the classes.
        """
        scores = self.classifier.call(self.method, frame_like(self.frame, z.numpy()))
        if self.method == "predict_proba":
            scores = np.log(np.maximum(scores, np.finfo(scores.dtype).tiny))
        scores = torch.from_numpy(np.ascontiguousarray(scores)).to(**self.options)
        if scores.ndim == 1:
            scores = torch.stack([torch.zeros_like(scores), scores], 1)
        return scores


class DecisionAccess(_MethodAccess):
    """Access to the decisions of ``predict`` alone.

    Parameters
    ----------
    classifier : FittedClassifier
        The estimator.

    X : array or DataFrame
        Inputs, for their columns.

    array : ndarray
        Their values, for their precision.
    """

    provides = ("decisions",)


def find_access(classifier, X, array):
    """Return the strongest access that a classifier allows: gradients, scores, or decisions.

    Parameters
    ----------
    classifier : FittedClassifier
        The estimator.

    X : array or DataFrame of shape (n_samples, ...)
        Inputs.

    array : ndarray of shape (n_samples, ...)
        Their values.

    Returns
    -------
    access : GradientAccess, ScoreAccess or DecisionAccess
        The access, which is ready inside its context ``prepared``.
    """
    try:
        return GradientAccess(classifier.view)
    except NotDifferentiableError as error:
        reason = error
    method = _find_score_method(classifier, X, array)
    if method is None:
        access = DecisionAccess(classifier, X, array)
    else:
        access = ScoreAccess(classifier, X, array, method)
    access.reason = reason
    return access


def _find_score_method(classifier, X, array):
    """Return the name of the method that gives one score per class, or None.

    ``decision_function`` comes first, as it is not rounded to 0 and 1.
    """
    n_classes = len(classifier.classes)
    for name in ("decision_function", "predict_proba"):
        if not hasattr(classifier.estimator, name):
            continue
        shape = classifier.call(name, frame_like(X, array[:1])).shape[1:]
        if n_classes == 2 and shape == ():
            return name
        # One-vs-one scores have a column for each pair of classes: three classes have three pairs.
        pairs = name == "decision_function" and n_classes > 2 and _is_one_vs_one(classifier)
        if shape == (n_classes,) and not pairs:
            return name
    return None


def _is_one_vs_one(classifier):
    """Return whether the scores are for pairs of classes, as of some support vector machines."""
    estimator = classifier.estimator
    while True:
        if isinstance(estimator, Pipeline):
            estimator = estimator[-1]
        elif isinstance(estimator, BaseSearchCV):
            estimator = estimator.best_estimator_
        elif isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        else:
            return getattr(estimator, "decision_function_shape", None) == "ovo"
