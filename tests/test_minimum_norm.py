"""The attacks that look for the closest adversarial point: closed forms, and what each promises."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from skrobust.attacks import DDN, FAB, FMN, CarliniWagner, DeepFool, SigmaZero
from skrobust.metrics import robust_accuracy_curve
from skrobust.threat import ThreatModel
from skrobust.threat._threat_model import FEASIBLE_SETS

ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}
every_norm = pytest.mark.parametrize("norm", ORDERS)


# --- the projection ---


def nearest_step(norm, w, gap, low, high):
    """Shortest d with <w, d> = gap and low <= d <= high, by methods of its own."""
    if gap < 0:
        w, gap = -w, -gap
    room, a = np.where(w > 0, high, -low), np.abs(w)
    most = (a[a > 0] * room[a > 0]).sum()
    if most <= gap:
        return np.where(w > 0, high, np.where(w < 0, low, 0.0))
    if norm == "l1":
        room = np.where(np.isfinite(room), room, None)
        bounds = [(0, r) for r in room]
        size = linprog(np.ones(len(w)), A_eq=a[None], b_eq=[gap], bounds=bounds).x
    else:
        pace = a if norm == "l2" else np.ones_like(a)
        t_low, t_high = 0.0, 1e9
        for _ in range(200):
            t = (t_low + t_high) / 2
            reached = (a * np.minimum(t * pace, room)).sum() >= gap
            t_low, t_high = (t_low, t) if reached else (t, t_high)
        size = np.minimum(t_high * pace, room)
    return np.sign(w) * size


@every_norm
@pytest.mark.parametrize("bounded", ["no", "above", "both"])
@pytest.mark.parametrize("from_input", [True, False])
def test_step_to_a_hyperplane_is_the_shortest(norm, bounded, from_input):
    rng = np.random.default_rng(0)
    n, d = 40, 12
    x = rng.integers(0, 5, (n, d)) / 4  # many on the edge
    bounds = {"no": None, "above": (-np.inf, 1.0), "both": (0.0, 1.0)}[bounded]
    w = rng.normal(size=(n, d)) * 10.0 ** rng.integers(-6, 6, (n, 1))
    w[rng.random((n, d)) < 0.2] = 0.0
    gap = rng.normal(size=(n, 1)) * np.abs(w).sum(1, keepdims=True) * 0.3
    feasible_set = ThreatModel(np.inf, "linf", bounds).feasible_set(torch.from_numpy(x), norm)
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    u = np.zeros((n, d)) if from_input else np.clip(x + rng.normal(size=(n, d)), low, high) - x
    plane = feasible_set.hyperplane(torch.from_numpy(w))
    steps = plane.step(torch.from_numpy(gap), None if from_input else torch.from_numpy(u)).numpy()
    feasible = 0
    for i in range(n):
        expected = nearest_step(norm, w[i], gap[i, 0], low - x[i] - u[i], high - x[i] - u[i])
        size = np.linalg.norm(expected, ORDERS[norm])
        assert_allclose(np.linalg.norm(steps[i], ORDERS[norm]), size, rtol=1e-9, atol=1e-12)
        if norm == "l2":
            assert_allclose(steps[i], expected, rtol=1e-8, atol=1e-9)
        assert_allclose(w[i] @ steps[i], w[i] @ expected, rtol=1e-9, atol=1e-12)
        feasible += np.isclose(w[i] @ expected, gap[i, 0])
        assert (steps[i][w[i] == 0] == 0).all()
    moved = x + u + steps
    assert (moved >= low - 1e-12).all()
    assert (moved <= high + 1e-12).all()
    assert feasible > n / 2
    assert (feasible < n) == (bounded == "both")


@every_norm
@pytest.mark.parametrize("bounds", [None, (0, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_without_slope_or_out_of_all_proportion_are_finite(norm, bounds, dtype):
    x = torch.full((4, 3), 0.5, dtype=dtype)
    feasible_set = ThreatModel(np.inf, "linf", bounds).feasible_set(x, norm)
    w = torch.tensor([[0.0] * 3, [1e-37] * 3, [1e30] * 3, [1e-30, 0, 1e30]], dtype=dtype)
    for gap in (0.0, 1e-35, 1.0, 1e30):
        step = feasible_set.hyperplane(w).step(torch.full((4, 1), gap, dtype=dtype))
        assert torch.isfinite(step).all()
        assert (step[0] == 0).all()
        assert torch.isfinite(feasible_set.size(step)).all()


def test_l1_step_sorts_more_features_where_it_must():
    x = torch.zeros(3, 600, dtype=torch.float64)
    feasible_set = ThreatModel(np.inf, "linf", (0.0, 1.0)).feasible_set(x, "l1")
    w = torch.ones_like(x)
    w[1] = torch.linspace(1, 2, 600)
    gap = torch.tensor([[500.0], [3.0], [1e9]], dtype=torch.float64)
    step = feasible_set.hyperplane(w).step(gap)
    assert_allclose(step.sum(1), [500, 1 + 1 / w[1, -2], 600], rtol=1e-12)
    alone = feasible_set.take(torch.tensor([0])).hyperplane(w[:1]).step(gap[:1])
    assert torch.equal(alone, step[:1])


@every_norm
def test_dual_size(norm):
    w = np.random.default_rng(0).normal(size=(5, 7))
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    sizes = FEASIBLE_SETS[norm].dual_size(torch.from_numpy(w))[:, 0]
    assert_allclose(sizes, np.linalg.norm(w, dual, axis=1))
    assert FEASIBLE_SETS[norm].dual_size(torch.zeros(1, 3)) > 0


# --- closed forms ---

# Every attack, and how much farther than the closest point it may end on a linear model.
NEAREST = {
    "fab linf": (FAB(), 5e-3),
    "fab l2": (FAB(norm="l2"), 5e-3),
    "fab l1": (FAB(norm="l1"), 5e-3),
    "fmn linf": (FMN(random_state=0), 2e-3),
    "fmn l2": (FMN(norm="l2", random_state=0), 2e-3),
    "fmn l1": (FMN(norm="l1", random_state=0), 2e-3),
    "ddn": (DDN(random_state=0), 0.01),
    "carlini wagner": (CarliniWagner(random_state=0), 0.01),
    "deepfool linf": (DeepFool(norm="linf"), 0.021),
    "deepfool l2": (DeepFool(), 0.021),
}
FEWEST = {
    "fmn l0": FMN(norm="l0", random_state=0),
    "sigma zero": SigmaZero(random_state=0),
}
every_nearest = pytest.mark.parametrize("name", NEAREST)
every_one = pytest.mark.parametrize("name", [*NEAREST, *FEWEST])


def make(name, **parameters):
    attack = NEAREST[name][0] if name in NEAREST else FEWEST[name]
    return clone(attack).set_params(**parameters)


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)[:200]
    clf = LogisticRegression(C=0.1).fit(X, y[:200])
    kept = clf.predict(X) == y[:200]
    return clf, X[kept], y[:200][kept]


def slopes(clf, X, y):
    """Gradients of the margin, which is negative at the inputs, and the way it has to go."""
    sign = np.where(y == clf.classes_[1], -1.0, 1.0)
    return sign[:, None] * clf.coef_, -sign * clf.decision_function(X)


@every_nearest
@pytest.mark.parametrize("limited", ["no", "box", "box and mask", "eps"])
def test_linear_model_has_a_closed_form(cancer, name, limited):
    clf, X, y = cancer
    norm = make(name).norm
    scale, low, high, mask = np.ones(30), np.full(30, -np.inf), np.full(30, np.inf), None
    parameters = {}
    if "box" in limited:
        low, high = X.min(0), X.max(0)
        parameters["bounds"] = (low, high)
    if "mask" in limited:
        mask = np.arange(30) % 4 > 0
        parameters["mask"] = mask
    if limited == "eps":
        scale = np.geomspace(0.3, 3, 30)
        parameters["eps"] = scale * 100
    attack = make(name, **parameters)
    result = attack.run(clf, X, y)
    sizes = attack.perturbation_norm(X, result.X_adv) * (100 if limited == "eps" else 1)
    w, gap = slopes(clf, X, y)
    possible = 0
    for i in range(len(X)):
        w_i = w[i] * scale * (1 if mask is None else mask)
        step = nearest_step(norm, w_i, gap[i], (low - X[i]) / scale, (high - X[i]) / scale)
        if w_i @ step < gap[i] * (1 - 1e-9):  # the box is too small
            assert not result.success[i]
            continue
        possible += 1
        assert result.success[i]
        optimum = np.linalg.norm(step, ORDERS[norm])
        assert sizes[i] >= optimum * (1 - 1e-9)
        assert sizes[i] <= optimum * (1 + NEAREST[name][1])
    assert possible > 100


@pytest.mark.parametrize("name", FEWEST)
@pytest.mark.parametrize("bounded", [False, True])
def test_fewest_features_of_a_linear_model(cancer, name, bounded):
    clf, X, y = cancer
    bounds = (X.min(0), X.max(0)) if bounded else None
    attack = make(name, bounds=bounds)
    result = attack.run(clf, X, y)
    sizes = attack.perturbation_norm(X, result.X_adv)
    w, gap = slopes(clf, X, y)
    fewest = np.ones(len(X))
    possible = np.ones(len(X), dtype=bool)
    if bounded:
        room = np.where(w > 0, bounds[1] - X, X - bounds[0])
        gain = np.sort(np.abs(w) * room)[:, ::-1].cumsum(1)
        fewest = 1 + (gain < gap[:, None]).sum(1)
        possible = fewest <= 30
        assert fewest[possible].max() > 5
    assert_array_equal(result.success, possible)
    more = sizes[possible] - fewest[possible]
    assert (more >= 0).all()
    assert (more <= 1).all()
    assert (more == 0).mean() > 0.8


@every_one
def test_one_dimension_where_the_optimum_is_known(name):
    """A parabola: one class between the roots -1 and 2, the other outside."""
    X = np.linspace(-0.9, 1.9, 30)[:, None]
    clf = make_pipeline(FunctionTransformer(lambda X: X * X - X), LogisticRegression(C=1e6))
    grid = np.linspace(-4, 5, 400)[:, None]
    clf.fit(grid, (grid[:, 0] ** 2 - grid[:, 0] > 2).astype(int))
    roots = np.roots([1, -1, clf[-1].intercept_[0] / clf[-1].coef_[0, 0]])
    attack = make(name)
    result = attack.run(clf, X, np.zeros(30, dtype=int))
    assert result.success.all()
    optimum = np.abs(X - roots).min(1)
    distance = np.abs(result.X_adv - X)[:, 0]
    assert (distance >= optimum * (1 - 1e-6)).all()
    if name in NEAREST and "deepfool" not in name:
        # The top of the parabola separates the ways to both roots; a search may take the other.
        near = np.abs(X[:, 0] - 0.5) > 0.3
        assert (distance[near] <= optimum[near] * 1.02).all()


# --- what all of them promise ---


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return SVC(gamma=0.001).fit(X[:1000], y[:1000]), X[1000:1030], y[1000:1030]


@every_one
def test_eps_decides_what_counts_as_a_success(digits, name):
    clf, X, y = digits
    attack = make(name, bounds=(0, 16))
    free = attack.run(clf, X, y)
    assert free.success.all()
    sizes = attack.perturbation_norm(X, free.X_adv)
    eps = float(np.sort(sizes)[len(X) // 2])
    limited = clone(attack).set_params(eps=eps).run(clf, X, y)
    # One that is a little larger may still be adversarial when it is drawn into the ball.
    assert limited.success[sizes <= eps].all()
    assert not limited.success[sizes > 1.05 * eps].any()
    reached = attack.perturbation_norm(X, limited.X_adv)[limited.success]
    assert (reached <= eps * (1 + 1e-12)).all()
    assert 0 < limited.success.sum() < len(X)


@every_one
def test_a_target_is_reached(digits, name):
    clf, X, y = digits
    attack = make(name, bounds=(0, 16))
    target = (y + 1) % 10
    result = attack.run(clf, X, y_target=target)
    assert_array_equal(clf.predict(result.X_adv) == target, result.success)
    assert result.success.mean() > 0.9
    away = attack.run(clf, X, y)
    sizes = [attack.perturbation_norm(X, r.X_adv) for r in (result, away)]
    assert np.median(sizes[0]) >= np.median(sizes[1])


@pytest.mark.parametrize("name", ["fmn linf", "fmn l2", "fmn l1", "fmn l0", "ddn", "sigma zero"])
def test_restarts_only_come_closer(digits, name):
    clf, X, y = digits
    sizes = []
    for n_restarts in (1, 2, 6):
        attack = make(name, bounds=(0, 16), n_steps=60, n_restarts=n_restarts)
        result = attack.run(clf, X, y)
        size = np.where(result.success, attack.perturbation_norm(X, result.X_adv), np.inf)
        sizes.append(size)
    # The last point of a run is judged only where the next does not begin.
    assert np.mean(sizes[1] <= sizes[0] * 1.001) > 0.9
    assert np.mean(sizes[2] <= sizes[1] * 1.001) > 0.9
    assert sizes[2].sum() < sizes[0].sum()


@every_one
def test_an_input_on_the_boundary_is_moved_across(name):
    clf = LogisticRegression().fit([[-1.0, 0.0], [1.0, 0.0], [-1.0, 1.0], [1.0, 1.0]], [0, 1, 0, 1])
    clf.intercept_[:] = 0.0
    clf.coef_[:] = [[1.0, 0.0]]
    X = np.array([[0.0, 0.0], [0.0, 5.0]])
    y = clf.predict(X)
    attack = make(name)
    X_adv = attack.perturb(clf, X, y)
    assert (clf.predict(X_adv) != y).all()
    assert (np.abs(X_adv - X) < 1e-2).all()


def test_confidence_is_the_margin_reached(digits):
    clf, X, y = digits
    clf = LogisticRegression(max_iter=500).fit(X, y)
    kept = clf.predict(X) == y
    X, y = X[kept], y[kept]
    attack = CarliniWagner(bounds=(0, 16), random_state=0)
    sizes = []
    for confidence in (0.0, 3.0):
        X_adv = attack.set_params(confidence=confidence).perturb(clf, X, y)
        scores = clf.decision_function(X_adv)
        own = np.take_along_axis(scores, np.searchsorted(clf.classes_, y)[:, None], 1)[:, 0]
        margin = np.sort(np.where(clf.classes_ == y[:, None], -np.inf, scores))[:, -1] - own
        assert (margin > confidence - 1e-6).all()
        sizes.append(attack.perturbation_norm(X, X_adv))
    assert (sizes[1] > sizes[0]).all()


@every_one
def test_one_run_gives_a_whole_curve(digits, name):
    clf, X, y = digits
    attack = make(name, bounds=(0, 16))
    sizes = attack.perturbation_norm(X, attack.perturb(clf, X, y))
    grid = [0.0, *np.quantile(sizes, [0.25, 0.5, 0.75]).round(0 if attack.norm == "l0" else 6)]
    curve = robust_accuracy_curve(clf, X, y, eps=grid, attack=attack)
    correct = clf.predict(X) == y
    assert_allclose(curve, [(correct & (sizes > eps)).mean() for eps in grid])


def test_perturbation_norm():
    X = np.array([[0, 0, 0], [1, 2, 3]])
    X_adv = X + [[0, 3.0, -4.0], [0, 0, 0.5]]
    assert_allclose(FAB(norm="linf").perturbation_norm(X, X_adv), [4, 0.5])
    assert_allclose(FAB(norm="l2").perturbation_norm(X, X_adv), [5, 0.5])
    assert_allclose(FAB(norm="l1").perturbation_norm(X, X_adv), [7, 0.5])
    assert_allclose(FMN(norm="l0").perturbation_norm(X, X_adv), [2, 1])
    relative = FAB(norm="linf", eps=[1.0, 6.0, 2.0]).perturbation_norm(X, X_adv)
    assert_allclose(relative, [2, 0.25])
    assert np.isinf(FAB(eps=[1.0, 0.0, 1.0]).perturbation_norm(X, X_adv)[0])
    with pytest.raises(ValueError, match="same shape"):
        FAB().perturbation_norm(X, X_adv[:1])


@pytest.mark.parametrize(
    ("attack", "needed"),
    [
        (DDN(norm="linf"), "l2"),
        (CarliniWagner(norm="l1"), "l2"),
        (DeepFool(norm="l1"), "l2"),
        (SigmaZero(norm="l2"), "l0"),
        (FMN(norm="l0", eps=1.5), "number of features"),
        (FMN(gamma=1.0), "gamma"),
        (CarliniWagner(confidence=-1.0), "confidence"),
    ],
)
def test_errors_name_the_parameter(cancer, attack, needed):
    clf, X, y = cancer
    with pytest.raises(ValueError, match=needed):
        attack.perturb(clf, X, y)
