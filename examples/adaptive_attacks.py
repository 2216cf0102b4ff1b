"""Break two defenses that only hide the gradients: attack the defense, not just the network.

A defense that plain PGD cannot break is not a robust one. Two classics, in front of the same
network:

- quantization: values are rounded to a few levels, and the gradient of a step is zero. The attack
  passes the step straight through backwards, and computes it exactly forwards (BPDA);
- random noise: a tiny ripple of random phase that drowns the gradient of a single pass. The attack
  averages the gradients of many passes (expectation over transformation, EOT).

In both cases plain PGD says "robust", a warning says why that is not to be believed, and the
adaptive attack finds what was there all the time.
"""

import argparse
import warnings

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from torch import nn

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.defenses import StandardTraining
from skrobust.differentiable import straight_through, to_torch
from skrobust.exceptions import AttackWarning

EPS = 0.15


class Quantize(TransformerMixin, BaseEstimator):
    """Values from 0 to 1, rounded to a few levels: a defense by rounding."""

    def __init__(self, n_levels=5):
        self.n_levels = n_levels

    def fit(self, X, y=None):
        """Learn nothing but the number of features."""
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        """Round."""
        return np.round(X * (self.n_levels - 1)) / (self.n_levels - 1)


class Rounding(nn.Module):
    """What Quantize computes, in torch: right forwards, and a gradient of zero."""

    def __init__(self, n_levels):
        super().__init__()
        self.steps = n_levels - 1

    def forward(self, x):
        """Round."""
        return torch.round(x * self.steps) / self.steps


class Ripple(nn.Module):
    """Noise of at most 0.05, whose slope is up to ten times that of the signal."""

    def forward(self, x):
        """Add a wave of random phase."""
        return x + 0.05 * torch.sin(200 * x + 2 * torch.pi * torch.rand_like(x))


def report(name, attack, model, X, y, predict):
    """Attack, and print what is left and what warnings there were."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AttackWarning)
        X_adv = attack.perturb(model, X, y)
    accuracy = np.mean([np.mean(predict(X_adv) == y) for _ in range(5)])
    said = ", ".join(sorted({w.category.__name__ for w in caught})) or "-"
    print(f"  {name:<42}{accuracy:7.1%}   {said}")


def main(quick=False):
    """Tell the story; ``quick`` looks at fewer samples."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16, y, stratify=y, random_state=0)
    if quick:
        X_test, y_test = X_test[:150], y_test[:150]
    net = RobustClassifier(defense=StandardTraining(), bounds=(0, 1), random_state=0)
    net.fit(X_train, y_train)
    pgd = PGD(eps=EPS, bounds=(0, 1), random_state=0)
    print(f"pixels from 0 to 1, linf, eps {EPS}; what is left of the accuracy:\n")
    print(f"  {'no defense, clean':<42}{net.score(X_test, y_test):7.1%}")
    report("no defense, PGD", pgd, net, X_test, y_test, net.predict)

    # 1. The pipeline is one estimator, attacked from its raw input. A view tells how a step looks
    # in torch, and this one tells the truth: the rounding has no slope anywhere.
    quantized = make_pipeline(Quantize(), FrozenEstimator(net)).fit(X_train, y_train)
    print(f"\n  {'quantization, clean':<42}{quantized.score(X_test, y_test):7.1%}")
    to_torch.register(Quantize, lambda step: Rounding(step.n_levels))
    report("quantization, PGD", pgd, quantized, X_test, y_test, quantized.predict)
    # Marked as straight through, the step is exact forwards and the identity backwards. The steps
    # of scikit-learn that round (KBinsDiscretizer, Binarizer, np.round) are, without being asked.
    to_torch.register(Quantize, straight_through)
    report("quantization, PGD, straight through", pgd, quantized, X_test, y_test, quantized.predict)

    # 2. A torch module is as good as an estimator; this one is random in evaluation mode, too.
    torch.manual_seed(0)
    noisy = nn.Sequential(Ripple(), to_torch(net))

    def predict(X):
        with torch.no_grad():
            return noisy(torch.from_numpy(X)).argmax(1).numpy()

    print(f"\n  {'random noise, clean':<42}{np.mean(predict(X_test) == y_test):7.1%}")
    report("random noise, PGD", pgd, noisy, X_test, y_test, predict)
    for eot_samples in (20,) if quick else (20, 100):
        eot = PGD(eps=EPS, bounds=(0, 1), eot_samples=eot_samples, random_state=0)
        report(f"random noise, PGD, {eot_samples} passes", eot, noisy, X_test, y_test, predict)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Break two defenses that hide the gradients.")
    parser.add_argument("--quick", action="store_true", help="look at fewer samples")
    main(parser.parse_args().quick)
