"""Views of linear projections."""

import numpy as np
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD

from ._modules import Linear
from ._registry import to_torch


@to_torch.register(PCA)
@to_torch.register(IncrementalPCA)
def _(estimator):
    weight = estimator.components_
    if estimator.whiten:
        deviation = np.sqrt(estimator.explained_variance_)
        # Components without variance are limited as in PCA.transform.
        deviation = np.maximum(deviation, np.finfo(deviation.dtype).eps)
        weight = weight / deviation[:, np.newaxis]
    return Linear(weight, -weight @ estimator.mean_)


@to_torch.register(TruncatedSVD)
def _(estimator):
    return Linear(estimator.components_)
