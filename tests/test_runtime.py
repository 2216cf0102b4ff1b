"""The ops that replace autograd give the results of autograd."""

import gc
from copy import deepcopy

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
from skrobust.differentiable.runtime import (
    _memory_format,
    deterministic_convolutions,
    layer_ops,
    logits_and_vjp,
    training_memory_format,
)
from skrobust.differentiable.runtime._convolution import ConvolutionOp
from skrobust.differentiable.runtime._ops import AutogradOp, ReLUOp
from skrobust.nn import CNN, MLP

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
    "gelu": lambda: sequential(nn.GELU(approximate="tanh")),
    "silu": lambda: sequential(nn.SiLU()),
    "leaky_relu": lambda: sequential(nn.LeakyReLU(0.1)),
    "elu": lambda: sequential(nn.ELU(0.7)),
    "softplus": lambda: sequential(nn.Softplus(beta=2.0)),
    "relu twice": lambda: sequential(nn.ReLU(inplace=True), nn.Sigmoid(), nn.ReLU(), nn.ReLU()),
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


class Wrapped(nn.Module):
    """Hides the layers of a module."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


OTHER = {
    "unknown layer": lambda: sequential(nn.Hardswish()),
    "unknown module": lambda: Wrapped(sequential(nn.ReLU())),
    "unknown module after known layers": lambda: robust_classifier(
        module=Wrapped(MLP(N_FEATURES, N_CLASSES)),
        preprocessor=StandardScaler(),
        input_shape=(1, 2, 3),
    ),
    "elu in place": lambda: sequential(nn.ELU(inplace=True)),
    "subclass of a layer": lambda: sequential(Doubled(8, 8)),
    "subclass of Sequential": lambda: Reversed(nn.Linear(N_FEATURES, N_CLASSES)),
    "hook": with_hook,
    "one logit": lambda: nn.Sequential(nn.Linear(N_FEATURES, 1)),
    "activation last": lambda: nn.Sequential(nn.Linear(N_FEATURES, N_CLASSES), nn.ReLU()),
    "dropout in training": lambda: sequential(nn.Dropout(0.5)).train(),
}


def through_autograd(evaluate):
    return any(isinstance(op, AutogradOp) for op in evaluate.ops)


def by_autograd(view, z, grad_logits):
    leaf = z.clone().requires_grad_()
    logits = view(leaf)
    return logits.detach(), torch.autograd.grad(logits, leaf, grad_logits)[0]


def assert_close(actual, expected, rtol):
    """Compare up to rounding, relative to the largest value."""
    scale = expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=rtol * max(scale, 1e-30))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*LAYERWISE, *OTHER])
def test_same_bits_as_autograd(name, dtype):
    view = to_torch((LAYERWISE | OTHER)[name]())
    evaluate = logits_and_vjp(view)
    assert through_autograd(evaluate) == (name in OTHER)
    z = torch.from_numpy(X).to(dtype)
    before = z.clone()
    torch.manual_seed(0)
    logits, vjp = evaluate(z)
    grad_logits = torch.randn(logits.shape, dtype=logits.dtype)
    grad = vjp(grad_logits)

    torch.manual_seed(0)
    expected, expected_grad = by_autograd(view, z, grad_logits)
    assert torch.equal(logits, expected)
    assert torch.equal(grad, expected_grad)
    assert grad.dtype == dtype
    assert not logits.requires_grad
    assert not grad.requires_grad
    assert torch.equal(z, before)
    assert not z.requires_grad
    torch.manual_seed(0)
    assert torch.equal(evaluate.logits(z), logits)


@pytest.mark.parametrize("name", ["relu", "MLPClassifier relu", "unknown layer"])
def test_vjp_can_be_called_any_number_of_times(name):
    view = to_torch((LAYERWISE | OTHER)[name]())
    z = torch.from_numpy(X).float()
    logits, vjp = logits_and_vjp(view)(z)
    for row in [*torch.eye(N_CLASSES, dtype=logits.dtype), *torch.eye(N_CLASSES)[:1]]:
        grad_logits = row.to(logits).expand_as(logits)
        before = grad_logits.clone()
        assert torch.equal(vjp(grad_logits), by_autograd(view, z, grad_logits)[1])
        assert torch.equal(grad_logits, before)


IMAGE = (3, 12, 12)


def convolutional(*layers, shape=IMAGE):
    """Layers with a linear layer for three logits behind them, in evaluation mode."""
    torch.manual_seed(0)
    width = nn.Sequential(*layers).eval()(torch.zeros(2, *shape)).flatten(1).shape[1]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, N_CLASSES)).eval()


def trained(norm):
    """Batch normalization with statistics and weights as they are after training."""
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.1, 2)
        if norm.affine:
            norm.weight.normal_()
            norm.bias.normal_()
    return norm


CONVOLUTIONAL = {
    "plain": lambda: convolutional(nn.Conv2d(3, 8, 3)),
    "fold": lambda: convolutional(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()),
    "fold, strides": lambda: convolutional(nn.Conv2d(3, 40, (4, 3), stride=(2, 3), padding=(1, 0))),
    "fold, padding": lambda: convolutional(nn.Conv2d(3, 40, (2, 5), stride=(3, 2), padding=(4, 7))),
    "few channels, dilation": lambda: convolutional(nn.Conv2d(3, 32, 3, dilation=2, bias=False)),
    "strides": lambda: convolutional(nn.Conv2d(3, 8, (4, 3), stride=(2, 3), padding=(2, 0))),
    "groups": lambda: convolutional(nn.Conv2d(3, 6, 3, groups=3), nn.Tanh()),
    "same": lambda: convolutional(nn.Conv2d(3, 6, 3, padding="same", dilation=2)),
    "valid": lambda: convolutional(nn.Conv2d(3, 6, 3, padding="valid", stride=2)),
    "1 x 1": lambda: convolutional(nn.Conv2d(3, 5, 1), nn.SiLU(), nn.Conv2d(5, 7, 1)),
    "one pixel": lambda: convolutional(nn.Conv2d(3, 6, 12), nn.ReLU(), nn.Conv2d(6, 6, 1)),
    "two": lambda: convolutional(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 20, 5, 2)),
    "max pooling": lambda: convolutional(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3), nn.MaxPool2d(2)
    ),
    "overlapping max pooling": lambda: convolutional(
        nn.MaxPool2d(3, stride=1), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1, 2)
    ),
    "average pooling": lambda: convolutional(
        nn.AvgPool2d(3, 2, 1), nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d((2, 3))
    ),
    "average pooling, options": lambda: convolutional(
        nn.Conv2d(3, 8, 3), nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)
    ),
    "average pooling, divisor": lambda: convolutional(nn.AvgPool2d(2, divisor_override=3)),
    "batch normalization": lambda: convolutional(
        trained(nn.BatchNorm2d(3)),
        nn.Conv2d(3, 8, 3, bias=False),
        trained(nn.BatchNorm2d(8)),
        nn.ReLU(),
        nn.Conv2d(8, 32, 3),
        trained(nn.BatchNorm2d(32, eps=0.1, affine=False)),
        trained(nn.BatchNorm2d(32)),
        nn.MaxPool2d(2),
    ),
    "batch normalization of a fold": lambda: convolutional(
        nn.Conv2d(3, 32, 3), trained(nn.BatchNorm2d(32)), nn.ReLU(), nn.MaxPool2d(2)
    ),
    "batch normalization of features": lambda: convolutional(
        nn.Flatten(), nn.Linear(432, 9), trained(nn.BatchNorm1d(9)), nn.ReLU()
    ),
    "batch normalization of rows": lambda: convolutional(
        nn.Flatten(2), trained(nn.BatchNorm1d(3)), nn.ReLU()
    ),
    "dropout": lambda: convolutional(
        nn.Dropout2d(0.5), nn.Conv2d(3, 8, 3), nn.Dropout(0.5), nn.ReLU()
    ),
    "nested": lambda: convolutional(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Sequential(nn.MaxPool2d(2))
    ),
    "linear on pixels": lambda: convolutional(nn.Linear(12, 5), nn.ReLU(), nn.Conv2d(3, 5, 3)),
    "unflatten": lambda: convolutional(
        nn.Flatten(), nn.Unflatten(1, (3, 12, 12)), nn.Conv2d(3, 5, 3)
    ),
    "one channel": lambda: convolutional(
        nn.Conv2d(1, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 1, 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(1, 8, 2),
        shape=(1, 12, 12),
    ),
    "flattened twice": lambda: convolutional(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.ReLU()),
    "CNN": lambda: CNN(IMAGE, N_CLASSES).eval(),
}


class Flattening(nn.Module):
    """Calls ``view`` on its activations, which must be contiguous for that."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 5, 3)
        self.linear = nn.Linear(500, N_CLASSES)

    def forward(self, x):
        return self.linear(self.convolution(x).view(len(x), -1))


OTHER_CONVOLUTIONAL = {
    "reflection": lambda: convolutional(nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect")),
    "uneven padding": lambda: convolutional(nn.Conv2d(3, 6, 4, padding="same")),
    "without statistics": lambda: convolutional(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False)
    ),
    "module": lambda: Wrapped(CNN(IMAGE, N_CLASSES)).eval(),
    "module with view": Flattening,
}


def image_shape(module):
    first = next(child for child in module.modules() if isinstance(child, nn.Conv2d | nn.Linear))
    return (1, 12, 12) if getattr(first, "in_channels", 3) == 1 else IMAGE


@pytest.fixture(params=["contiguous", "channels last"])
def formats(request, monkeypatch):
    """Use either memory format for both dtypes."""
    dtypes = {torch.float32, torch.float64} if request.param == "channels last" else set()
    monkeypatch.setattr(_memory_format, "_CHANNELS_LAST", dtypes)


@pytest.mark.usefixtures("formats")
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("n_rows", [1, 7])
@pytest.mark.parametrize("name", [*CONVOLUTIONAL, *OTHER_CONVOLUTIONAL])
def test_convolutional_as_autograd(name, n_rows):
    module = (CONVOLUTIONAL | OTHER_CONVOLUTIONAL)[name]().double()
    view = to_torch(module)
    evaluate = logits_and_vjp(view)
    assert through_autograd(evaluate) == (name in OTHER_CONVOLUTIONAL)
    z = torch.randn(n_rows, *image_shape(module), dtype=torch.float64)
    before = z.clone()
    logits, vjp = evaluate(z)
    for _ in range(2):
        grad_logits = torch.randn_like(logits)
        grad = vjp(grad_logits)
        expected, expected_grad = by_autograd(view, z, grad_logits)
        assert_close(logits, expected, 1e-13)
        assert_close(grad, expected_grad, 1e-13)
        assert torch.equal(grad, vjp(grad_logits))
        assert grad.is_contiguous()
        assert not grad.requires_grad
        assert not logits.requires_grad
    assert torch.equal(z, before)
    again, vjp_again = evaluate(z)
    assert torch.equal(again, logits)
    assert torch.equal(vjp_again(grad_logits), grad)
    assert torch.equal(evaluate.logits(z), logits)


def random_network(rng):
    """A convolutional network of random layers for random images."""

    def pick(*options):
        return options[rng.integers(len(options))]

    def activation():
        kinds = (nn.ReLU, nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus)
        return pick(*kinds, nn.LeakyReLU, nn.Identity, nn.Dropout)()

    shape = (pick(1, 2, 3, 4), *rng.integers(14, 18, size=2).tolist())
    layers, depth = [], shape[0]
    for _ in range(rng.integers(1, 4)):
        groups = pick(1, 1, depth)
        next_depth = groups * pick(1, 2, 5, 24)
        window = {
            "kernel_size": pick(1, 2, 3, (3, 2)),
            "stride": pick(1, 1, 2, (1, 2)),
            "padding": pick(0, 1, (1, 2), "valid"),
            "dilation": pick(1, 1, (1, 2)),
        }
        layers.append(nn.Conv2d(depth, next_depth, **window, groups=groups, bias=pick(True, False)))
        depth = next_depth
        if pick(True, False):
            layers.append(trained(nn.BatchNorm2d(depth, affine=pick(True, False))))
        layers.append(activation())
        if pick(True, False):
            window = (pick(2, (1, 2)), pick(None, 1), pick(0, (0, 1)))
            pooling = pick(nn.MaxPool2d, nn.AvgPool2d)
            layers.append(pooling(*window, ceil_mode=pick(True, False)))
    head = [nn.LazyLinear(6), nn.ReLU(), nn.Linear(6, 4)]
    network = nn.Sequential(nn.Sequential(*layers), nn.Flatten(), *head).eval()
    network(torch.zeros(1, *shape))
    return network.double(), shape


@pytest.mark.usefixtures("formats")
@pytest.mark.parametrize("seed", range(60))
def test_random_networks_as_autograd(seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network, shape = random_network(rng)
    z = torch.randn(int(rng.integers(1, 9)), *shape, dtype=torch.float64)
    evaluate = logits_and_vjp(to_torch(network))
    assert not through_autograd(evaluate)
    logits, vjp = evaluate(z)
    grad_logits = torch.randn_like(logits)
    expected, expected_grad = by_autograd(network, z, grad_logits)
    assert_close(logits, expected, 1e-12)
    assert_close(vjp(grad_logits), expected_grad, 1e-12)
    assert_close(evaluate.logits(z), expected, 1e-12)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_convolutional_in_single_precision(name):
    module = CONVOLUTIONAL[name]()
    z = torch.randn(5, *image_shape(module))
    evaluate = logits_and_vjp(to_torch(module))
    logits, vjp = evaluate(z)
    grad_logits = torch.randn_like(logits)
    grad = vjp(grad_logits)
    alone = evaluate.logits(z)
    expected, expected_grad = by_autograd(module.double(), z.double(), grad_logits.double())
    assert_close(logits.double(), expected, 2e-6)
    assert_close(grad.double(), expected_grad, 2e-6)
    assert_close(alone.double(), expected, 2e-6)


@pytest.mark.parametrize("seed", range(60))
def test_outputs_alone_in_single_precision(seed):
    torch.manual_seed(seed)
    network, shape = random_network(np.random.default_rng(seed))
    evaluate = logits_and_vjp(to_torch(deepcopy(network).float()))
    for n_rows in (1, 5):
        for z in (
            torch.randn(n_rows, *shape),
            torch.randn(n_rows, *reversed(shape)).permute(0, 3, 2, 1),
            torch.randn(1, *shape).expand(n_rows, *shape),
        ):
            before = z.clone()
            actual, expected = evaluate.logits(z), network(z.double())
            assert_close(actual.double(), expected, 1e-5)
            assert torch.equal(z, before)
            assert torch.equal(actual, evaluate.logits(z))


@pytest.mark.usefixtures("formats")
@pytest.mark.parametrize("rectified", [True, False])
def test_pooling_with_ties(rectified):
    # All values are small integers: no rounding breaks a tie.
    first = nn.Conv2d(2, 24, 3)
    layers = [first, nn.ReLU() if rectified else nn.Identity(), nn.MaxPool2d(3, stride=2)]
    module = convolutional(*layers, shape=(2, 12, 12)).double()
    with torch.no_grad():
        first.weight.copy_(torch.randint(-1, 2, first.weight.shape))
        first.bias.copy_(torch.randint(-1, 2, first.bias.shape))
    z = torch.randint(-1, 2, (6, 2, 12, 12)).double()
    logits, vjp = logits_and_vjp(to_torch(module))(z)
    grad_logits = torch.randn_like(logits)
    expected, expected_grad = by_autograd(module, z, grad_logits)
    assert_close(logits, expected, 1e-14)
    assert_close(vjp(grad_logits), expected_grad, 1e-14)


LAYOUTS = {
    "channels last": lambda z: z.contiguous(memory_format=torch.channels_last),
    "transposed": lambda z: z.transpose(0, 3).contiguous().transpose(0, 3),
    "strided": lambda z: torch.stack([z, z], dim=3)[..., 0, :],
    "reversed": lambda z: z.flip(0, 2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("module", ["max pooling", "fold", "average pooling", "module"])
def test_layout_of_the_input_makes_no_difference(layout, module):
    module = (CONVOLUTIONAL | OTHER_CONVOLUTIONAL)[module]().double()
    evaluate = logits_and_vjp(to_torch(module))
    z = LAYOUTS[layout](torch.randn(4, *IMAGE, dtype=torch.float64))
    grad_logits = torch.randn(4, N_CLASSES, dtype=torch.float64)
    before, strides = z.clone(), z.stride()
    logits, vjp = evaluate(z)
    expected, expected_grad = by_autograd(module, z.contiguous(), grad_logits)
    assert_close(logits, expected, 1e-14)
    assert_close(vjp(grad_logits), expected_grad, 1e-14)
    assert torch.equal(z, before)
    assert z.stride() == strides


def test_rows_do_not_depend_on_the_batch():
    module = CONVOLUTIONAL["max pooling"]()
    z, grad_logits = torch.randn(50, *IMAGE), torch.randn(50, N_CLASSES)
    evaluate = logits_and_vjp(to_torch(module))
    whole, vjp = evaluate(z)
    grad = vjp(grad_logits)
    for rows in (slice(1), slice(3, 20), slice(None)):
        logits, vjp = evaluate(z[rows])
        assert_close(logits, whole[rows], 1e-6)
        assert_close(vjp(grad_logits[rows]), grad[rows], 1e-6)
        assert torch.equal(evaluate.logits(z[rows]), logits)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_no_rows(name):
    module = CONVOLUTIONAL[name]()
    shape = image_shape(module)
    evaluate = logits_and_vjp(to_torch(module))
    logits, vjp = evaluate(torch.zeros(0, *shape))
    assert logits.shape == (0, N_CLASSES)
    assert vjp(logits).shape == (0, *shape)
    assert evaluate.logits(torch.zeros(0, *shape)).shape == (0, N_CLASSES)


def state(module):
    tensors = [*module.parameters(), *module.buffers()]
    return [(id(t), t.data_ptr(), t.stride(), t._version, t.requires_grad, t.grad) for t in tensors]


@pytest.mark.parametrize("name", ["batch normalization", "fold", "module", "module with view"])
def test_module_stays_as_it_was(name):
    module = (CONVOLUTIONAL | OTHER_CONVOLUTIONAL)[name]()
    before = state(module)
    evaluate = logits_and_vjp(to_torch(module))
    logits, vjp = evaluate(torch.randn(4, *IMAGE))
    vjp(torch.ones_like(logits))
    evaluate.logits(torch.randn(4, *IMAGE))
    assert state(module) == before


@pytest.mark.parametrize("name", ["relu", "max pooling", "fold", "batch normalization", "module"])
def test_nothing_is_kept(name):
    everything = LAYERWISE | CONVOLUTIONAL | OTHER_CONVOLUTIONAL
    evaluate = logits_and_vjp(to_torch(everything[name]()))
    z = torch.from_numpy(X).float() if name == "relu" else torch.randn(4, *IMAGE)

    def n_tensors():
        return sum(type(thing) is torch.Tensor for thing in gc.get_objects())

    def run():
        logits, vjp = evaluate(z)
        vjp(torch.ones_like(logits))
        evaluate.logits(z)

    run()
    gc.collect()
    gc.disable()  # so that reference cycles are noticed
    try:
        before = n_tensors()
        run()
        assert n_tensors() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["relu", "max pooling", "fold", "batch normalization", "module"])
def test_a_new_one_has_the_new_weights(name):
    module = (LAYERWISE | CONVOLUTIONAL | OTHER_CONVOLUTIONAL)[name]()
    evaluate = logits_and_vjp(to_torch(module))
    z = torch.from_numpy(X).float() if name == "relu" else torch.randn(4, *IMAGE)
    before, vjp = evaluate(z)
    grad_logits = torch.randn_like(before)
    vjp(grad_logits)
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data.mul_(1.5)  # does not change the version counter of torch
    evaluate = logits_and_vjp(to_torch(module))
    after, vjp = evaluate(z)
    expected, expected_grad = by_autograd(module, z, grad_logits)
    assert not torch.allclose(before, after)
    assert_close(after, expected, 1e-5)
    assert_close(vjp(grad_logits), expected_grad, 1e-5)
    assert_close(evaluate.logits(z), expected, 1e-5)


@pytest.mark.parametrize("name", ["max pooling", "batch normalization", "dropout", "module"])
def test_format_of_training(name):
    module = (CONVOLUTIONAL | OTHER_CONVOLUTIONAL)[name]().train()
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    values = [layer.weight.detach().clone() for layer in layers]
    one_dnn = torch.backends.mkldnn.is_available()
    with training_memory_format(to_torch(module)):
        for layer in layers:
            wanted = one_dnn and name != "module"
            # With one channel, is_contiguous is true for both formats; the strides differ.
            assert (layer.weight.stride(1) == 1 and layer.weight.stride(3) != 1) == wanted
        assert module.training
    for layer, value in zip(layers, values, strict=True):
        assert torch.equal(layer.weight, value)
        assert layer.weight.stride() == value.stride()


def test_images_as_rows_and_preprocessed():
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(40, 432)), rng.integers(3, size=40)
    clf = RobustClassifier(
        "cnn",
        defense=StandardTraining(),
        preprocessor=StandardScaler(),
        input_shape=IMAGE,
        max_epochs=1,
        random_state=0,
    ).fit(rows, labels)
    view = to_torch(clf)
    evaluate = logits_and_vjp(view)
    assert not through_autograd(evaluate)
    assert sum(isinstance(op, ConvolutionOp) for op in evaluate.ops) == 2
    z = torch.from_numpy(rows)
    logits, vjp = evaluate(z)
    grad_logits = torch.randn_like(logits)
    expected, expected_grad = by_autograd(view, z, grad_logits)
    assert_close(logits, expected, 1e-5)
    assert_close(vjp(grad_logits), expected_grad, 1e-5)
    assert vjp(grad_logits).dtype == torch.float64


def test_error_of_the_module_is_raised():
    evaluate = logits_and_vjp(to_torch(Flattening()))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        evaluate(torch.randn(2, 3, 13, 13))


def test_parameters_get_no_gradients():
    module = sequential(nn.ReLU())
    logits, vjp = logits_and_vjp(to_torch(module))(torch.from_numpy(X).float())
    vjp(torch.ones_like(logits))
    assert all(parameter.grad is None for parameter in module.parameters())
    assert np.all([parameter.requires_grad for parameter in module.parameters()])


def kinds(ops):
    return [type(op).__name__ for op in ops]


def test_layer_ops():
    known = convolutional(nn.Conv2d(3, 8, 3), trained(nn.BatchNorm2d(8)), nn.ReLU())
    expected = ["CastOp", "ConvolutionOp", "BatchNormOp", "ReLUOp", "FlattenOp", "LinearOp"]
    assert kinds(layer_ops(to_torch(known))) == expected
    assert layer_ops(to_torch(Wrapped(known))) is None


@pytest.mark.usefixtures("formats")
@pytest.mark.parametrize("formats", ["channels last"], indirect=True)
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_fusions():
    norms = [trained(nn.BatchNorm2d(32)) for _ in range(2)]
    module = convolutional(nn.Conv2d(3, 32, 3), *norms, nn.ReLU(), nn.MaxPool2d(2))
    ops = logits_and_vjp(to_torch(module)).ops
    expected = ["CastOp", "FoldedConvolutionOp", "MaxPoolOp", "ReLUOp", "ChannelsLastLinearOp"]
    assert kinds(ops) == expected
    assert ops[3].in_place


@pytest.mark.parametrize(
    ("layers", "in_place"),
    [
        ([nn.Linear(6, 8), nn.ReLU()], [True]),
        ([nn.ReLU(), nn.Linear(6, 8)], [False]),  # the input belongs to the caller
        ([nn.Linear(6, 8), nn.Tanh(), nn.ReLU()], [False]),  # tanh needs its output
        ([nn.Linear(6, 8), nn.ReLU(), nn.ReLU()], [False, False]),
        ([nn.Linear(6, 8), nn.Unflatten(1, (2, 4)), nn.ReLU(), nn.Flatten()], [True]),
    ],
)
def test_where_relu_is_in_place(layers, in_place):
    module = nn.Sequential(*layers, nn.Linear(8, N_CLASSES))
    ops = logits_and_vjp(to_torch(module)).ops
    assert [op.in_place for op in ops if isinstance(op, ReLUOp)] == in_place


@pytest.mark.parametrize("before", [False, True])
def test_cudnn_sums_in_one_order(monkeypatch, before):
    # The effect needs a GPU; that the setting is on inside and restored outside does not.
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", before)
    with deterministic_convolutions():
        assert torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.deterministic == before
