"""Models and data on which attacks are compared, and the budgets at which they are."""

import os
import tempfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ._tools import digits, mnist, mnist_cnn, reference_cnn, spambase, threads

# Delete this folder to train anew; on one machine that gives the same weights.
CACHE = Path(tempfile.gettempdir()) / "skrobust-benchmarks"
N_TRAIN, N_EPOCHS = 30_000, 8

# Inputs lie in [0, 1]; under "l0" eps counts features.
EPS = {
    "reference": {"linf": 0.3, "l2": 2.0, "l1": 10.0, "l0": 10},
    "cnn": {"linf": 0.1, "l2": 1.0, "l1": 5.0, "l0": 5},
    "mlp": {"linf": 0.05, "l2": 1.0, "l1": 5.0, "l0": 5},
    "digits": {"linf": 0.1, "l2": 0.5, "l1": 2.0, "l0": 2},
    "spambase": {"linf": 0.05, "l2": 0.25, "l1": 0.5, "l0": 1},
}


def models(names=tuple(EPS)):
    """Benchmark models: name -> (module that gives logits, X as float32 in [0, 1], y as int64)."""
    return {name: _MAKERS[name]() for name in names}


def fingerprint(module):
    """Tells one set of weights from another: eight hexadecimal digits."""
    digest = sha256()
    for weight in module.state_dict().values():
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()[:8]


def _reference():
    return _finish(reference_cnn(), *mnist("test", 1000))


def _cnn():
    return _finish(_cached("cnn", mnist_cnn(), _train), *mnist("test", 1000))


def _mlp():
    # It flattens them itself: what moves squares sees images.
    return _finish(_cached("mlp", _perceptron(784, (256, 256), 10), _train), *mnist("test", 1000))


def _digits():
    X_train, X_test, y_train, y_test = digits()
    module = _perceptron(64, (128, 128), 10)
    module = _cached("digits", module, lambda module: _defend(module, X_train, y_train, 0.1))
    return _finish(module, X_test, y_test)


def _spambase():
    X_train, X_test, y_train, y_test = spambase()
    module = _perceptron(X_train.shape[1], (128, 128), 2)
    module = _cached("spambase", module, lambda module: _defend(module, X_train, y_train, 0.05))
    return _finish(module, X_test[:1000], y_test[:1000])


_MAKERS = {
    "reference": _reference,
    "cnn": _cnn,
    "mlp": _mlp,
    "digits": _digits,
    "spambase": _spambase,
}


def _perceptron(n_features, hidden, n_classes):
    """Plain modules, laid out as skrobust.nn.MLP: the peers are handed nothing of ours."""
    layers = [nn.Flatten()]
    for width in hidden:
        layers += [nn.Linear(n_features, width), nn.ReLU()]
        n_features = width
    return nn.Sequential(*layers, nn.Linear(n_features, n_classes))


def _cached(name, module, train):
    """Load the weights of `module`, or train it and save them."""
    path = CACHE / f"{name}.pt"
    if not path.exists():
        with threads(1):
            train(module)
        CACHE.mkdir(parents=True, exist_ok=True)
        # Nobody ever reads half a file.
        part = path.with_suffix(f".{os.getpid()}")
        torch.save(module.state_dict(), part)
        part.replace(path)
    module.load_state_dict(torch.load(path, weights_only=True))
    return module


def _train(module):
    """Ordinary training on MNIST."""
    X, y = (torch.from_numpy(part) for part in mnist("train", N_TRAIN))
    if not isinstance(module[0], nn.Conv2d):
        X = X.flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in module:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
        for _ in range(N_EPOCHS):
            for rows in torch.randperm(len(X)).split(128):
                optimizer.zero_grad()
                cross_entropy(module(X[rows]), y[rows]).backward()
                optimizer.step()


def _defend(module, X, y, eps):
    """Copy the weights of the adversarially trained classifier of benchmarks/main_job.py."""
    from skrobust import RobustClassifier

    clf = RobustClassifier(eps=eps, bounds=(0, 1), random_state=0).fit(X, y)
    module.load_state_dict(clf.module_.state_dict())


def _finish(module, X, y):
    return module.eval(), np.ascontiguousarray(X, np.float32), np.asarray(y, np.int64)
