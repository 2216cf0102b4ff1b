"""For users of skorch: a module of your own, its parameters, callbacks, and a net that you have.

1. A skorch net that was trained without us is attacked as it is.
2. The same module class is trained to be robust; ``module__``, ``optimizer__`` and ``callbacks``
   mean what they mean in skorch, also in ``set_params`` and grids.
"""

import argparse

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, GradientNormClipping
from torch import nn

from skrobust import RobustClassifier
from skrobust.metrics import robust_accuracy_score


class ResidualNet(nn.Module):
    """A network with residual blocks.

    ``n_features`` and ``n_classes`` are names that RobustClassifier fills in from the data.
    """

    def __init__(self, n_features, n_classes, width=64, n_blocks=2):
        super().__init__()
        self.first = nn.Linear(n_features, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(n_blocks))
        self.last = nn.Linear(width, n_classes)

    def forward(self, x):
        """From inputs to logits."""
        x = torch.relu(self.first(x))
        for block in self.blocks:
            x = x + torch.relu(block(x))
        return self.last(x)


class PrintEvery(Callback):
    """Print the loss every few epochs."""

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def on_epoch_end(self, net, **kwargs):
        """Print a line."""
        epoch, loss = net.history[-1, ("epoch", "train_loss")]
        if epoch % self.n_epochs == 0:
            print(f"  epoch {epoch:3}: training loss {loss:.3f}", flush=True)


def main(quick=False):
    """Tell the story; ``quick`` trains for a few epochs only."""
    max_epochs = 10 if quick else 60
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)  # skorch hands arrays to the module as they are
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
    threat = {"eps": 0.1, "bounds": (0, 1)}

    # 1. A net as skorch users have it, attacked as it is. Its criterion says that the module gives
    # logits. It is back in its place afterwards: mode, parameters, gradients are untouched.
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        ResidualNet,
        module__n_features=64,
        module__n_classes=10,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        max_epochs=max_epochs,
        train_split=None,
        verbose=0,
    ).fit(X_train, y_train)
    score = robust_accuracy_score(net, X_test, y_test, **threat)
    print(f"skorch net: accuracy {net.score(X_test, y_test):.3f}, robust accuracy {score:.3f}\n")

    # 2. The same class of module under adversarial training.
    robust = RobustClassifier(
        ResidualNet,
        module__width=96,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=0.01,
        callbacks=[
            ("clip", GradientNormClipping(5.0)),
            ("print", PrintEvery(max_epochs // 5)),
        ],
        callbacks__clip__gradient_clip_value=1.0,
        max_epochs=max_epochs,
        random_state=0,
        **threat,
    ).fit(X_train, y_train)
    score = robust_accuracy_score(robust, X_test, y_test, **threat)
    print(
        f"RobustClassifier: accuracy {robust.score(X_test, y_test):.3f}, "
        f"robust accuracy {score:.3f}"
    )
    # Inside there is a skorch net with its history, and the module.
    print(f"  net_ is a skorch net: {isinstance(robust.net_, NeuralNetClassifier)}")
    print(
        f"  module_ is a {type(robust.module_).__name__}, width {robust.module_.last.in_features}"
    )
    print(f"  history_ has {len(robust.history_)} epochs\n")

    # Double underscores reach the module in set_params, and so in grids.
    small = clone(robust).set_params(
        module__width=16, module__n_blocks=1, callbacks__print__n_epochs=max_epochs
    )
    small.fit(X_train, y_train)
    score = robust_accuracy_score(small, X_test, y_test, **threat)
    print(f"A small one: accuracy {small.score(X_test, y_test):.3f}, robust accuracy {score:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="For users of skorch.")
    parser.add_argument("--quick", action="store_true", help="train for a few epochs only")
    main(parser.parse_args().quick)
