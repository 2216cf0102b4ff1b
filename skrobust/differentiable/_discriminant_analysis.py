"""Views of linear and quadratic discriminant analysis."""

import numpy as np
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.utils.validation import check_is_fitted

from ._modules import Chain, Linear, Squared
from ._registry import to_torch, transform_to_torch


@to_torch.register(LinearDiscriminantAnalysis)
def _(estimator):
    return Linear.to_logits(estimator.coef_, estimator.intercept_)


@transform_to_torch.register(LinearDiscriminantAnalysis)
def _(estimator):
    check_is_fitted(estimator)
    n_components = len(estimator.get_feature_names_out())
    weight = estimator.scalings_[:, :n_components].T
    # Only the solver "svd" centers the data.
    center = estimator.xbar_ if estimator.solver == "svd" else np.zeros(weight.shape[1])
    return Linear(weight, -weight @ center)


@to_torch.register(QuadraticDiscriminantAnalysis)
def _(estimator):
    # With z the input whitened for class k, the log-likelihood is -|z|^2 / 2 plus a constant. One
    # matrix product whitens the input for all classes, a second one sums the squares of each class.
    whitenings = [
        (rotation / np.sqrt(scaling)).T
        for rotation, scaling in zip(estimator.rotations_, estimator.scalings_, strict=True)
    ]
    centers = [w @ mean for w, mean in zip(whitenings, estimator.means_, strict=True)]
    log_determinants = np.array([np.log(scaling).sum() for scaling in estimator.scalings_])

    owner = np.repeat(np.arange(len(whitenings)), [len(w) for w in whitenings])
    belongs = owner == np.arange(len(whitenings))[:, np.newaxis]
    return Chain(
        Linear(np.vstack(whitenings), -np.concatenate(centers)),
        Squared(),
        Linear(-0.5 * belongs, np.log(estimator.priors_) - 0.5 * log_determinants),
    )
