"""AutoAttack on estimators of scikit-learn as they are, beside a peer's HopSkipJump.

The peer moves in the cube [0, 1], where one eps holds for all features. Its problem is ours in
other units: the cube is the box of inputs, each feature over its standard deviation.
"""

import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from skrobust import to_torch
from skrobust.attacks import AutoAttack
from skrobust.exceptions import NotDifferentiableError

from ._tools import DATA, digits, table
from .against_peers import Peers
from .peers import available, hop_skip_jump

N_POINTS = 50

# Classifiers, and steps of the peer: as many of its 64 as take less than 40 s of CPU.
CLASSIFIERS = {
    "logistic regression": (make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)), 64),
    "RBF-SVC": (make_pipeline(StandardScaler(), SVC()), 25),
    "random forest": (RandomForestClassifier(random_state=0), 10),
    "boosting": (HistGradientBoostingClassifier(random_state=0), 10),
    "MLP": (make_pipeline(StandardScaler(), MLPClassifier(max_iter=500, random_state=0)), 64),
    "neighbours": (make_pipeline(StandardScaler(), KNeighborsClassifier()), 25),
}


@dataclass
class Problem:
    """Data and budgets: raw units are low + side * unit * z for z in the cube, eps is in `unit`."""

    X_train: np.ndarray
    X: np.ndarray
    y_train: np.ndarray
    y: np.ndarray
    low: np.ndarray
    unit: np.ndarray
    side: float
    eps: dict

    def __post_init__(self):
        self.X, self.y = self.X[:N_POINTS], self.y[:N_POINTS]
        self.bounds = self.low, self.low + self.side * self.unit

    def to_cube(self, X):
        return torch.from_numpy(((X - self.low) / self.unit / self.side).astype(np.float32))

    def from_cube(self, z):
        # The last bit of the sum may lie outside the box.
        return np.clip(self.low + self.side * self.unit * z.double().numpy(), *self.bounds)


def _digits(eps):
    X_train, X_test, *labels = digits()
    return Problem(16 * X_train, 16 * X_test, *labels, np.zeros(64), np.ones(64), 16.0, eps)


def _breast_cancer(eps):
    return _in_deviations(*load_breast_cancer(return_X_y=True), eps)


def _spambase(eps):
    data = pd.read_csv(DATA / "spambase.csv")
    y = data.pop("spam").to_numpy()
    return _in_deviations(data.to_numpy(np.float64), y, eps)


def _in_deviations(X, y, eps):
    """A problem in standard deviations, in the smallest cube of such that holds X."""
    parts = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
    low, unit = X.min(axis=0), parts[0].std(axis=0)
    return Problem(*parts, low, unit, ((X.max(axis=0) - low) / unit).max(), eps)


PROBLEMS = {
    "digits": (_digits, {"linf": 0.75, "l2": 2.0}, "of 16 grey levels"),
    "breast cancer": (_breast_cancer, {"linf": 0.5, "l2": 1.5}, "standard deviations"),
    "spambase": (_spambase, {"linf": 0.15, "l2": 0.5}, "standard deviations"),
}


def share_standing(estimator, problem, norm, X_adv):
    """Share that is classified correctly, as it is and once it is moved back into the ball."""
    X, y, eps = problem.X, problem.y, problem.eps[norm] * problem.unit
    if norm == "linf":
        X_adv = np.clip(X_adv, X - eps, X + eps)
    else:
        size = np.linalg.norm((X_adv - X) / eps, axis=1, keepdims=True)
        X_adv = np.where(size > 1, X + (X_adv - X) / np.maximum(size, 1), X_adv)
    return np.mean((estimator.predict(X) == y) & (estimator.predict(X_adv) == y))


def measure_ours(estimator, problem, norm):
    """Seconds of CPU, and the share that stands."""
    threat = {"eps": problem.eps[norm] * problem.unit, "norm": norm, "bounds": problem.bounds}
    cpu = time.process_time()
    attack = AutoAttack(**threat, version="fast", random_state=0)
    X_adv = attack.perturb(estimator, problem.X, problem.y)
    return time.process_time() - cpu, share_standing(estimator, problem, norm, X_adv)


def measure_peer(estimator, problem, norm, n_steps):
    """Foolbox's HopSkipJump on the points that are classified correctly; a record."""

    def predict(z):
        return np.searchsorted(estimator.classes_, estimator.predict(problem.from_cube(z)))

    labels = np.searchsorted(estimator.classes_, problem.y)
    x, candidates = problem.to_cube(problem.X), problem.to_cube(problem.X_train)
    rows = np.flatnonzero(predict(x) == labels)
    x, labels = x[rows], labels[rows]
    # Its default starts are noise, often with no point of another class.
    same = torch.from_numpy(predict(candidates) == labels[:, None])
    starts = candidates[torch.cdist(x, candidates).masked_fill(same, torch.inf).argmin(1)]
    classes = len(estimator.classes_)
    found, cost = hop_skip_jump(predict, classes, norm, n_steps, x, labels, starts)
    X_adv = problem.X.copy()
    X_adv[rows] = problem.from_cube(found)
    return {
        "library": "foolbox",
        "attack": "HopSkipJump",
        "norm": norm,
        "eps": problem.eps[norm] / problem.side,
        "n_points": len(problem.X),
        "steps": n_steps,
        "robust_accuracy": share_standing(estimator, problem, norm, X_adv),
        **cost,
    }


def has_view(estimator):
    try:
        to_torch(estimator)
    except NotDifferentiableError:
        return False
    return True


def rows_of(data, problem, name, peers):
    """Rows of the table, one for each norm."""
    classifier, n_steps = CLASSIFIERS[name]
    estimator = clone(classifier).fit(problem.X_train, problem.y_train)
    clean, view = estimator.score(problem.X, problem.y), "yes" if has_view(estimator) else "no"
    rows = []
    for norm in problem.eps:
        seconds, ours = measure_ours(estimator, problem, norm)
        key, cells = f"{data}, {name}: {norm} {N_POINTS} {n_steps}", [""] * 4
        if key in peers.records or "foolbox" in available():
            measure = partial(measure_peer, estimator, problem, norm, n_steps)
            cells = peer_cells(peers.recall(key, measure), ours)
        shares = [f"{100 * share:.0f}" for share in (clean, ours)]
        rows.append([name, view, norm, *shares, f"{seconds:.1f}", *cells])
    return rows


def peer_cells(record, ours):
    share, n_errors = record["robust_accuracy"], record["n_errors"]
    errors = f" ({n_errors} errors)" if n_errors else ""
    cells = [f"{100 * share:.0f}{errors}", f"{record['cpu_seconds']:.1f}", record["steps"]]
    return [*cells, "yes" if share < ours else ""]


def main():
    peers = Peers("scikit-learn", f"scikit-learn {version('scikit-learn')}")
    parts = [
        f"{N_POINTS} test points, pipelines attacked from their raw inputs: accuracy before, after "
        '`AutoAttack(version="fast")`, and after foolbox\'s HopSkipJump, which starts at the '
        "nearest training point of another class and sees predictions only. Judged by the "
        "estimator's own `predict`, after what leaves the ball is moved back. A point at which the "
        "peer raises an error stands.\n"
    ]
    header = [
        "classifier", "view", "norm", "clean, %", "AutoAttack, %", "CPU, s",
        "HopSkipJump, %", "CPU, s", "its steps", "leaves less",
    ]  # fmt: skip
    for data, (make, eps, unit) in PROBLEMS.items():
        problem = make(eps)
        rows = [row for name in CLASSIFIERS for row in rows_of(data, problem, name, peers)]
        budgets = ", ".join(f"{norm} {value:g}" for norm, value in eps.items())
        parts.append(f"### {data} ({budgets} {unit})\n\n{table(header, rows)}\n")
    return "\n".join(parts)
