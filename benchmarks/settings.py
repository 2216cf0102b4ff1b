"""Measurements behind the constants of skrobust.utils: batch size and threads."""

from functools import partial

import numpy as np
import torch

from skrobust.attacks import PGD

from ._tools import digits, digits_mlp, mnist, mnist_cnn, ratio, table


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


def main():
    before = torch.get_num_threads()
    measured = batch_sizes() + "\n\n" + threads() + "\n"
    torch.set_num_threads(before)
    return measured
