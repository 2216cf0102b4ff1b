"""The problem of an attack: a classifier, inputs, and the labels to leave or to reach."""

from contextlib import contextmanager
from copy import copy

import numpy as np
from sklearn.utils import check_array, column_or_1d

from ...adapters import FittedClassifier, find_access
from ...utils._containers import FLOATS, column_names, is_dataframe, like, take_rows


class AttackProblem:
    """A fitted classifier and inputs, prepared once for all attacks that run on them.

    Parameters
    ----------
    estimator : fitted classifier or torch.nn.Module

    X : array-like or DataFrame of shape (n_samples, ...)
        Inputs.

    caller : object
        The estimator or function that error messages about X name.

    Attributes
    ----------
    classifier : FittedClassifier

    access : access
        The strongest access to the classifier; see :mod:`skrobust.adapters._access`.

    X : ndarray or DataFrame
        Inputs as the estimator gets them.

    array : ndarray of shape (n_samples, ...)
        Their values, in float32 or float64.

    seed : int
        Seed of the attack for which the problem was prepared.

    labels : ndarray of shape (n_samples,)
        Labels to leave, or to reach where ``targeted``.

    index : int ndarray of shape (n_samples,)
        Class indices of the labels.

    targeted : bool

    Raises
    ------
    ValueError, TypeError, NotFittedError
        The estimator or X are unfit for an attack.
    """

    seed: int
    labels: np.ndarray
    index: np.ndarray
    targeted: bool
    labels_are_given: bool

    def __init__(self, estimator, X, caller):
        self.classifier = FittedClassifier(estimator)
        self.array = check_array(X, dtype=FLOATS, allow_nd=True, estimator=caller, input_name="X")
        self.classifier.check_inputs(X, self.array)
        self.X = X if is_dataframe(X) else self.array
        self.access = find_access(self.classifier, X, self.array)

    def __len__(self):
        return len(self.array)

    @property
    def feature_names(self):
        """Names of the columns of X, or None."""
        return column_names(self.X)

    @contextmanager
    def prepared(self, seed, y=None, y_target=None):
        """Context in which attacks run: the labels are set, and the access is ready.

        Parameters
        ----------
        seed : int
            For modules that draw random numbers.

        y, y_target : array-like of shape (n_samples,), or label
            As of :meth:`BaseAttack.perturb`.
        """
        self.seed = seed
        with self.access.prepared(seed):
            self._set_labels(y, y_target)
            yield

    def _set_labels(self, y, y_target):
        self.targeted = y_target is not None
        self.labels_are_given = self.targeted or y is not None
        if self.targeted:
            y_target = np.asarray(y_target)
            is_one = y_target.ndim == 0
            labels = np.full(len(self), y_target) if is_one else column_or_1d(y_target)
        elif y is not None:
            labels = column_or_1d(y)
        else:
            labels = self._predict(self.X)
        name = "y_target" if self.targeted else "y"
        if len(labels) != len(self):
            raise ValueError(
                f"{name} must have one label per sample of X: got {len(labels)} labels for "
                f"{len(self)} samples."
            )
        self.labels, self.index = labels, self.classifier.encode(labels, name)

    def take(self, rows):
        """Return the problem for some of the rows; classifier and access are shared.

        Parameters
        ----------
        rows : int ndarray

        Returns
        -------
        part : AttackProblem
        """
        part = copy(self)
        part.array, part.X = self.array[rows], take_rows(self.X, rows)
        part.labels, part.index = self.labels[rows], self.index[rows]
        return part

    def is_adversarial(self, array, rows=slice(None)):
        """Return whether perturbed inputs are a success, judged by the estimator's ``predict``.

        Parameters
        ----------
        array : ndarray of shape (n_rows, ...)
            Perturbed inputs.

        rows : int ndarray or slice, default=slice(None)
            Rows that they belong to.

        Returns
        -------
        success : bool ndarray of shape (n_rows,)
        """
        predicted = self._predict(like(take_rows(self.X, rows), array))
        return (predicted == self.labels[rows]) == self.targeted

    def _predict(self, X):
        with self.access.isolated():
            return self.classifier.predict(X)
