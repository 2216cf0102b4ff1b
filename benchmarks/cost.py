"""PGD and adversarial training against bare loops that make the same passes."""

import subprocess
import sys

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.defenses import AdversarialTraining
from skrobust.metrics import robust_accuracy_curve, robust_accuracy_score

from ._tools import digits, digits_mlp, mnist, mnist_cnn, ratio, table, threads

N_STEPS, TRAIN_STEPS = 40, 10


def bare_steps(model, x, y, eps, n_steps):
    """Sign steps and clipping, and nothing else."""
    low, high = (x - eps).clamp_(0, 1), (x + eps).clamp_(0, 1)
    z = x + torch.empty_like(x).uniform_(-eps, eps)
    z.clamp_(0, 1)
    for _ in range(n_steps):
        z.requires_grad_()
        loss = cross_entropy(model(z), y, reduction="sum")
        (grad,) = torch.autograd.grad(loss, z)
        z = z.detach().add_(grad.sign_(), alpha=eps / 4).clamp_(low, high)
    return z


def bare_attack(model, X, y, eps, batch_size):
    """The passes of PGD.perturb: clean point, 40 steps, last point, and the model's verdict."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.eval()
    for i in range(0, len(X), batch_size):
        x, labels = X[i : i + batch_size], y[i : i + batch_size]
        z = bare_steps(model, x, labels, eps, N_STEPS)
        with torch.no_grad():
            for points in (x, z, z):
                model(points).argmax(1)
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def attack_cost(name, model, X, y, batch_size, rounds):
    attack = PGD(eps=0.1, bounds=(0, 1), n_steps=N_STEPS, batch_size=batch_size, random_state=0)
    x, labels = torch.from_numpy(X), torch.from_numpy(y)
    quotient, bare, ours = ratio(
        lambda: attack.perturb(model, X, y),
        lambda: bare_attack(model, x, labels, 0.1, batch_size),
        rounds=rounds,
    )
    return [f"PGD.perturb, {name}", f"{bare:.3f}", f"{ours:.3f}", f"{quotient:.2f}"]


def training_cost(name, make_module, X, y, batch_size, rounds):
    """One epoch by RobustClassifier against one of a hand-written loop."""
    clf = RobustClassifier(
        make_module(),
        defense=AdversarialTraining(n_steps=TRAIN_STEPS),
        eps=0.1,
        bounds=(0, 1),
        batch_size=batch_size,
        random_state=0,
    ).partial_fit(X, y)
    module = make_module()
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    x, labels = torch.from_numpy(X), torch.from_numpy(y)

    def bare():
        module.train()
        for rows in torch.randperm(len(x)).tensor_split(-(-len(x) // batch_size)):
            z = bare_steps(module, x[rows], labels[rows], 0.1, TRAIN_STEPS)
            optimizer.zero_grad()
            cross_entropy(module(z), labels[rows]).backward()
            optimizer.step()

    quotient, bare_time, ours = ratio(lambda: clf.partial_fit(X, y), bare, rounds=rounds)
    return [f"epoch, {name}", f"{bare_time:.3f}", f"{ours:.3f}", f"{quotient:.2f}"]


def curve_cost(rounds):
    """A curve over eps against separate scores."""
    X_train, X_test, y_train, y_test = digits()
    clf = RobustClassifier(eps=0.1, bounds=(0, 1), max_epochs=20, random_state=0)
    clf.fit(X_train, y_train)
    eps = np.linspace(0, 0.3, 7)
    attack = PGD(bounds=(0, 1), n_steps=50, n_restarts=5)
    quotient, separate, curve = ratio(
        lambda: robust_accuracy_curve(clf, X_test, y_test, attack=attack, eps=eps),
        lambda: [robust_accuracy_score(clf, X_test, y_test, attack=attack, eps=e) for e in eps],
        rounds=rounds,
    )
    return ["curve of 7 eps, digits", f"{separate:.3f}", f"{curve:.3f}", f"{quotient:.2f}"]


def import_cost(rounds=15):
    """What importing the library adds to importing what it stands on."""
    needed = "import time, torch, sklearn.base, sklearn.linear_model, sklearn.pipeline, skorch;"
    timed = "start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
    code = needed + timed.format("skrobust, skrobust.attacks, skrobust.metrics")
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(rounds)
    ]
    return f"Importing skrobust after torch, scikit-learn and skorch: {np.median(seconds):.3f} s"


def main():
    torch.manual_seed(0)
    X_train, X_test, y_train, y_test = (part for part in digits())
    X_train, X_test = X_train.astype(np.float32), X_test.astype(np.float32)
    X_mnist, y_mnist = mnist("train", 2560)
    rows = []
    with threads(1):
        rows.append(
            attack_cost("MLP 64-128-128-10, batch 64", digits_mlp(), X_test, y_test, 64, 25)
        )
        rows.append(
            attack_cost("MNIST CNN, batch 256", mnist_cnn(), X_mnist[:512], y_mnist[:512], 256, 7)
        )
        rows.append(training_cost("MLP, batch 64", digits_mlp, X_train, y_train, 64, 25))
        rows.append(training_cost("MNIST CNN, batch 256", mnist_cnn, X_mnist, y_mnist, 256, 5))
        rows.append(curve_cost(5))
    header = ["one thread", "reference, s", "skrobust, s", "ratio"]
    return table(header, rows) + "\n\n" + import_cost() + "\n"
