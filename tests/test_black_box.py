"""Attacks that ask for scores or decisions only, and the estimators that they are for."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from _table import make_data, make_victim, predict
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from skrobust.adapters import FittedClassifier, find_access
from skrobust.attacks import PGD, HopSkipJump, Square
from skrobust.attacks._square_proposals import BufferedNoise
from skrobust.attacks._square_windows import SquareWindows, SubsetWindows, _bump, make_windows
from skrobust.attacks.core._batch import AttackBatch
from skrobust.attacks.core._decision_oracle import DecisionOracle, random_directions
from skrobust.attacks.core._starting_points import StartingPoints
from skrobust.exceptions import NotDifferentiableError, UnboundedRobustnessWarning
from skrobust.threat import L2Set, LinfSet, ThreatModel
from skrobust.utils._random import RowNoise

every_norm = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
both_norms = pytest.mark.parametrize("norm", ["l2", "linf"])
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


# --- estimators without gradients ---


class Labels(ClassifierMixin, BaseEstimator):
    """A classifier that can predict labels and nothing else."""

    def fit(self, X, y):
        self.classes_, index = np.unique(y, return_inverse=True)
        self.means_ = np.stack([X[index == k].mean(axis=0) for k in range(len(self.classes_))])
        self.n_rows_ = []
        return self

    def predict(self, X):
        self.n_rows_.append(len(X))
        return self.classes_[((X[:, None] - self.means_) ** 2).sum(axis=2).argmin(axis=1)]


def linear_kernel(A, B):
    return A @ B.T


VICTIMS = {
    "forest": (lambda: RandomForestClassifier(4, random_state=0), None),
    "boosting": (lambda: HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=5), "abc"),
    "neighbours": (lambda: KNeighborsClassifier(), [7, -2, 3]),
    "one-vs-one": (lambda: SVC(kernel=linear_kernel, decision_function_shape="ovo"), "xyz"),
    "pipeline": (
        lambda: make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)),
        [25, 5, 15],
    ),
    "labels": (lambda: Labels(), ["no", "maybe", "yes"]),
}


def victim(name, n_classes=3):
    make, labels = VICTIMS[name]
    X, y = make_data(n_classes)
    y = y if labels is None else np.array(list(labels))[y]
    return make().fit(X, y), X, y


def with_scores(name):
    return name not in ("one-vs-one", "labels")


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", VICTIMS)
def test_estimators_without_gradients(name, n_classes):
    clf, X, y = victim(name, n_classes)
    X, y = X[:40], y[:40]
    attacks = [
        HopSkipJump(eps=9.0, max_queries=60, n_directions=10, norm=norm) for norm in ("l2", "linf")
    ]
    if with_scores(name) or (name == "one-vs-one" and n_classes == 2):
        attacks += [Square(eps=1.0, n_queries=30, norm=norm) for norm in ORDERS]
    clean = clf.predict(X) != y
    target = np.unique(y)[1]
    for attack in attacks:
        result = attack.set_params(random_state=0).run(clf, X, y)
        assert_array_equal(result.success, clf.predict(result.X_adv) != y)
        assert result.success.sum() > clean.sum() + 1
        assert result.success[clean].all()
        result = attack.run(clf, X, y_target=target)
        assert_array_equal(result.success, clf.predict(result.X_adv) == target)
        assert result.success.sum() > (clf.predict(X) == target).sum() + 3


@pytest.mark.parametrize("attack", [Square(eps=0.5, n_queries=30), HopSkipJump(max_queries=80)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_neither_batches_nor_order_nor_company_matter(attack, norm):
    clf, X, y = victim("neighbours")
    attack.set_params(norm=norm, random_state=0, batch_size="auto")
    expected = attack.perturb(clf, X, y)
    attack.set_params(batch_size=11)
    assert_array_equal(attack.perturb(clf, X[::-1], y[::-1]), expected[::-1])


@pytest.mark.parametrize("attack", [Square(n_queries=30), HopSkipJump(eps=9.0, max_queries=60)])
def test_data_frames_reach_the_estimator_with_their_columns(attack):
    X, y = make_data(3)
    frame = pd.DataFrame(X, columns=list("abcdef"), index=np.arange(len(X))[::-1])
    clf = RandomForestClassifier(5, random_state=0).fit(frame, y)
    attack.set_params(mask=["b", "d", "e"], random_state=0)
    X_adv = attack.perturb(clf, frame, y)
    assert type(X_adv) is pd.DataFrame
    assert (X_adv[["a", "c", "f"]] == frame[["a", "c", "f"]]).all(axis=None)
    assert (clf.predict(X_adv) != y).sum() > (clf.predict(frame) != y).sum()


@pytest.mark.parametrize("name", ["skorch", "module", "module, images"])
def test_nets_are_asked_through_their_views(name):
    net, X, y = make_victim(name)
    clean = (predict(net, X) != y).sum()
    for attack in (Square(eps=0.4, n_queries=40), HopSkipJump(eps=9.0, max_queries=100)):
        result = attack.set_params(random_state=0).run(net, X, y)
        assert_array_equal(result.success, predict(net, result.X_adv) != y)
        assert result.success.sum() > clean


def access_to(clf, X):
    return find_access(FittedClassifier(clf), X, np.asarray(X))


def test_one_vs_one_scores_of_three_classes_are_not_class_scores():
    clf, X, y = victim("one-vs-one")
    assert clf.decision_function(X).shape == (60, 3)  # of pairs, which are three as well
    access = access_to(clf, X)
    assert access.provides == ("decisions",)
    pipeline = make_pipeline(StandardScaler(), clf)
    search = GridSearchCV(pipeline, {"svc__C": [0.1, 1.0]}, cv=2)
    for wrapper in (pipeline.fit(X, y), search.fit(X, y), FrozenEstimator(clf)):
        assert wrapper.decision_function(X).shape == (60, 3)
        assert access_to(wrapper, X).provides == ("decisions",)
    with pytest.raises(TypeError, match="Square needs the scores of the estimator"):
        Square().run(clf, X)
    clf.set_params(decision_function_shape="ovr")
    assert access_to(clf, X).provides == ("scores", "decisions")
    binary, X, _ = victim("one-vs-one", n_classes=2)
    assert access_to(binary, X).provides == ("scores", "decisions")


@pytest.mark.parametrize("name", VICTIMS)
def test_what_an_access_answers(name):
    clf, X, _ = victim(name)
    access = access_to(clf, X)
    assert isinstance(access.reason, NotDifferentiableError)
    z = torch.from_numpy(X)
    decided = access.decide(z)
    assert decided.dtype == torch.int64
    assert_array_equal(clf.classes_[decided], clf.predict(X))
    if with_scores(name):
        logits = access.logits(z)
        assert logits.shape == (60, 3)
        assert logits.isfinite().all()
        assert_array_equal(logits.argmax(1), decided)


def careless(copy):
    """A forest behind a scaler, which with ``copy=False`` works in the array that it is given."""
    X, y = make_data(3)
    forest = RandomForestClassifier(4, random_state=0)
    return make_pipeline(StandardScaler(copy=copy), forest).fit(X.copy(), y), X, y


def test_estimators_that_overwrite_their_input():
    clf, X, y = careless(copy=False)
    expected, *_ = careless(copy=True)
    before = X.copy()
    classifier, access = FittedClassifier(clf), access_to(clf, X)
    z = torch.from_numpy(X)
    for _ in range(2):
        assert_array_equal(classifier.predict(X), expected.predict(before))
        assert_array_equal(access.decide(z), expected.predict(before))
        assert_array_equal(access.logits(z).exp() > 1e-300, expected.predict_proba(before) > 0)
    assert_array_equal(X, before)
    for attack in (Square(eps=0.5, n_queries=30), HopSkipJump(max_queries=60)):
        attack.set_params(random_state=0)
        assert_array_equal(attack.perturb(clf, X, y), attack.perturb(expected, X, y))


class Column(Labels):
    """Labels in a column, as some estimators of others give them."""

    def predict(self, X):
        return super().predict(X)[:, None]


def test_labels_in_a_column():
    X, y = make_data(3)
    plain, column = Labels().fit(X, y), Column().fit(X, y)
    assert_array_equal(FittedClassifier(column).predict(X), plain.predict(X))
    assert_array_equal(access_to(column, X).decide(torch.from_numpy(X)), plain.predict(X))
    attack = HopSkipJump(max_queries=60, random_state=0)
    result, expected = attack.run(column, X), attack.run(plain, X)
    assert_array_equal(result.X_adv, expected.X_adv)
    assert_array_equal(result.success, expected.success)


def test_errors_name_an_attack_that_can():
    clf, X, y = victim("labels")
    with pytest.raises(TypeError, match=r"Labels has none\. Use HopSkipJump, which needs nothing"):
        Square().run(clf, X, y)
    with pytest.raises(NotDifferentiableError, match="needs none: HopSkipJump, or AutoAttack"):
        PGD().run(clf, X, y)
    clf, X, y = victim("forest")
    with pytest.raises(NotDifferentiableError, match="none: Square, HopSkipJump, or AutoAttack"):
        PGD().run(clf, X, y)


def test_noise_of_some_rows_goes_on_where_it_was():
    x = torch.from_numpy(make_data(3)[0])
    noise, rows = RowNoise(x, 3), torch.tensor([4, 0, 17])
    noise.uniform(5)
    part = noise.take(rows)
    assert_array_equal(part.uniform(7), noise.uniform(7)[rows])
    assert_array_equal(part.take(torch.tensor([2])).uniform(2), noise.uniform(2)[[17]])


# --- closed forms ---


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    clf = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    weight = clf[-1].coef_[0] / clf[0].scale_
    X, y = X[:60], clf.predict(X[:60])
    return clf, X, y, weight, np.where(y == 1, 1.0, -1.0)


def best_gain(norm, down, up, slope):
    """Largest <slope, u> over the unit ball and the box from ``-down`` to ``up``."""
    room, slope = np.where(slope > 0, up, down), np.abs(slope)
    if norm == "linf":
        return (slope * np.minimum(room, 1)).sum()
    if norm == "l1":
        sides = np.column_stack([np.zeros_like(room), room])
        return -linprog(-slope, A_ub=np.ones((1, len(room))), b_ub=[1], bounds=sides).fun
    low, high = 0.0, 1e6  # bisection on min(t * slope, room)
    for _ in range(60):
        t = (low + high) / 2
        low, high = (t, high) if (np.minimum(t * slope, room) ** 2).sum() <= 1 else (low, t)
    return (slope * np.minimum(low * slope, room)).sum()


def nearest_on(norm, down, up, slope, gap):
    """Size of the shortest u in the box with <slope, u> = gap > 0."""
    low, high = 0.0, 1e3
    for _ in range(60):
        r = (low + high) / 2
        gain = r * best_gain(norm, down / r, up / r, slope)
        low, high = (r, high) if gain < gap else (low, r)
    return high


# Share of the largest gain that the margin makes at 95 % of the points after 1,500 queries.
SQUARE_REACHES = {"linf": 1 - 1e-9, "l2": 0.9, "l1": 0.88}


@every_norm
@pytest.mark.parametrize("form", ["ball", "box", "mask"])
def test_square_on_a_linear_model(cancer, norm, form):
    clf, X, y, weight, sign = cancer
    eps = {"linf": 0.2, "l2": 0.6, "l1": 1.0}[norm] * X.std(axis=0)
    low, high = X.min(axis=0), X.max(axis=0)
    mask = np.arange(30) % 3 > 0 if form == "mask" else None
    bounds = (low, high) if form == "box" else None
    attack = Square(eps=eps, norm=norm, bounds=bounds, mask=mask, n_queries=1500, random_state=0)
    result = attack.run(clf, X, y)
    gain = sign * (clf.decision_function(X) - clf.decision_function(result.X_adv))
    free = np.ones(30) if mask is None else mask
    sides = [(X - low) / eps, (high - X) / eps] if form == "box" else [np.full_like(X, np.inf)] * 2
    most = np.array(
        [
            best_gain(norm, down, up, -s * weight * eps * free)
            for down, up, s in zip(*sides, sign, strict=True)
        ]
    )
    assert (gain <= most * (1 + 1e-9)).all()
    assert (gain >= SQUARE_REACHES[norm] * most).mean() > 0.95


@both_norms
@pytest.mark.parametrize("form", ["free", "box", "mask", "eps"])
def test_hop_skip_jump_on_a_linear_model(cancer, norm, form):
    clf, X, y, weight, sign = cancer
    unit = X.std(axis=0) * (np.linspace(0.5, 2, 30) if form == "eps" else 1)
    eps = 100 * unit
    low, high = X.min(axis=0) - 0.3 * X.std(axis=0), X.max(axis=0) + 0.3 * X.std(axis=0)
    mask = np.arange(30) % 3 > 0 if form == "mask" else None
    bounds = (low, high) if form == "box" else None
    attack = HopSkipJump(
        eps=eps, norm=norm, bounds=bounds, mask=mask, max_queries=3000, random_state=0
    )
    result = attack.run(clf, X, y)
    assert result.success.all()
    free = np.ones(30) if mask is None else mask
    sides = [(X - low) / eps, (high - X) / eps] if form == "box" else [np.full_like(X, np.inf)] * 2
    margin = sign * clf.decision_function(X)
    exact = np.array(
        [
            nearest_on(norm, down, up, -s * weight * eps * free, gap)
            for down, up, s, gap in zip(*sides, sign, margin, strict=True)
        ]
    )
    ratio = attack.perturbation_norm(X, result.X_adv) / exact
    assert (ratio > 1 - 1e-9).all()
    assert np.median(ratio) < 1.03
    assert np.quantile(ratio, 0.9) < 1.1


@both_norms
def test_more_queries_come_closer(cancer, norm):
    clf, X, y, *_ = cancer
    sizes = []
    for max_queries in (60, 200, 2000):
        attack = HopSkipJump(eps=100 * X.std(axis=0), norm=norm, max_queries=max_queries)
        X_adv = attack.set_params(random_state=0).perturb(clf, X, y)
        sizes.append(np.median(attack.perturbation_norm(X, X_adv)))
    assert sizes[2] < 0.9 * sizes[1] < 0.8 * sizes[0]


class Waves(nn.Module):
    """Two classes, and a margin with several local maxima on a line."""

    def __init__(self):
        super().__init__()
        self.register_buffer("anchor", torch.zeros(1, dtype=torch.float64))

    def forward(self, x):
        score = torch.sin(5 * x[:, 0]) + 0.8 * x[:, 0] - 1.2
        return torch.stack([torch.zeros_like(score), score], 1)


def waves(x):
    return np.sin(5 * x) + 0.8 * x - 1.2


def test_square_on_a_line_sees_both_ends():
    X = np.linspace(-2, 2, 21)[:, None]
    y = np.zeros(len(X), dtype=int)
    attack = Square(eps=0.8, bounds=(-2.5, 2.5), n_queries=20, random_state=0)
    result = attack.run(Waves(), X, y)
    reached = np.clip(X + [-0.8, 0, 0.8], -2.5, 2.5)
    assert_allclose(waves(result.X_adv[:, 0]), waves(reached).max(axis=1), rtol=1e-12)
    # In l2 and l1 the bump is cut to size by the box only.
    for norm in ("l2", "l1"):
        attack.set_params(norm=norm)
        assert_allclose(attack.run(Waves(), X, y).X_adv, result.X_adv, rtol=1e-9)


@both_norms
def test_hop_skip_jump_on_a_line_ends_at_a_boundary(norm):
    X = np.linspace(-2, 0.1, 21)[:, None]
    attack = HopSkipJump(norm=norm, bounds=(-2.5, 2.5), max_queries=300, random_state=0)
    result = attack.run(Waves(), X, np.zeros(len(X), dtype=int))
    assert result.success.all()
    grid = np.linspace(-2.5, 2.5, 100_001)
    crossings = grid[:-1][np.diff(waves(grid) > 0)]
    distance = np.abs(result.X_adv - crossings).min(axis=1)
    assert (distance < 2e-4 * np.abs(result.X_adv - X)[:, 0] + 1e-4).all()
    assert (waves(result.X_adv) > 0).all()


class Inside(ClassifierMixin, BaseEstimator):
    """Class 0 is the ball of radius 1 around zero."""

    def fit(self, X, y=None):
        self.classes_ = np.array([0, 1])
        return self

    def predict(self, X):
        return (np.linalg.norm(X, axis=1) > 1).astype(int)


def test_hop_skip_jump_out_of_a_ball():
    rng = np.random.default_rng(0)
    for d in (1, 2, 10):
        X = rng.normal(size=(40, d))
        X *= rng.uniform(0.1, 0.95, size=(40, 1)) / np.linalg.norm(X, axis=1, keepdims=True)
        attack = HopSkipJump(norm="l2", max_queries=2000, n_restarts=2, random_state=0)
        result = attack.run(Inside().fit(X), X)
        assert result.success.all()
        ratio = attack.perturbation_norm(X, result.X_adv) / (1 - np.linalg.norm(X, axis=1))
        assert (ratio > 1 - 1e-9).all()
        assert np.median(ratio) < 1.02


@both_norms
def test_hop_skip_jump_with_a_single_threshold_is_exact(norm):
    X = np.linspace(-3, 0.9, 40)[:, None]
    X[0] = 1e-15  # which says nothing about the scale of the feature
    clf = DecisionTreeClassifier(max_depth=1).fit([[0.0], [2.0]], ["low", "high"])
    attack = HopSkipJump(norm=norm, max_queries=1000, random_state=0)
    X_adv = attack.perturb(clf, X)
    assert_allclose(attack.perturbation_norm(X, X_adv), 1 - X[:, 0], rtol=2e-4)


# --- Square ---


def test_windows_are_squares_in_all_channels():
    x = torch.zeros(50, 3, 9, 7)
    noise = noise_of(random_points(50, 3, 9, 7))
    windows = make_windows(ThreatModel().feasible_set(x))
    assert windows.n_free == 63
    seen = set()
    for side in (1, 2, 5, 7):
        index = windows.draw(noise, side, 2).transpose(0, 1)
        assert index.shape == (2, 50, 3 * side * side)
        for row in index.flatten(0, 1):
            window = torch.zeros(3 * 63)
            window[row] = 1
            window = window.view(3, 9, 7)
            assert (window == window[0]).all()
            columns, rows = window[0].any(0).nonzero()[:, 0], window[0].any(1).nonzero()[:, 0]
            assert len(rows) == len(columns) == side
            assert (rows.diff() == 1).all()
            assert (columns.diff() == 1).all()
            if side == 1:
                seen.add(int(row[0]))
        assert (index[0] != index[1]).any()
        up = windows.flip(noise, side)
        assert up.shape == index.shape[1:]
        assert set(up.flatten().tolist()) == {0, 1}
        up = up.unflatten(1, (3, -1)).float()
        assert (up.std(2, unbiased=False) == 0).all()  # one for each channel
    assert {min(seen) < 7, max(seen) >= 56} == {True}


def random_points(*shape):
    return torch.from_numpy(np.random.default_rng(0).random(shape))


def noise_of(x, seed=0):
    return BufferedNoise(RowNoise(x, seed))


def test_windows_hold_a_pixel_that_can_change():
    free = torch.zeros(2, 12, 12)
    free[1, 3:5, 8:] = 1
    windows = SquareWindows((2, 12, 12), free.flatten() > 0, LinfSet.size)
    assert windows.n_free == 8
    noise = noise_of(random_points(200, 3))
    for side in (1, 3, 10):
        index = windows.draw(noise, side, 3)
        assert (free.flatten()[index].sum(2) > 0).all()
    assert windows.flip_size(1.0, 1) == 3


def test_subsets_are_distinct_features_that_can_change():
    free = torch.arange(20) % 4 > 0
    windows = SubsetWindows((20,), free, L2Set.size)
    noise = noise_of(random_points(3000, 3))
    for size in (1, 2, 7, 14, 15):
        index = windows.draw(noise, size, 2).transpose(0, 1)
        assert index.shape == (2, 3000, size)
        assert free[index].all()
        assert (index.sort(2).values.diff() > 0).all()
        counts = torch.bincount(index.flatten(), minlength=20)[free]
        assert counts.min() > 0.6 * counts.double().mean()
        assert_allclose(windows.bump(noise, size).norm(dim=1), 1, rtol=1e-6)
    assert [windows.flip_size(0.001, query) for query in range(1, 9)] == [1, 2, 1, 3, 1, 2, 1, 4]
    assert [windows.bump_size(0.001, query) for query in range(1, 5)] == [2, 3, 2, 4]
    assert windows.flip_size(0.8, 1) == 12
    assert windows.flip_size(0.8, 2**30) == 15


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8])
def test_bumps_are_those_of_the_paper(side):
    n = side // 2
    expected = np.zeros((side, side))
    widths = (n, side - n) if n else (side,)
    for r in range(side):
        column = 0
        for width, sign in zip(widths, (1, -1), strict=False):
            for s in range(width):
                m = n - max(abs(r - n), abs(s - width // 2))
                expected[r, column] = sign * sum(1 / (n + 1 - k) ** 2 for k in range(m + 1))
                column += 1
    assert_allclose(_bump(side), expected)


@every_norm
@pytest.mark.parametrize("n_restarts", [1, 3])
def test_square_asks_as_often_as_it_says(norm, n_restarts):
    asked = []

    class Counting(nn.Sequential):
        def forward(self, x):
            asked.append(len(x))
            return super().forward(x)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Counting(nn.Linear(6, 3))
    X = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    attack = Square(eps=1e-3, norm=norm, n_queries=25, n_restarts=n_restarts, random_state=0)
    feasible_set = ThreatModel(1e-3, norm).feasible_set(torch.from_numpy(X))
    labels = module(feasible_set.x).argmax(1)
    asked.clear()

    class Model:
        def logits(self, z):
            return module(z).detach()

    batch = AttackBatch(Model(), feasible_set, labels)
    attack._attack_batch(batch)
    assert asked == [20] * 25 * n_restarts
    # The fallen are asked no more.
    asked.clear()
    labels[:15] = (labels[:15] + 1) % 3
    attack._attack_batch(replace(batch, stop_on_success=True))
    assert asked[0] == 20
    assert asked[1:] == [5] * (len(asked) - 1)


@every_norm
@pytest.mark.parametrize("loss", ["margin", "ce"])
def test_restarts_and_stopping(norm, loss):
    X, y = load_iris(return_X_y=True)
    clf = HistGradientBoostingClassifier(max_iter=10).fit(X, y)
    eps = {"linf": 0.35, "l2": 0.5, "l1": 0.7}[norm]
    attack = Square(eps=eps, norm=norm, n_queries=40, loss=loss, random_state=0)
    once = attack.run(clf, X, y).success
    more = attack.set_params(n_restarts=3).run(clf, X, y).success
    assert (more >= once).all()
    early = attack.run(clf, X, y, stop_on_success=True).success
    assert_array_equal(early, more)
    assert (clf.predict(X) != y).sum() < once.sum() < len(X)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_what_the_box_cuts_off_is_spent_elsewhere(norm):
    X, y = load_digits(return_X_y=True)
    X, y = X[:100] / 16, y[:100]
    clf = LogisticRegression(C=0.1).fit(X, y)
    eps = {"l2": 0.5, "l1": 2.0}[norm]
    for images in (False, True):
        given = X.reshape(-1, 1, 8, 8) if images else X
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
        module[1].weight.data = torch.from_numpy(clf.coef_)
        module[1].bias.data = torch.from_numpy(clf.intercept_)
        attack = Square(eps=eps, norm=norm, bounds=(0, 1), n_queries=300, random_state=0)
        X_adv = attack.perturb(module, given, y).reshape(-1, 64)
        assert np.median(np.linalg.norm(X_adv - X, ORDERS[norm], axis=1)) > 0.95 * eps


def test_square_parameters():
    clf, X, y = victim("forest")
    for name, value in {
        "n_queries": 0,
        "p_init": 0.0,
        "loss": "dlr",
        "n_restarts": 0,
        "norm": "l0",
    }.items():
        with pytest.raises(ValueError, match=f"The '{name}' parameter of Square"):
            Square(**{name: value}).run(clf, X, y)
    X_adv = Square(n_queries=1).perturb(clf, X, y)  # the input itself
    assert_array_equal(X_adv, X)


# --- HopSkipJump ---


class Fake:
    """A model whose first class is the half space below a number."""

    def __init__(self, slope=None):
        self.slope, self.n_rows = slope, 0

    def decide(self, z):
        self.n_rows += len(z)
        z = z.flatten(1)
        slope = torch.ones_like(z[0]) if self.slope is None else self.slope
        return (z @ slope > 1).long()


def hop(model, x, labels, *, budget, **parameters):
    attack = HopSkipJump(norm="l2", max_queries=budget, **parameters)
    feasible_set = ThreatModel(np.inf, "linf").feasible_set(x, "l2")
    return attack._attack_batch(AttackBatch(model, feasible_set, labels))


@pytest.mark.parametrize("budget", [1, 2, 5, 17, 40, 100, 777])
def test_the_budget_is_kept(budget):
    x = torch.from_numpy(make_data(2)[0])
    labels = Fake().decide(x)
    model = Fake()
    z, success = hop(model, x, labels, budget=budget)
    assert model.n_rows <= budget * len(x)
    assert_array_equal(Fake().decide(z) != labels, success)
    for row in range(5):
        alone = Fake()
        z_alone, _ = hop(alone, x[row : row + 1], labels[row : row + 1], budget=budget)
        assert_array_equal(z_alone[0], z[row])
        assert alone.n_rows <= budget
        if budget > 30:
            assert alone.n_rows > budget - 30  # what is too little for another step


@pytest.mark.parametrize("n_restarts", [1, 3])
def test_the_estimator_is_asked_as_often_as_it_says(n_restarts):
    clf, X, y = victim("labels")
    right = np.flatnonzero(clf.predict(X) == y)[:5]
    attack = HopSkipJump(max_queries=200, n_restarts=n_restarts, random_state=0)
    for row in right:
        clf.n_rows_.clear()
        assert attack.run(clf, X[[row]], y[[row]]).success
        # One more question is the verdict on the result.
        assert 200 - 16 * n_restarts < sum(clf.n_rows_) - 1 <= 200
        assert len(clf.n_rows_) < 100


def test_restarts_share_the_queries():
    clf, X, y = victim("forest")
    once = HopSkipJump(norm="l2", max_queries=1200, random_state=0)
    often = clone(once).set_params(n_restarts=4)
    sizes = [a.perturbation_norm(X, a.perturb(clf, X, y)) for a in (once, often)]
    assert np.mean(sizes[1]) < np.mean(sizes[0])
    # Each run has starts of its own.
    pooled = clone(often).set_params(X_init=X)
    size = pooled.perturbation_norm(X, pooled.perturb(clf, X, y))
    assert np.mean(size) < np.mean(sizes[0])


def test_large_batches_are_split(monkeypatch):
    x = torch.from_numpy(make_data(2)[0])
    labels = Fake().decide(x)
    expected = hop(Fake(), x, labels, budget=300, X_init=x[::2].numpy())[0]
    for module in ("core._decision_oracle", "core._starting_points", "_hop_skip_jump"):
        monkeypatch.setattr(f"skrobust.attacks.{module}.VALUES_AT_ONCE", 1000)
    longest = []

    class Watched(Fake):
        def decide(self, z):
            longest.append(z.numel())
            return super().decide(z)

    z = hop(Watched(), x, labels, budget=300, X_init=x[::2].numpy())[0]
    assert max(longest) <= 1000
    assert_allclose(z, expected, rtol=0.5)  # the directions are grouped otherwise


def test_an_input_that_is_adversarial_costs_one_question():
    x = torch.zeros(4, 3, dtype=torch.float64)
    model = Fake()
    z, success = hop(model, x, torch.ones(4, dtype=torch.int64), budget=100)
    assert model.n_rows == 4
    assert success.all()
    assert_array_equal(z, x)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("budgets", [None, "scalar", "per feature"])
def test_starts_without_bounds(scale, budgets):
    """Features of scales from one millionth to a million, of which any may decide."""
    rng = np.random.default_rng(0)
    scales = scale * 10.0 ** np.arange(-3, 4)
    x = torch.from_numpy(rng.normal(size=(40, 7)) * scales)
    x[0] = 0
    threat = {
        None: ThreatModel(np.inf, "linf"),
        "scalar": ThreatModel(1e9, "l2"),
        "per feature": ThreatModel(10 * scales, "l2"),
    }[budgets]
    for feature in (0, 3, 6):
        slope = torch.zeros(7, dtype=torch.float64)
        slope[feature] = 0.5 / scales[feature]
        labels = Fake(slope).decide(x)
        feasible_set = threat.feasible_set(x, "l2")
        oracle = DecisionOracle(AttackBatch(Fake(slope), feasible_set, labels), budget=10_000)
        rows, u = StartingPoints(oracle, 1000, None, 0).find(torch.arange(40))
        assert len(rows) >= 39  # the sample of zeros has no scale
        assert (Fake(slope).decide(feasible_set.from_units(u, rows)) != labels[rows]).all()
        assert oracle.n_queries.double().median() <= 48


@both_norms
def test_the_nearest_of_a_pool_comes_first(norm):
    clf, X, _ = victim("forest")
    pool, X = X[:40], X[40:]
    order = ORDERS[norm]
    distance = np.linalg.norm(X[:, None] - pool, order, axis=2)
    for target in (0, 1, 2):
        # Too few queries to come closer.
        attack = HopSkipJump(norm=norm, max_queries=42, X_init=pool, random_state=0)
        X_adv = attack.perturb(clf, X, y_target=target)
        hit = np.where(clf.predict(pool) == target, distance, np.inf).min(axis=1)
        size = attack.perturbation_norm(X, X_adv)
        assert (size <= hit * (1 + 1e-9)).all()
        assert_array_equal(clf.predict(X_adv), target)


def test_mask_and_box_hold_for_the_pool_too():
    clf, X, y = victim("neighbours", n_classes=2)
    mask, bounds = np.array([True, False] * 3), (X.min(axis=0), X.max(axis=0))
    attack = HopSkipJump(
        max_queries=200, mask=mask, bounds=bounds, X_init=10 * X[::3], random_state=0
    )
    result = attack.run(clf, X, y)
    assert_array_equal(result.X_adv[:, ~mask], X[:, ~mask])
    assert (result.X_adv >= bounds[0]).all()
    assert (result.X_adv <= bounds[1]).all()
    assert result.success.mean() > 0.5


def test_a_pool_helps_targeted_attacks():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    clf = KNeighborsClassifier(3).fit(X[:800], y[:800])
    attack = HopSkipJump(norm="l2", max_queries=200, n_init=100, bounds=(0, 1), random_state=0)
    X_test, target = X[800:830], (y[800:830] + 1) % 10
    plain = attack.run(clf, X_test, y_target=target)
    helped = attack.set_params(X_init=X[:800]).run(clf, X_test, y_target=target)
    assert helped.success.mean() > 0.95
    found = plain.success & helped.success
    before = attack.perturbation_norm(X_test[found], plain.X_adv[found])
    after = attack.perturbation_norm(X_test[found], helped.X_adv[found])
    assert np.median(after) < 0.8 * np.median(before)


def test_a_classifier_that_never_changes_its_mind():
    X, y = make_data(2)
    clf = Labels().fit(X, y)
    clf.means_[:] = clf.means_[0]
    attack = HopSkipJump(max_queries=50, random_state=0)
    with pytest.warns(UnboundedRobustnessWarning, match="found nothing for 60 of 60 points"):
        result = attack.run(clf, X)
    assert not result.success.any()
    assert_array_equal(result.X_adv, X)


def test_stopping_spares_queries():
    clf, X, y = victim("labels")
    sure = HopSkipJump(eps=3.0, max_queries=500, random_state=0)
    whole = sure.run(clf, X, y).success
    clf.n_rows_.clear()
    sure.run(clf, X, y)
    n_whole = sum(clf.n_rows_)
    clf.n_rows_.clear()
    early = sure.run(clf, X, y, stop_on_success=True).success
    assert sum(clf.n_rows_) < n_whole / 2
    assert_array_equal(early, whole)


def test_directions_are_orthogonal_and_free():
    free = torch.tensor([True, False, True, True, True, False])
    noise = RowNoise(torch.zeros(1, 1, dtype=torch.float64), 0)
    for n in (1, 3, 4, 11):
        v = torch.cat(list(random_directions(noise, n, free)))
        assert v.shape == (n, 6)
        assert (v[:, ~free] == 0).all()
        for group in v.split(4):
            assert_allclose(group @ group.T, np.eye(len(group)), atol=1e-12)
    many = torch.cat(list(random_directions(noise, 4000, free)))[:, free]
    assert_allclose(many.mean(0), 0, atol=0.03)
    assert_allclose(many.T @ many / 4000, np.eye(4) / 4, atol=0.01)


def test_hop_skip_jump_parameters():
    clf, X, y = victim("forest")
    for name, value in {
        "max_queries": 0,
        "n_init": 0,
        "n_directions": 0,
        "n_restarts": 0,
        "gamma": 0.0,
        "norm": "l1",
        "X_init": 3,
    }.items():
        with pytest.raises(ValueError, match=f"The '{name}' parameter of HopSkipJump"):
            HopSkipJump(**{name: value}).run(clf, X, y)
    with pytest.raises(ValueError, match=r"X_init of HopSkipJump must hold samples of the shape"):
        HopSkipJump(X_init=X[:, :4]).run(clf, X, y)
    with pytest.raises(ValueError, match="X_init contains NaN"):
        HopSkipJump(X_init=np.full_like(X, np.nan)).run(clf, X, y)
