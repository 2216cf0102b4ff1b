"""Interleaved timing, reference models and data."""

import os
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler
from torch import nn

_SHARED = Path(__file__).parents[2] / "shared"
DATA = Path(os.environ.get("SKROBUST_DATA", _SHARED / "data"))
MODELS = Path(os.environ.get("SKROBUST_MODELS", _SHARED / "models"))


def ratio(ours, reference, *, rounds):
    """Median over interleaved rounds of time(ours) / time(reference), and the median times."""
    ours()
    reference()
    times = np.array([[_seconds(reference), _seconds(ours)] for _ in range(rounds)])
    return float(np.median(times[:, 1] / times[:, 0])), *np.median(times, axis=0)


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@contextmanager
def threads(n_threads):
    """So many threads of torch inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def table(header, rows):
    """Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def digits_mlp():
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def mnist_cnn():
    """Architecture of shared/models/mnist_cnn_adv.pt."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def reference_cnn():
    cnn = mnist_cnn()
    cnn.load_state_dict(torch.load(MODELS / "mnist_cnn_adv.pt", weights_only=True))
    return cnn


def lenet():
    """Architecture of shared/models/mnist_lenet_sigma050.pt."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


def reference_lenet():
    module = lenet()
    module.load_state_dict(torch.load(MODELS / "mnist_lenet_sigma050.pt", weights_only=True))
    return module.eval().requires_grad_(False)


def mnist(split, n_samples=None):
    data = np.load(DATA / f"mnist_{split}.npz")
    X = (data["X"][:n_samples] / 255).astype(np.float32).reshape(-1, 1, 28, 28)
    return X, data["y"][:n_samples].astype(np.int64)


def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, test_size=0.3, stratify=y, random_state=0)


def spambase():
    data = pd.read_csv(DATA / "spambase.csv")
    y = data.pop("spam").to_numpy()
    X = np.log1p(data.to_numpy(np.float64))
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.3, stratify=y, random_state=0
    )
    scaler = MinMaxScaler(clip=True).fit(X_train)
    return scaler.transform(X_train), scaler.transform(X_test), y_train, y_test
