"""Measurements behind the settings: batch size, memory formats and folded gradients."""

from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from skrobust import to_torch
from skrobust.attacks import PGD
from skrobust.differentiable.runtime import (
    _convolution,
    _memory_format,
    logits_and_vjp,
    training_memory_format,
)
from skrobust.differentiable.runtime._convolution import ConvolutionOp, FoldedConvolutionOp

from ._tools import digits, digits_mlp, lenet, mnist, mnist_cnn, ratio, table


def batch_sizes():
    """Time of an attack by batch size, relative to the automatic one."""
    X_digits, _, y_digits, _ = digits()
    X_digits = np.tile(X_digits.astype(np.float32), (4, 1))
    X_mnist, y_mnist = mnist("train", 1024)
    rows = []
    for name, model, X, y, sizes in [
        ("MLP, 64 features", digits_mlp(), X_digits, np.tile(y_digits, 4), (64, 256, 1024, 4096)),
        ("MNIST CNN, 784 features", mnist_cnn(), X_mnist, y_mnist, (64, 256, 1024)),
    ]:
        for size in sizes:
            attacks = [PGD(n_steps=5, batch_size=b, random_state=0) for b in (size, "auto")]
            runs = [partial(attack.perturb, model, X, y) for attack in attacks]
            quotient, *_ = ratio(*runs, rounds=5)
            rows.append([name, size, f"{quotient:.2f}"])
    return table(["model", "batch_size", "time / time at auto"], rows)


def vgg():
    layers, depth = [], 3
    for width in (32, 64, 128):
        for in_channels in (depth, width):
            layers += [nn.Conv2d(in_channels, width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        depth = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 10))


class Wrapped(nn.Module):
    """Hides the layers of a module, so that it goes through autograd."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def gradient(view, x, grad_logits):
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(view(leaf), leaf, grad_logits)[0]


SETTINGS = {
    "channels last": (_memory_format, "_CHANNELS_LAST", set()),
    "fold": (_convolution, "folds", lambda *_: False),
}


def without(setting, view, x, grad_logits):
    """Function for a forward pass and one to the input, without one of the settings."""
    with patch.object(*SETTINGS[setting]) if setting else nullcontext():
        evaluate = logits_and_vjp(view)

    def passes():
        _, vjp = evaluate(x)
        vjp(grad_logits)

    return passes


def memory_formats():
    """Time of a forward pass and one to the input, relative to autograd on the module itself."""
    rows = []
    for name, make, shape in [
        ("MNIST CNN", mnist_cnn, (64, 1, 28, 28)),
        ("MNIST CNN", mnist_cnn, (256, 1, 28, 28)),
        ("MNIST CNN", mnist_cnn, (334, 1, 28, 28)),
        ("LeNet", lenet, (64, 1, 28, 28)),
        ("LeNet", lenet, (256, 1, 28, 28)),
        ("LeNet", lenet, (334, 1, 28, 28)),
        ("VGG", vgg, (85, 3, 32, 32)),
    ]:
        view = to_torch(make().eval().requires_grad_(False))
        x, grad_logits = torch.rand(shape), torch.randn(shape[0], 10)
        converted = deepcopy(view).to(memory_format=torch.channels_last)
        x_converted = _memory_format.to_channels_last(x)
        runs = [
            partial(gradient, converted, x_converted, grad_logits),
            without(None, to_torch(Wrapped(view.module)), x, grad_logits),
            *(without(setting, view, x, grad_logits) for setting in (None, *SETTINGS)),
        ]
        reference = partial(gradient, view, x, grad_logits)
        quotients = [f"{ratio(run, reference, rounds=9)[0]:.2f}" for run in runs]
        rows.append([name, shape[0], *quotients])
    header = ["model", "rows", "autograd, all channels last", "autograd, input channels last"]
    header += ["logits_and_vjp", "without channels last", "without fold"]
    return table(header, rows)


def linear_networks():
    """Time of 50 forward passes and passes to the input, relative to autograd."""
    rows = []
    view = to_torch(digits_mlp().eval().requires_grad_(False))
    for n_rows in (16, 64, 256, 1024):
        x, grad_logits = torch.rand(n_rows, 64), torch.randn(n_rows, 10)
        passes = without(None, view, x, grad_logits), partial(gradient, view, x, grad_logits)
        runs = (partial(repeat, run, 50) for run in passes)
        quotient, *_ = ratio(*runs, rounds=15)
        rows.append(["digits MLP", n_rows, f"{quotient:.2f}"])
    return table(["model", "rows", "logits_and_vjp / autograd"], rows)


def repeat(run, n_times):
    for _ in range(n_times):
        run()


def logits_alone():
    """Time of logits alone, relative to the module itself."""
    rows = []
    for name, make, shape in [
        ("MNIST CNN", mnist_cnn, (1, 28, 28)),
        ("LeNet", lenet, (1, 28, 28)),
        ("VGG", vgg, (3, 32, 32)),
    ]:
        module = make().eval().requires_grad_(False)
        evaluate = logits_and_vjp(to_torch(module))
        for n_rows in (16, 85, 256):
            x = torch.rand(n_rows, *shape)
            runs = partial(evaluate.logits, x), torch.no_grad()(partial(module, x))
            quotient, *_ = ratio(*runs, rounds=9)
            rows.append([name, n_rows, f"{quotient:.2f}"])
    return table(["model", "rows", "logits / module"], rows)


def folds():
    """Time of the folded gradient of a convolution, relative to the gradient of oneDNN."""
    rows = []
    for n_in, n_out, kernel_size, stride in [
        (1, 16, 4, 2),
        (1, 20, 5, 1),
        (2, 16, 3, 1),
        (3, 16, 3, 1),
        (3, 32, 3, 1),
        (3, 64, 7, 2),
        (4, 32, 3, 1),
        (4, 64, 3, 1),
        (8, 64, 3, 1),
        (16, 32, 4, 2),
    ]:
        layer = nn.Conv2d(n_in, n_out, kernel_size, stride, padding=1).requires_grad_(False)
        x = torch.rand(64, n_in, 28, 28)
        window = (layer.stride, layer.padding, layer.dilation)
        kinds = (FoldedConvolutionOp, ConvolutionOp)
        folded, plain = (kind(layer.weight, layer.bias, window, 1) for kind in kinds)
        out, saved = plain.forward(x)
        runs = (partial(op.vjp, out, saved) for op in (folded, plain))
        quotient, *_ = ratio(*runs, rounds=25)
        rule = "fold" if _convolution.folds(layer.weight, 1, layer.dilation) else "oneDNN"
        rows.append([n_in, n_out, kernel_size, stride, f"{quotient:.2f}", rule])
    header = ["input channels", "output channels", "kernel", "stride", "fold / oneDNN", "rule"]
    return table(header, rows)


def training_step(view, optimizer, x, y):
    optimizer.zero_grad()
    cross_entropy(view(x), y).backward()
    optimizer.step()


def training_memory_formats():
    """Time of a training step in training_memory_format, relative to contiguous weights."""
    rows = []
    for name, make, shape in [
        ("MNIST CNN", mnist_cnn, (256, 1, 28, 28)),
        ("LeNet", lenet, (256, 1, 28, 28)),
        ("VGG", vgg, (64, 3, 32, 32)),
    ]:
        views = [to_torch(make()) for _ in range(2)]
        x, y = torch.rand(shape), torch.randint(10, shape[:1])
        runs = [
            partial(training_step, view, torch.optim.Adam(view.parameters()), x, y)
            for view in views
        ]
        with training_memory_format(views[0]):
            quotient, *_ = ratio(*runs, rounds=15)
        rows.append([name, shape[0], f"{quotient:.2f}"])
    return table(["model", "rows", "training_memory_format / contiguous"], rows)


def main():
    before = torch.get_num_threads()
    parts = [batch_sizes()]
    for n_threads in sorted({1, before}):
        torch.set_num_threads(n_threads)
        parts.append(f"On {n_threads} thread{'s' * (n_threads > 1)}:")
        parts += [linear_networks(), memory_formats(), logits_alone(), folds()]
        parts.append(training_memory_formats())
    torch.set_num_threads(before)
    return "\n\n".join(parts) + "\n"
