"""What an attack may ask of an estimator: its gradients, its scores, or its decisions.

An access is what stands for the model in an attack. It takes tensors and gives tensors, whatever
the estimator computes with, and answers

- ``access(z)``: logits of shape (n, n_classes >= 2), and their vector-Jacobian product
  (:func:`~skrobust.differentiable.runtime.logits_and_vjp`); for gradients only;
- ``access.logits(z)``: the logits, or scores in their place; for gradients and scores;
- ``access.decide(z)``: int64 tensor of class indices; for all.
"""

from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from ..differentiable.runtime import deterministic_convolutions, logits_and_vjp
from ..exceptions import NotDifferentiableError
from ..utils._containers import frame_like
from ..utils._sklearn import BaseSearchCV
from ..utils._torch import frozen, input_options


class Gradients:
    """Access to everything, through a differentiable view."""

    gives = ("gradients", "scores", "decisions")

    def __init__(self, view):
        self.view = view
        self.options = input_options(view)
        self._evaluate = None

    def __call__(self, z):
        return self._evaluate(z)

    def logits(self, z):
        return self._evaluate.logits(z)

    def decide(self, z):
        return self.logits(z).argmax(1)

    @contextmanager
    def prepared(self, n_rows):
        """Prepare the passes of an attack; the model is as before after the block."""
        with frozen(self.view), deterministic_convolutions():
            self._evaluate = logits_and_vjp(self.view)
            yield


class _Queries:
    """Access through the methods of an estimator that has no view.

    Attributes
    ----------
    reason : NotDifferentiableError
        Why it has none.
    """

    def __init__(self, target, X, array):
        self.target = target
        self.frame = X
        self.options = {
            "dtype": torch.float32 if array.dtype == np.float32 else torch.float64,
            "device": torch.device("cpu"),
        }

    def _ask(self, method, z):
        return method(frame_like(self.frame, z.numpy()))

    def decide(self, z):
        labels = self._ask(self.target.predict, z)
        return torch.from_numpy(self.target.positions(labels)[0])

    def prepared(self, n_rows):
        return nullcontext()


class Scores(_Queries):
    """Access to the scores that a method of the estimator gives.

    Probabilities become their logarithms, which are logits.
    """

    gives = ("scores", "decisions")

    def __init__(self, target, X, array, method):
        super().__init__(target, X, array)
        self.method = method

    def logits(self, z):
        scores = self._ask(partial(self.target.ask, self.method), z)
        if self.method == "predict_proba":
            scores = np.log(np.maximum(scores, np.finfo(scores.dtype).tiny))
        scores = torch.from_numpy(np.ascontiguousarray(scores)).to(**self.options)
        if scores.ndim == 1:
            scores = torch.stack([torch.zeros_like(scores), scores], 1)
        return scores


class Decisions(_Queries):
    """Access to ``predict`` alone."""

    gives = ("decisions",)


def find_access(target, X, array):
    """The most that an estimator allows: gradients, else scores, else decisions."""
    try:
        return Gradients(target.view)
    except NotDifferentiableError as error:
        reason = error
    method = _find_scores(target, X, array)
    access = Decisions(target, X, array) if method is None else Scores(target, X, array, method)
    access.reason = reason
    return access


def _find_scores(target, X, array):
    """Name of the method that gives one score for each class, or None.

    ``decision_function`` comes first, as it is not rounded to 0 and 1.
    """
    n_classes = len(target.classes)
    for name in ("decision_function", "predict_proba"):
        if hasattr(target.estimator, name):
            shape = target.ask(name, frame_like(X, array[:1])).shape[1:]
            if n_classes == 2 and shape == ():
                return name
            # One-vs-one scores have a column for each pair of classes: three classes make three.
            of_pairs = name == "decision_function" and n_classes > 2 and _is_one_vs_one(target)
            if shape == (n_classes,) and not of_pairs:
                return name
    return None


def _is_one_vs_one(target):
    """Whether the scores are those of a support vector machine for pairs of classes."""
    estimator = target.estimator
    while True:
        if isinstance(estimator, Pipeline):
            estimator = estimator[-1]
        elif isinstance(estimator, BaseSearchCV):
            estimator = estimator.best_estimator_
        elif isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        else:
            return getattr(estimator, "decision_function_shape", None) == "ovo"
