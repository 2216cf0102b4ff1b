"""The networks that RobustClassifier knows by name."""

import pytest
import torch
from torch import nn

from skrobust.nn import CNN, MLP

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}


def kinds(module):
    return [type(layer) for layer in module]


def widths(module):
    return [(m.in_features, m.out_features) for m in module if isinstance(m, nn.Linear)]


def test_mlp():
    mlp = MLP(5, 3)
    assert kinds(mlp) == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert widths(mlp) == [(5, 128), (128, 128), (128, 3)]
    assert mlp(torch.zeros(7, 5)).shape == (7, 3)
    assert widths(MLP(5, 2, hidden=[4])) == [(5, 4), (4, 2)]


def test_mlp_without_hidden_layers_is_linear():
    mlp = MLP(5, 3, hidden=())
    assert kinds(mlp) == [nn.Flatten, nn.Linear]
    x = torch.rand(4, 5)
    assert torch.allclose(mlp(x) + mlp(3 * x), 2 * mlp(2 * x), atol=1e-6)


def test_mlp_flattens():
    mlp = MLP(12, 2, hidden=(4,))
    x = torch.rand(6, 3, 2, 2)
    assert torch.equal(mlp(x), mlp(x.flatten(1)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation):
    assert kinds(MLP(5, 3, hidden=(4,), activation=activation))[2] is ACTIVATIONS[activation]
    cnn = CNN((1, 8, 8), 3, activation=activation)
    assert kinds(cnn).count(ACTIVATIONS[activation]) == 3


def test_mlp_dropout():
    mlp = MLP(5, 3, hidden=(64, 64), dropout=0.5)
    assert [layer.p for layer in mlp if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert kinds(mlp)[-1] is nn.Linear  # logits are not dropped
    x = torch.rand(4, 5)
    assert not torch.equal(mlp(x), mlp(x))
    mlp.eval()
    assert torch.equal(mlp(x), mlp(x))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 4, 4), (1, 9, 6), (1, 5, 13)])
def test_cnn_shapes(shape):
    assert CNN(shape, 10)(torch.zeros(2, *shape)).shape == (2, 10)


def test_cnn():
    """With the defaults the network of Wong & Kolter for MNIST."""
    cnn = CNN((1, 28, 28), 10)
    convolutions = [m for m in cnn if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(1, 16), (16, 32)]
    assert {(c.kernel_size, c.stride, c.padding) for c in convolutions} == {
        ((4, 4), (2, 2), (1, 1))
    }
    assert widths(cnn) == [(32 * 7 * 7, 100), (100, 10)]
    assert sum(p.numel() for p in cnn.parameters()) == 166406
    small = CNN([3, 16, 8], 2, channels=(4,), hidden=6)
    assert widths(small) == [(4 * 8 * 4, 6), (6, 2)]


@pytest.mark.parametrize("shape", [(64,), (8, 8), (1, 3, 8), (1, 8, 3), (2, 1, 8, 8)])
def test_cnn_needs_images(shape):
    with pytest.raises(
        ValueError, match=r"input_shape=\(channels, height, width\).*at least 4 x 4"
    ):
        CNN(shape, 3)
    with pytest.raises(ValueError, match="at least 32 x 32"):
        CNN((1, 28, 28), 3, channels=(4,) * 5)


@pytest.mark.parametrize("make", [lambda **k: MLP(5, 3, **k), lambda **k: CNN((1, 8, 8), 3, **k)])
def test_unknown_activation(make):
    with pytest.raises(ValueError, match=r"activation must be one of .*relu.*'sigmoid'"):
        make(activation="sigmoid")


@pytest.mark.parametrize("module", [MLP(5, 3), CNN((1, 8, 8), 3)], ids=["MLP", "CNN"])
def test_slices_are_modules(module):
    """What a user does with a Sequential, to get at the features before the logits."""
    head = module[:-1]
    x = torch.zeros(2, 5) if isinstance(module, MLP) else torch.zeros(2, 1, 8, 8)
    assert torch.equal(module[-1](head(x)), module(x))
