"""The shortcut around autograd gives what autograd gives, to the same bits."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skrobust import RobustClassifier, to_torch
from skrobust.defenses import StandardTraining
from skrobust.differentiable._pullback import _Autograd, _Layerwise, pullback
from skrobust.nn import MLP

N_FEATURES, N_CLASSES = 6, 3
X, Y = make_classification(
    60, N_FEATURES, n_informative=4, n_redundant=0, n_classes=N_CLASSES, random_state=0
)


def sequential(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(N_FEATURES, 8), *layers, nn.Linear(8, N_CLASSES)).eval()


def robust_classifier(**parameters):
    clf = RobustClassifier(defense=StandardTraining(), max_epochs=2, random_state=0, **parameters)
    return clf.fit(X, Y)


def sklearn_mlp(activation):
    mlp = MLPClassifier((8,), activation=activation, solver="lbfgs", max_iter=5000, alpha=1.0)
    return make_pipeline(StandardScaler(), mlp).fit(X, Y)


LAYERWISE = {
    "relu": lambda: sequential(nn.ReLU()),
    "tanh": lambda: sequential(nn.Tanh()),
    "sigmoid": lambda: sequential(nn.Sigmoid()),
    "dropout and identity": lambda: sequential(nn.Dropout(0.5), nn.Identity()).eval(),
    "without bias": lambda: nn.Sequential(nn.Linear(N_FEATURES, N_CLASSES, bias=False)),
    "flatten": lambda: MLP(N_FEATURES, N_CLASSES, hidden=(8, 8)).eval(),
    "nested": lambda: nn.Sequential(sequential(nn.ReLU()), nn.Tanh(), nn.Linear(N_CLASSES, 2)),
    "RobustClassifier": robust_classifier,
    "input_shape": lambda: robust_classifier(input_shape=(1, 2, 3)),
    "preprocessor": lambda: robust_classifier(preprocessor=StandardScaler()),
    "pipeline around a net": lambda: make_pipeline(
        StandardScaler(), RobustClassifier(max_epochs=2, random_state=0)
    ).fit(X, Y),
    "linear pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
    "MLPClassifier relu": lambda: sklearn_mlp("relu"),
    "MLPClassifier logistic": lambda: sklearn_mlp("logistic"),
}


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Reversed(nn.Sequential):
    def forward(self, x):
        return super().forward(x.flip(1))


def with_hook():
    module = sequential(nn.ReLU())
    module[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return module


OTHER = {
    "unknown layer": lambda: sequential(nn.GELU()),
    "subclass of a layer": lambda: sequential(Doubled(8, 8)),
    "subclass of Sequential": lambda: Reversed(nn.Linear(N_FEATURES, N_CLASSES)),
    "hook": with_hook,
    "one logit": lambda: nn.Sequential(nn.Linear(N_FEATURES, 1)),
    "activation last": lambda: nn.Sequential(nn.Linear(N_FEATURES, N_CLASSES), nn.ReLU()),
    "dropout in training": lambda: sequential(nn.Dropout(0.5)).train(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*LAYERWISE, *OTHER])
def test_same_bits_as_autograd(name, dtype):
    view = to_torch((LAYERWISE | OTHER)[name]())
    linearize = pullback(view)
    assert isinstance(linearize, _Layerwise if name in LAYERWISE else _Autograd)
    z = torch.from_numpy(X).to(dtype)
    before = z.clone()
    torch.manual_seed(0)
    logits, pull = linearize(z)
    direction = torch.randn(logits.shape, dtype=logits.dtype)
    grad = pull(direction)

    leaf = z.clone().requires_grad_()
    torch.manual_seed(0)
    expected = view(leaf)
    (expected_grad,) = torch.autograd.grad(expected, leaf, direction)
    assert torch.equal(logits, expected.detach())
    assert torch.equal(grad, expected_grad)
    assert grad.dtype == dtype
    assert not logits.requires_grad
    assert not grad.requires_grad
    assert torch.equal(z, before)
    assert not z.requires_grad


def test_changes_of_the_weights_are_seen():
    module = sequential(nn.ReLU())
    linearize = pullback(to_torch(module))
    z = torch.from_numpy(X).float()
    before, _ = linearize(z)
    with torch.no_grad():
        module[0].weight.mul_(2)
    after, _ = linearize(z)
    assert not torch.equal(before, after)
    assert torch.equal(after, module(z).detach())


def test_parameters_get_no_gradients():
    module = sequential(nn.ReLU())
    logits, pull = pullback(to_torch(module))(torch.from_numpy(X).float())
    pull(torch.ones_like(logits))
    assert all(parameter.grad is None for parameter in module.parameters())
    assert np.all([parameter.requires_grad for parameter in module.parameters()])
