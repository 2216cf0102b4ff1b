"""Views of linear classifiers."""

import sklearn.linear_model
from sklearn.linear_model import (
    LogisticRegression,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.svm import LinearSVC

from ..exceptions import NotDifferentiableError
from ..utils._sklearn import is_multilabel
from ._modules import Linear
from ._registry import to_torch


@to_torch.register(LogisticRegression)
@to_torch.register(Perceptron)
@to_torch.register(SGDClassifier)
@to_torch.register(LinearSVC)
def _linear_classifier(estimator):
    return Linear.to_logits(estimator.coef_, estimator.intercept_)


# scikit-learn deprecates the class in 1.8 and removes it in 1.10.
if hasattr(sklearn.linear_model, "PassiveAggressiveClassifier"):
    to_torch.register(sklearn.linear_model.PassiveAggressiveClassifier)(_linear_classifier)


@to_torch.register(RidgeClassifier)
@to_torch.register(RidgeClassifierCV)
def _(estimator):
    if is_multilabel(estimator):
        raise NotDifferentiableError(
            f"{type(estimator).__name__} has a differentiable view only for one label per sample, "
            "and was fitted on several labels per sample. Fit it on a one-dimensional y."
        )
    return _linear_classifier(estimator)
