"""Measurements behind the settings: batch size, threads, memory, its format, pieces and folds."""

import subprocess
import sys
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
from skrobust.differentiable import _memory_format, _steps
from skrobust.differentiable._pullback import pullback
from skrobust.differentiable._training_format import training_format

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


def passes(n_threads, model, x):
    torch.set_num_threads(n_threads)
    for _ in range(10):
        torch.autograd.grad(model(x).sum(), x)


def threads():
    """Time of a pass forward and to the input on one thread, relative to two."""
    rows = []
    for name, model, shape in [
        ("MLP", digits_mlp(), (64, 64)),
        ("MLP", digits_mlp(), (4096, 64)),
        ("MNIST CNN", mnist_cnn(), (16, 1, 28, 28)),
        ("MNIST CNN", mnist_cnn(), (64, 1, 28, 28)),
        ("MNIST CNN", mnist_cnn(), (256, 1, 28, 28)),
    ]:
        x = torch.rand(shape, requires_grad=True)

        quotient, *_ = ratio(*(partial(passes, n, model, x) for n in (1, 2)), rounds=9)
        work = shape[0] * sum(p.numel() for p in model.parameters())
        rows.append([name, shape[0], f"{work:.1e}", f"{quotient:.2f}"])
    return table(["model", "rows", "rows x parameters", "one thread / two"], rows)


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
    """What goes through autograd."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def gradient(view, x, direction):
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(view(leaf), leaf, direction)[0]


SETTINGS = {
    "channels last": (_memory_format, "_CHANNELS_LAST", set()),
    "fold": (_steps, "folds", lambda *_: False),
    "pieces": (_memory_format, "_VALUES_A_PIECE", 2**60),
}


def without(setting, view, x, direction):
    """Function for a pass forward and one to the input, without one of the settings."""

    def changed():
        return patch.object(*SETTINGS[setting]) if setting else nullcontext()

    with changed():  # what is prepared here is kept
        linearize = pullback(view)
        linearize(x)

    def passes():
        with changed():
            _, pull = linearize(x)
            pull(direction)

    return passes


def memory_formats():
    """Time of a pass forward and one to the input, relative to autograd as the module is."""
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
        x, direction = torch.rand(shape), torch.randn(shape[0], 10)
        converted = deepcopy(view).to(memory_format=torch.channels_last)
        x_converted = _memory_format.channels_last(x)
        runs = [
            partial(gradient, converted, x_converted, direction),
            without(None, to_torch(Wrapped(view.module)), x, direction),
            *(without(setting, view, x, direction) for setting in (None, *SETTINGS)),
        ]
        reference = partial(gradient, view, x, direction)
        quotients = [f"{ratio(run, reference, rounds=9)[0]:.2f}" for run in runs]
        rows.append([name, shape[0], *quotients])
    header = ["model", "rows", "autograd, all channels last", "autograd, input channels last"]
    header += ["pullback", "without channels last", "without fold", "without pieces"]
    return table(header, rows)


def outputs_alone():
    """Time of outputs alone in blocks, relative to channels last and to the module itself."""
    rows = []
    for name, make, shape in [
        ("MNIST CNN", mnist_cnn, (1, 28, 28)),
        ("LeNet", lenet, (1, 28, 28)),
        ("VGG", vgg, (3, 32, 32)),
    ]:
        module = make().eval().requires_grad_(False)
        view = to_torch(module)
        in_blocks = pullback(view)
        with patch.object(_memory_format, "_WORTH_BLOCKS", 1_000):
            channels_last = pullback(view)
            channels_last.logits(torch.rand(1, *shape))
        for n_rows in (16, 85, 256):
            x = torch.rand(n_rows, *shape)
            references = partial(channels_last.logits, x), torch.no_grad()(partial(module, x))
            ours = partial(in_blocks.logits, x)
            quotients = [f"{ratio(ours, reference, rounds=9)[0]:.2f}" for reference in references]
            rows.append([name, n_rows, *quotients])
    return table(["model", "rows", "blocks / channels last", "blocks / module"], rows)


def folds():
    """Time of the gradient to the input of a convolution by fold, relative to oneDNN."""
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
        kinds = (_steps._Folded, _steps._Plain)
        folded, plain = (kind(layer.weight, layer.bias, window, 1) for kind in kinds)
        out, kept = plain.forward(x)
        runs = (partial(step.backward, out, kept) for step in (folded, plain))
        quotient, *_ = ratio(*runs, rounds=25)
        rule = "fold" if _memory_format.folds(layer.weight, 1, layer.dilation) else "oneDNN"
        rows.append([n_in, n_out, kernel_size, stride, f"{quotient:.2f}", rule])
    header = ["input channels", "output channels", "kernel", "stride", "fold / oneDNN", "rule"]
    return table(header, rows)


def training_step(view, optimizer, x, y):
    optimizer.zero_grad()
    cross_entropy(view(x), y).backward()
    optimizer.step()


def training_formats():
    """Time of a training step with weights in the training format, relative to contiguous ones."""
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
        with training_format(views[0]):
            quotient, *_ = ratio(*runs, rounds=15)
        rows.append([name, shape[0], f"{quotient:.2f}"])
    return table(["model", "rows", "training format / contiguous"], rows)


PASSES = """
import time
import torch
from benchmarks._tools import {model} as make
from skrobust.utils._passes import _keep_freed_memory
if {kept}:
    _keep_freed_memory()
torch.set_num_threads({n_threads})
module, x = make().requires_grad_(False), torch.rand(256, 1, 28, 28)
seconds = []
for _ in range(40):
    start = time.perf_counter()
    module(x)
    seconds.append(time.perf_counter() - start)
print(sorted(seconds[10:])[15])
"""


def freed_memory():
    """Time of a pass forward where freed memory stays with the process, relative to without."""
    rows = []
    for model in ("mnist_cnn", "lenet"):
        for n_threads in (1, 2):
            quotients = []
            for _ in range(3):
                codes = [PASSES.format(model=model, kept=k, n_threads=n_threads) for k in (1, 0)]
                kept, without = (
                    float(subprocess.check_output([sys.executable, "-c", code])) for code in codes
                )
                quotients.append(kept / without)
            rows.append([model, n_threads, f"{np.median(quotients):.2f}"])
    return table(["model", "threads", "freed memory kept / given back"], rows)


def main():
    before = torch.get_num_threads()
    parts = [batch_sizes(), threads(), freed_memory()]
    for n_threads in sorted({1, before}):
        torch.set_num_threads(n_threads)
        parts.append(f"On {n_threads} thread{'s' * (n_threads > 1)}:")
        parts += [memory_formats(), outputs_alone(), folds(), training_formats()]
    torch.set_num_threads(before)
    return "\n\n".join(parts) + "\n"
