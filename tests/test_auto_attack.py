"""AutoAttack: its members, what it makes of an estimator's access, and its verdicts."""

from itertools import groupby

import numpy as np
import pandas as pd
import pytest
from _table import make_data, make_victim, predict
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from skrobust.attacks import APGD, FAB, FMN, PGD, AutoAttack, HopSkipJump, Square
from skrobust.metrics import robust_accuracy_score

GRADIENTS = {"APGD", "FAB", "FMN", "PGD", "Square"}


@pytest.fixture
def runs(monkeypatch):
    """Which member ran, on how many points, and how many of them it found."""
    seen = []
    for kind in (APGD, FAB, FMN, PGD, Square, HopSkipJump):

        def run(self, problem, _original=kind.run_problem, **parameters):
            result = _original(self, problem, **parameters)
            seen.append((type(self).__name__, len(problem), int(result.success.sum())))
            return result

        monkeypatch.setattr(kind, "run_problem", run)
    return seen


class OnlyPredicts(ClassifierMixin, BaseEstimator):
    """What wraps another classifier, and tells its labels only."""

    def __init__(self, inner=None):
        self.inner = inner

    def fit(self, X, y):
        self.inner_ = self.inner.fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict(self, X):
        return self.inner_.predict(X)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_each_member_attacks_what_is_left(runs, norm):
    estimator, X, y = make_victim("MLPClassifier, 3 strings")
    eps = {"linf": 0.15, "l2": 0.3, "l1": 0.4}[norm]
    attack = AutoAttack(eps=eps, norm=norm, random_state=0)
    result = attack.run(estimator, X, y)
    names = [name for name, *_ in runs]
    assert [name for name, _ in groupby(names)] == ["APGD", "FAB", "FMN", "Square"]
    assert names.count("APGD") == 2
    first = names.index("FMN")
    left = len(X)
    for i, (name, n_points, n_found) in enumerate(runs):
        if name == "FMN" and i > first:  # for what is near the boundary
            assert 0 < n_points <= left
        else:
            assert n_points == left
        left -= n_found
    assert 0 < left < len(X)
    assert_array_equal(result.success, predict(estimator, result.X_adv) != y)
    assert result.success.sum() == len(X) - left


def test_fast_ends_with_what_is_near_the_boundary(runs):
    # Of 1.05 budgets the attack leaves a twentieth, of 10 budgets nine tenths.
    clf = LogisticRegression().fit(*make_data(2))
    w = np.abs(clf.coef_[0]).sum()
    eps, n_near, n_far = 0.1, 3, 5
    distance = eps * np.repeat([1.05, 10.0], [n_near, n_far])
    X = ((distance * w - clf.intercept_) / w)[:, None] * np.sign(clf.coef_[0])
    y = clf.predict(X)
    AutoAttack(eps=eps, version="fast", random_state=0).run(clf, X, y)
    n = n_near + n_far
    assert runs == [
        ("APGD", n, 0),
        ("PGD", n, 0),
        ("FMN", n_near, 0),
        ("Square", n, 0),
        ("Square", n_near, 0),
    ]


@pytest.mark.parametrize("version", ["standard", "fast"])
def test_what_stands_comes_back_at_its_largest_margin(version):
    clf, X, y = make_victim("logistic, 3 classes")
    result = AutoAttack(eps=0.05, version=version, random_state=0).run(clf, X, y)
    stands = ~result.success
    assert stands.any()

    def margins(X):
        z = clf.decision_function(X)
        own = np.searchsorted(clf.classes_, y)[:, None]
        z_own = np.take_along_axis(z, own, 1)
        np.put_along_axis(z, own, -np.inf, 1)
        return z.max(1) - z_own[:, 0]

    assert (margins(result.X_adv) > margins(X))[stands].all()


def test_nothing_is_left_to_do(runs):
    estimator, X, y = make_victim("logistic, 3 classes")
    result = AutoAttack(eps=20.0, random_state=0).run(estimator, X, y)
    assert result.success.all()
    assert len(runs) < 5


@pytest.mark.parametrize("n_classes", [2, 3])
def test_two_and_three_classes(n_classes):
    X, y = make_data(n_classes)
    net = MLPClassifier((8,), max_iter=500, tol=1e-3, random_state=0)
    clf = make_pipeline(StandardScaler(), net).fit(X, y)
    for norm, eps in (("linf", 0.3), ("l2", 0.6), ("l1", 1.0)):
        auto = AutoAttack(eps=eps, norm=norm, random_state=0).run(clf, X, y)
        pgd = PGD(eps=eps, norm=norm, n_restarts=3, random_state=0).run(clf, X, y)
        assert (auto.success >= pgd.success).all()


@pytest.mark.parametrize("version", ["standard", "fast"])
@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: RandomForestClassifier(8, random_state=0), {"Square", "HopSkipJump"}),
        (lambda: KNeighborsClassifier(), {"Square", "HopSkipJump"}),
        (
            lambda: make_pipeline(StandardScaler(), SVC(random_state=0)),
            {"APGD", "FAB", "FMN", "PGD", "Square"},
        ),
    ],
    ids=["forest", "neighbours", "svc"],
)
def test_runs_what_the_access_allows(runs, make, names, version):
    X, y = make_data(3)
    frame = pd.DataFrame(X, columns=list("abcdef"))
    clf = make().fit(frame, y)
    attack = AutoAttack(eps=0.4, version=version, mask=["a", "b", "d"], random_state=0)
    X_adv = attack.perturb(clf, frame[:30], y[:30])
    assert {name for name, *_ in runs} <= names
    assert list(X_adv.columns) == list(frame.columns)
    assert_array_equal(X_adv[["c", "e", "f"]], frame[["c", "e", "f"]][:30])
    assert clf.score(X_adv, y[:30]) < clf.score(frame[:30], y[:30])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_scores_are_searched_and_then_decisions(runs, norm):
    X, y = make_data(3)
    clf = KNeighborsClassifier().fit(X, y)
    eps = {"linf": 0.3, "l2": 0.5}[norm]
    attack = AutoAttack(eps=eps, norm=norm, version="fast", random_state=0)
    result = attack.run(clf, X, y)
    assert_array_equal(result.success, clf.predict(result.X_adv) != y)
    (first, n_all, n_found), (second, n_left, n_more) = runs
    assert (first, second) == ("Square", "HopSkipJump")
    assert n_all == len(X)
    assert n_left == len(X) - n_found
    assert result.success.sum() == n_found + n_more
    runs.clear()
    AutoAttack(eps=0.3, norm="l1", version="fast", random_state=0).run(clf, X, y)
    assert [name for name, *_ in runs] == ["Square"]


@pytest.mark.parametrize("version", ["standard", "fast", "rand"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.3), ("l2", 0.6)])
def test_decisions_suffice(runs, version, norm, eps):
    X, y = make_data(3)
    clf = OnlyPredicts(LogisticRegression()).fit(X, y)
    attack = AutoAttack(eps=eps, norm=norm, version=version, random_state=0)
    blind = attack.run(clf, X, y)
    assert [name for name, *_ in runs] == ["HopSkipJump"]
    assert_array_equal(blind.success, clf.predict(blind.X_adv) != y)
    # The same model with its gradients: hardly more is found.
    seeing = attack.run(clf.inner_, X, y).success
    assert 0.1 < seeing.mean() < 0.9
    assert (seeing & ~blind.success).mean() < 0.05


def test_decisions_do_not_suffice_in_l1_nor_for_others():
    X, y = make_data(3)
    clf = OnlyPredicts(LogisticRegression()).fit(X, y)
    with pytest.raises(TypeError, match="AutoAttack with norm='l1' needs gradients or scores"):
        AutoAttack(eps=0.4, norm="l1").run(clf, X, y)
    with pytest.raises(TypeError, match="Square needs the scores of the estimator: a decision_fu"):
        Square(eps=0.4).run(clf, X, y)


@pytest.mark.parametrize(
    ("loader", "radius"), [(load_breast_cancer, 0.2), (load_wine, 0.6), (load_digits, 0.2)]
)
def test_fast_and_standard_agree(loader, radius):
    X, y = loader(return_X_y=True)
    X, y = X[::3], y[::3]
    clf = make_pipeline(StandardScaler(), MLPClassifier((32,), max_iter=1000, random_state=0))
    clf.fit(X, y)
    eps = radius * X.std(axis=0) + 1e-3
    fast = AutoAttack(eps=eps, version="fast", random_state=0).run(clf, X, y).success
    standard = AutoAttack(eps=eps, random_state=0).run(clf, X, y).success
    assert 0.02 < standard.mean() < 0.98
    assert (fast != standard).mean() <= 0.01


def test_scores_use_it_for_every_estimator():
    X, y = load_wine(return_X_y=True)
    eps = 0.3 * X.std(axis=0)
    for clf in (
        HistGradientBoostingClassifier(max_iter=10),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ):
        clf.fit(X, y)
        attack = AutoAttack(eps=eps, version="fast", random_state=0)
        score = robust_accuracy_score(clf, X, y, eps=eps)
        assert score == clf.score(attack.perturb(clf, X, y), y)
        assert score < clf.score(X, y)


def test_targeted_without_gradients():
    X, y = make_data(3)
    clf = RandomForestClassifier(8, random_state=0).fit(X, y)
    target = (clf.predict(X) + 1) % 3
    result = AutoAttack(eps=2.0, random_state=0).run(clf, X[:20], y_target=target[:20])
    assert_array_equal(result.success, clf.predict(result.X_adv) == target[:20])
    assert result.success.mean() > 0.5
