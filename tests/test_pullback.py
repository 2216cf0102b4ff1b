"""The shortcut around autograd gives what autograd gives."""

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
from skrobust.differentiable import _memory_format
from skrobust.differentiable._pullback import pullback
from skrobust.differentiable._steps import Autograd, Blocks, Convolution
from skrobust.differentiable._training_format import training_format
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
    """Hides what is inside."""

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


def through_autograd(linearize):
    return any(isinstance(step, Autograd) for step in linearize.chain)


def by_autograd(view, z, direction):
    leaf = z.clone().requires_grad_()
    logits = view(leaf)
    return logits.detach(), torch.autograd.grad(logits, leaf, direction)[0]


def assert_close(actual, expected, rtol):
    """Up to rounding, which is relative to the largest value."""
    scale = expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=rtol * max(scale, 1e-30))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*LAYERWISE, *OTHER])
def test_same_bits_as_autograd(name, dtype):
    view = to_torch((LAYERWISE | OTHER)[name]())
    linearize = pullback(view)
    assert through_autograd(linearize) == (name in OTHER)
    z = torch.from_numpy(X).to(dtype)
    before = z.clone()
    torch.manual_seed(0)
    logits, pull = linearize(z)
    direction = torch.randn(logits.shape, dtype=logits.dtype)
    grad = pull(direction)

    torch.manual_seed(0)
    expected, expected_grad = by_autograd(view, z, direction)
    assert torch.equal(logits, expected)
    assert torch.equal(grad, expected_grad)
    assert grad.dtype == dtype
    assert not logits.requires_grad
    assert not grad.requires_grad
    assert torch.equal(z, before)
    assert not z.requires_grad
    torch.manual_seed(0)
    assert torch.equal(linearize.logits(z), logits)


@pytest.mark.parametrize("name", ["relu", "MLPClassifier relu", "unknown layer"])
def test_pulls_back_any_number_of_directions(name):
    view = to_torch((LAYERWISE | OTHER)[name]())
    z = torch.from_numpy(X).float()
    logits, pull = pullback(view)(z)
    for direction in [*torch.eye(N_CLASSES, dtype=logits.dtype), *torch.eye(N_CLASSES)[:1]]:
        direction = direction.to(logits).expand_as(logits)
        before = direction.clone()
        assert torch.equal(pull(direction), by_autograd(view, z, direction)[1])
        assert torch.equal(direction, before)


IMAGE = (3, 12, 12)


def convolutional(*layers, shape=IMAGE):
    """Layers, and what makes three logits of them, all in evaluation mode."""
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
    "CNN": lambda: CNN(IMAGE, N_CLASSES).eval(),
}


class Flattening(nn.Module):
    """Looks at its activations by ``view``, which needs them contiguous."""

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
    """Both memory formats in both precisions."""
    dtypes = {torch.float32, torch.float64} if request.param == "channels last" else set()
    monkeypatch.setattr(_memory_format, "_CHANNELS_LAST", dtypes)


@pytest.mark.usefixtures("formats")
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("n_rows", [1, 7])
@pytest.mark.parametrize("name", [*CONVOLUTIONAL, *OTHER_CONVOLUTIONAL])
def test_convolutional_as_autograd(name, n_rows):
    module = (CONVOLUTIONAL | OTHER_CONVOLUTIONAL)[name]().double()
    view = to_torch(module)
    linearize = pullback(view)
    assert through_autograd(linearize) == (name in OTHER_CONVOLUTIONAL)
    z = torch.randn(n_rows, *image_shape(module), dtype=torch.float64)
    before = z.clone()
    logits, pull = linearize(z)
    for _ in range(2):
        direction = torch.randn_like(logits)
        grad = pull(direction)
        expected, expected_grad = by_autograd(view, z, direction)
        assert_close(logits, expected, 1e-13)
        assert_close(grad, expected_grad, 1e-13)
        assert torch.equal(grad, pull(direction))
        assert grad.is_contiguous()
        assert not grad.requires_grad
        assert not logits.requires_grad
    assert torch.equal(z, before)
    again, pull_again = linearize(z)
    assert torch.equal(again, logits)
    assert torch.equal(pull_again(direction), grad)
    assert_close(linearize.logits(z), logits, 1e-13)


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
    linearize = pullback(to_torch(network))
    assert not through_autograd(linearize)
    logits, pull = linearize(z)
    direction = torch.randn_like(logits)
    expected, expected_grad = by_autograd(network, z, direction)
    assert_close(logits, expected, 1e-12)
    assert_close(pull(direction), expected_grad, 1e-12)
    assert_close(linearize.logits(z), expected, 1e-12)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_convolutional_in_single_precision(name):
    module = CONVOLUTIONAL[name]()
    z = torch.randn(5, *image_shape(module))
    linearize = pullback(to_torch(module))
    logits, pull = linearize(z)
    direction = torch.randn_like(logits)
    grad = pull(direction)
    alone = linearize.logits(z)
    expected, expected_grad = by_autograd(module.double(), z.double(), direction.double())
    assert_close(logits.double(), expected, 2e-6)
    assert_close(grad.double(), expected_grad, 2e-6)
    assert_close(alone.double(), expected, 2e-6)


def in_blocks(linearize):
    return any(isinstance(step, Blocks) for step in linearize.forward_alone)


@pytest.mark.parametrize("seed", range(60))
def test_outputs_alone_in_single_precision(seed):
    torch.manual_seed(seed)
    network, shape = random_network(np.random.default_rng(seed))
    linearize = pullback(to_torch(deepcopy(network).float()))
    for n_rows in (1, 5):
        for z in (
            torch.randn(n_rows, *shape),
            torch.randn(n_rows, *reversed(shape)).permute(0, 3, 2, 1),
            torch.randn(1, *shape).expand(n_rows, *shape),
        ):
            before = z.clone()
            actual, expected = linearize.logits(z), network(z.double())
            assert_close(actual.double(), expected, 1e-5)
            assert torch.equal(z, before)
            assert torch.equal(actual, linearize.logits(z))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_where_outputs_alone_are_computed_in_blocks():
    first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 20, 5, 2)

    def computed_in_blocks(*layers):
        return in_blocks(pullback(to_torch(convolutional(*layers))))

    assert computed_in_blocks(first, nn.ReLU(), second)
    assert computed_in_blocks(
        first, trained(nn.BatchNorm2d(8)), nn.MaxPool2d(2), nn.Identity(), second, nn.Tanh()
    )
    assert not computed_in_blocks(first, nn.ReLU())
    assert not computed_in_blocks(first, nn.Tanh(), second)
    assert computed_in_blocks(first, nn.AvgPool2d(2), second)
    assert not computed_in_blocks(first, nn.AvgPool2d(2, divisor_override=3), second)
    assert not computed_in_blocks(first, nn.AvgPool2d(2, ceil_mode=True), second)
    assert not computed_in_blocks(first, nn.MaxPool2d(2, dilation=2), nn.Conv2d(8, 4, 2))
    assert not in_blocks(pullback(to_torch(convolutional(first, second).double())))


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
    logits, pull = pullback(to_torch(module))(z)
    direction = torch.randn_like(logits)
    expected, expected_grad = by_autograd(module, z, direction)
    assert_close(logits, expected, 1e-14)
    assert_close(pull(direction), expected_grad, 1e-14)


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
    linearize = pullback(to_torch(module))
    z = LAYOUTS[layout](torch.randn(4, *IMAGE, dtype=torch.float64))
    direction = torch.randn(4, N_CLASSES, dtype=torch.float64)
    before, strides = z.clone(), z.stride()
    logits, pull = linearize(z)
    expected, expected_grad = by_autograd(module, z.contiguous(), direction)
    assert_close(logits, expected, 1e-14)
    assert_close(pull(direction), expected_grad, 1e-14)
    assert torch.equal(z, before)
    assert z.stride() == strides


@pytest.mark.parametrize("blocks", [True, False])
def test_rows_do_not_depend_on_the_batch(monkeypatch, blocks):
    if not blocks:
        monkeypatch.setattr(_memory_format, "_WORTH_BLOCKS", 1_000)
    module = CONVOLUTIONAL["max pooling"]()
    z, direction = torch.randn(50, *IMAGE), torch.randn(50, N_CLASSES)
    whole, pull = pullback(to_torch(module))(z)
    grad = pull(direction)
    monkeypatch.setattr(_memory_format, "_VALUES_A_PIECE", 4000)  # 5 rows
    linearize = pullback(to_torch(module))
    for rows in (slice(1), slice(3, 20), slice(None)):
        logits, pull = linearize(z[rows])
        assert_close(logits, whole[rows], 1e-6)
        assert_close(pull(direction[rows]), grad[rows], 1e-6)
        alone = linearize.logits(z[rows])
        assert_close(alone, whole[rows], 1e-6)
        # In the same memory format the bits are the same.
        assert blocks or torch.equal(alone, logits)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_no_rows(name):
    module = CONVOLUTIONAL[name]()
    shape = image_shape(module)
    linearize = pullback(to_torch(module))
    logits, pull = linearize(torch.zeros(0, *shape))
    assert logits.shape == (0, N_CLASSES)
    assert pull(logits).shape == (0, *shape)
    assert linearize.logits(torch.zeros(0, *shape)).shape == (0, N_CLASSES)


def state(module):
    tensors = [*module.parameters(), *module.buffers()]
    return [(id(t), t.data_ptr(), t.stride(), t._version, t.requires_grad, t.grad) for t in tensors]


@pytest.mark.parametrize("name", ["batch normalization", "fold", "module", "module with view"])
def test_module_stays_as_it_was(name):
    module = (CONVOLUTIONAL | OTHER_CONVOLUTIONAL)[name]()
    before = state(module)
    linearize = pullback(to_torch(module))
    logits, pull = linearize(torch.randn(4, *IMAGE))
    pull(torch.ones_like(logits))
    linearize.logits(torch.randn(4, *IMAGE))
    assert state(module) == before


@pytest.mark.parametrize("name", ["relu", "max pooling", "fold", "batch normalization", "module"])
def test_nothing_is_kept(name):
    everything = LAYERWISE | CONVOLUTIONAL | OTHER_CONVOLUTIONAL
    linearize = pullback(to_torch(everything[name]()))
    z = torch.from_numpy(X).float() if name == "relu" else torch.randn(4, *IMAGE)

    def n_tensors():
        return sum(type(thing) is torch.Tensor for thing in gc.get_objects())

    def run():
        logits, pull = linearize(z)
        pull(torch.ones_like(logits))
        linearize.logits(z)

    run()
    gc.collect()
    gc.disable()  # so that a cycle would be seen
    try:
        before = n_tensors()
        run()
        assert n_tensors() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["relu", "max pooling", "fold", "batch normalization", "module"])
def test_a_new_one_has_the_new_weights(name):
    module = (LAYERWISE | CONVOLUTIONAL | OTHER_CONVOLUTIONAL)[name]()
    linearize = pullback(to_torch(module))
    z = torch.from_numpy(X).float() if name == "relu" else torch.randn(4, *IMAGE)
    before, pull = linearize(z)
    direction = torch.randn_like(before)
    pull(direction)
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data.mul_(1.5)  # which torch does not count as a change
    linearize = pullback(to_torch(module))
    after, pull = linearize(z)
    expected, expected_grad = by_autograd(module, z, direction)
    assert not torch.allclose(before, after)
    assert_close(after, expected, 1e-5)
    assert_close(pull(direction), expected_grad, 1e-5)
    assert_close(linearize.logits(z), expected, 1e-5)


@pytest.mark.parametrize("name", ["max pooling", "batch normalization", "dropout", "module"])
def test_format_of_training(name):
    module = (CONVOLUTIONAL | OTHER_CONVOLUTIONAL)[name]().train()
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    values = [layer.weight.detach().clone() for layer in layers]
    one_dnn = torch.backends.mkldnn.is_available()
    with training_format(to_torch(module)):
        for layer in layers:
            wanted = one_dnn and name != "module"
            # Strides, as is_contiguous holds for both where there is one channel.
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
    linearize = pullback(view)
    assert not through_autograd(linearize)
    assert sum(isinstance(step, Convolution) for step in linearize.chain) == 2
    z = torch.from_numpy(rows)
    logits, pull = linearize(z)
    direction = torch.randn_like(logits)
    expected, expected_grad = by_autograd(view, z, direction)
    assert_close(logits, expected, 1e-5)
    assert_close(pull(direction), expected_grad, 1e-5)
    assert pull(direction).dtype == torch.float64


def test_error_of_the_module_is_raised():
    linearize = pullback(to_torch(Flattening()))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        linearize(torch.randn(2, 3, 13, 13))


def test_parameters_get_no_gradients():
    module = sequential(nn.ReLU())
    logits, pull = pullback(to_torch(module))(torch.from_numpy(X).float())
    pull(torch.ones_like(logits))
    assert all(parameter.grad is None for parameter in module.parameters())
    assert np.all([parameter.requires_grad for parameter in module.parameters()])
