"""Views of composite estimators."""

from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import FeatureUnion, Pipeline

from ..exceptions import NotDifferentiableError
from ..utils._sklearn import BaseSearchCV, column_indices
from ._modules import Chain, Concat, Identity, Scale, Select
from ._registry import to_torch, transform_to_torch


@to_torch.register(Pipeline)
def _(estimator):
    return _chain(estimator, last=to_torch)


@transform_to_torch.register(Pipeline)
def _(estimator):
    return _chain(estimator, last=transform_to_torch)


def _chain(pipeline, last):
    """Chain the views of all steps; `last` builds the view of the last step."""
    *firsts, (last_name, last_step) = pipeline.steps
    views = [_part(pipeline, name, step) for name, step in firsts]
    views.append(_part(pipeline, last_name, last_step, build=last))
    chain = Chain(*(view for view in views if not isinstance(view, Identity)))
    _move_to_device_of_net(chain)
    return chain


def _move_to_device_of_net(chain):
    """Move the steps before a net to its device, so that the input is transferred only once."""
    device = next((parameter.device for parameter in chain.parameters()), None)
    # The buffers are float64, which mps does not support.
    if device is None or device.type == "mps":
        return
    for view in chain:
        # The net itself stays where it is: its layers can be on several devices.
        if next(view.parameters(), None) is None:
            view.to(device)


@to_torch.register(FeatureUnion)
def _(estimator):
    weights = estimator.transformer_weights or {}
    return _side_by_side(
        Chain(_part(estimator, name, transformer), *_weight(weights.get(name)))
        for name, transformer in estimator.transformer_list
        if not _is(transformer, "drop")
    )


@to_torch.register(ColumnTransformer)
def _(estimator):
    weights = estimator.transformer_weights or {}
    indices = column_indices(estimator)
    return _side_by_side(
        Chain(
            Select(indices[name]),
            _part(estimator, name, transformer),
            *_weight(weights.get(name)),
        )
        for name, transformer, _ in estimator.transformers_
        # A transformer without columns is not fitted.
        if len(indices[name]) and not _is(transformer, "drop")
    )


def _side_by_side(branches):
    """Concatenate the outputs of views; without views, the output has no columns."""
    branches = list(branches)
    return Concat(branches) if branches else Select([])


def _weight(weight):
    return [] if weight is None else [Scale(weight)]


def _part(owner, name, estimator, build=transform_to_torch):
    """Return the view of one part of a composite estimator; errors name the part."""
    if estimator is None or _is(estimator, "passthrough"):
        return Identity()
    try:
        return build(estimator)
    except NotDifferentiableError as error:
        raise NotDifferentiableError(
            f"Step {name!r} of {type(owner).__name__}: {error}"
        ) from error.__cause__


def _is(estimator, word):
    # Estimators can define == in other ways.
    return isinstance(estimator, str) and estimator == word


@to_torch.register(BaseSearchCV)
def _(estimator):
    if not hasattr(estimator, "best_estimator_"):
        raise NotDifferentiableError(
            f"{type(estimator).__name__} has no best_estimator_. Set refit=True and fit it again."
        )
    return to_torch(estimator.best_estimator_)


@to_torch.register(FrozenEstimator)
def _(estimator):
    return to_torch(estimator.estimator)


@transform_to_torch.register(FrozenEstimator)
def _(estimator):
    return transform_to_torch(estimator.estimator)
