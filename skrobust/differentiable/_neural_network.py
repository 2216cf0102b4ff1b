"""View of scikit-learn's multi-layer perceptron."""

from sklearn.neural_network import MLPClassifier
from torch import nn

from ..exceptions import NotDifferentiableError
from ._modules import Chain, Linear
from ._registry import to_torch

_ACTIVATIONS = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}


@to_torch.register(MLPClassifier)
def _(estimator):
    if estimator.out_activation_ == "logistic" and estimator.n_outputs_ > 1:
        raise NotDifferentiableError(
            f"{type(estimator).__name__} has a differentiable view only for one label per sample, "
            "and was fitted on several labels per sample. Fit it on a one-dimensional y."
        )
    layers = []
    *hidden, last = zip(estimator.coefs_, estimator.intercepts_, strict=True)
    for coef, intercept in hidden:
        layers += [Linear(coef.T, intercept), _ACTIVATIONS[estimator.activation]().eval()]
    coef, intercept = last
    return Chain(*layers, Linear.to_logits(coef.T, intercept))
