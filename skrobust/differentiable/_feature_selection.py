"""Views of feature selectors."""

from sklearn.base import is_classifier
from sklearn.feature_selection import RFE, SelectorMixin

from ._modules import Chain, Select
from ._registry import to_torch, transform_to_torch


@to_torch.register(SelectorMixin)
@transform_to_torch.register(SelectorMixin)
def _select(estimator):
    return Select(estimator.get_support(indices=True))


@to_torch.register(RFE)
def _(estimator):
    # RFE also predicts, with an estimator that is fitted on the selected features.
    if is_classifier(estimator.estimator_):
        return Chain(_select(estimator), to_torch(estimator.estimator_))
    return _select(estimator)
