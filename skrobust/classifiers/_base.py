"""Base class of the classifiers that train a torch module through skorch."""

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from ..defenses import AdversarialTraining
from ..differentiable._modules import Chain, Reshape
from ..differentiable._nets import Net
from ..differentiable._registry import transform_to_torch
from ..utils._containers import FLOATS
from ..utils._sklearn import fit_context
from ..utils._torch import outputs
from ..utils._weights import check_weights
from ._net import is_skorch_param
from ._precision import precise
from ._training import train


class BaseNetClassifier(ClassifierMixin, BaseEstimator):
    """Base class of classifiers that own a skorch net.

    A subclass writes out its ``__init__``, because scikit-learn reads the names of parameters from
    that signature. Training needs all parameters of :class:`~skrobust.RobustClassifier`.

    Attributes
    ----------
    _skorch_params : dict
        Parameters that are passed on to skorch. ``__init__`` sets it only if there are any:
        scikit-learn allows no attributes before ``fit`` that are not parameters.
    """

    _skorch_params: dict = {}

    def get_params(self, deep=True):
        """Get the parameters of this estimator, including those that are passed on to skorch.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parameters of ``defense`` and ``preprocessor``.

        Returns
        -------
        params : dict
            Values by parameter name.
        """
        return super().get_params(deep) | self._skorch_params

    def set_params(self, **params):
        """Set parameters of this estimator, including those that are passed on to skorch.

        Parameters
        ----------
        **params : dict
            For example ``eps=0.2``, ``defense__beta=3``, ``module__hidden=(64,)``.

        Returns
        -------
        self : object
            This estimator.
        """
        if any(name.startswith("defense__") for name in params):
            self.defense = self._get_defense()
        known = self._skorch_params
        skorch_params = {k: v for k, v in params.items() if is_skorch_param(k) or k in known}
        super().set_params(**{k: v for k, v in params.items() if k not in skorch_params})
        if skorch_params:
            self._skorch_params = known | skorch_params
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None):
        """Train the module under the defense.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Training inputs, in the units of ``eps`` and ``bounds``.

        y : array-like of shape (n_samples,)
            Labels of at least two classes.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights. A sample of weight k gives exactly the same result as k copies of
            it. None means a weight of 1 for every sample.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        resume = self.warm_start and hasattr(self, "net_")
        X, y, weights = self._check_training_data(X, y, sample_weight, reset=not resume)
        classes = np.unique(y[weights > 0])
        if not resume:
            self.classes_ = classes
        self._check_labels(classes)
        train(self, X, y, weights, resume=resume)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one epoch on the given data, at the constant learning rate ``lr``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Training inputs. The first call fits the ``preprocessor`` to them.

        y : array-like of shape (n_samples,)
            Labels.

        classes : array-like of shape (n_classes,), default=None
            All labels that can occur in later calls. Used by the first call only. None means the
            labels in ``y``.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights. None means a weight of 1 for every sample.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        resume = hasattr(self, "net_")
        X, y, weights = self._check_training_data(X, y, sample_weight, reset=not resume)
        if not resume:
            self.classes_ = np.unique(y if classes is None else column_or_1d(classes))
        self._check_labels(np.unique(y))
        train(self, X, y, weights, resume=resume, partial=True)
        return self

    def decision_function(self, X):
        """Return the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        scores : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Logits in the order of ``classes_``. For two classes, the logit of the second class
            minus the logit of the first.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Predicted labels.
        """
        logits = self._logits(X)
        return self.classes_[logits.argmax(axis=1)]

    def predict_proba(self, X):
        """Predict class probabilities: the softmax of the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities in the order of ``classes_``.
        """
        return softmax(self._logits(X), axis=1)

    def predict_log_proba(self, X):
        """Predict the logarithms of class probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes)
            Log-probabilities in the order of ``classes_``.
        """
        return log_softmax(self._logits(X), axis=1)

    @property
    def module_(self):
        """Trained module; its input is X after ``preprocessor_`` and ``input_shape``."""
        return self.net_.module_

    @property
    def history_(self):
        """Training history as recorded by skorch."""
        return self.net_.history

    def __to_torch__(self):
        """Return the differentiable view from raw inputs to logits; it shares the module."""
        check_is_fitted(self)
        return self._make_view(self.module_)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")

    def _get_defense(self):
        return AdversarialTraining() if self.defense is None else self.defense

    def _make_view(self, module):
        """Chain the preprocessor, the reshaping and ``module``."""
        steps = [] if self.preprocessor_ is None else [transform_to_torch(self.preprocessor_)]
        if self.input_shape is not None:
            steps.append(Reshape(self.input_shape))
        return Chain(*steps, Net(module))

    def _logits(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOATS, allow_nd=True)
        self._check_sample_shape(X)
        module = precise(self.module_)
        logits = outputs(self._make_view(module), X)
        if module is not self.module_:
            logits = logits.astype(np.float32)
        return logits.astype(np.float64)

    def _check_training_data(self, X, y, sample_weight, reset):
        X, y = validate_data(self, X, y, dtype=FLOATS, allow_nd=True, reset=reset)
        check_classification_targets(y)
        if reset:
            self.sample_shape_ = X.shape[1:]
        self._check_sample_shape(X)
        return X, y, check_weights(sample_weight, X)

    def _check_sample_shape(self, X):
        if X.shape[1:] != self.sample_shape_:
            raise ValueError(
                f"X has samples of shape {X.shape[1:]}, but {type(self).__name__} was fitted on "
                f"samples of shape {self.sample_shape_}."
            )

    def _check_labels(self, labels):
        unknown = np.setdiff1d(labels, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y contains labels that were unknown at the first fit: {unknown[:5].tolist()}. "
                f"The classes are {self.classes_[:20].tolist()}. To add classes, name all of them "
                "in the first call, by classes= in partial_fit."
            )
