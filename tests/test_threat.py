"""Geometry: exact against convex solvers, admissible to the last bit, uniform where random."""

import copy
from dataclasses import FrozenInstanceError
from itertools import combinations

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy import stats

from skrobust.threat import LP_NORMS, ThreatModel, norm_factor
from skrobust.threat import NORMS as ALL_NORMS
from skrobust.threat._l1 import L1Set
from skrobust.threat._threat_model import FEASIBLE_SETS
from skrobust.utils._random import GeneratorNoise, RowNoise

NORMS = ["linf", "l2", "l1"]
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}

# What surrounds the ball: (eps per feature, bounds, mask).
SURROUNDINGS = {
    "plain": (False, None, False),
    "box": (False, "scalar", False),
    "one-sided box": (False, "open", False),
    "box per feature": (False, "array", False),
    "mask": (False, None, True),
    "eps per feature": (True, None, False),
    "eps per feature, box": (True, "array", False),
    "eps per feature, box, mask": (True, "array", True),
}


def make_case(norm, surrounding, seed, n_samples=6, n_features=5, reach=1.0):
    """A threat model, inputs inside its bounds, and points that are mostly outside of the ball."""
    varied, box, masked = SURROUNDINGS[surrounding]
    rng = np.random.default_rng(seed)
    eps = rng.uniform(0.2, 2.0, n_features) if varied else 0.7
    if varied:
        eps[rng.integers(n_features)] = 0.0
    x = rng.uniform(-1, 1, (n_samples, n_features))
    bounds = {
        None: None,
        "scalar": (-1.0, 1.0),
        "open": (-1.0, np.inf),
        "array": (-1 - rng.uniform(0, 0.5, n_features), 1 + rng.uniform(0, 0.2, n_features)),
    }[box]
    if bounds is not None:
        x[0, :2] = -1.0 if box != "array" else bounds[0][:2]  # on the edge of the box
    mask = None
    if masked:
        mask = np.ones(n_features, dtype=bool)
        mask[rng.choice(n_features, max(1, n_features // 3), replace=False)] = False
    # From hardly inside to far outside.
    z = x + rng.normal(size=x.shape) * np.geomspace(0.05, reach, n_samples)[:, None]
    return ThreatModel(eps, norm, bounds, mask), torch.from_numpy(x), torch.from_numpy(z)


def as_problem(threat, x):
    """Admissible points as a cvxpy variable with constraints, and the eps of what is free."""
    eps = np.broadcast_to(np.asarray(threat.eps, dtype=float), x.shape[1:])
    free = eps > 0
    if threat.mask is not None:
        free = free & threat.mask
    u = cp.Variable((len(x), int(free.sum())))
    constraints = [cp.norm(u[i], ORDERS[threat.norm]) <= 1 for i in range(len(x))]
    step = cp.multiply(u, np.broadcast_to(eps[free], u.shape))
    if threat.bounds is not None:
        low, high = (np.broadcast_to(side, x.shape)[:, free] for side in threat.bounds)
        constraints += [
            expression <= room
            for expression, room in [(step, high - x[:, free]), (-step, x[:, free] - low)]
            if np.isfinite(room).all()
        ]
    return u, constraints, eps[free], free


def solve(objective, constraints):
    problem = cp.Problem(objective, constraints)
    problem.solve(solver="CLARABEL")
    assert problem.status == "optimal"
    return problem.value


def assert_feasible(threat, z, x, atol=1e-12):
    """Inside up to rounding, judged without the code under test."""
    eps = np.broadcast_to(np.asarray(threat.eps, dtype=float), x.shape[1:])
    delta = z - x
    fixed = (eps == 0) if threat.mask is None else (eps == 0) | ~threat.mask
    np.testing.assert_array_equal(z[:, fixed], x[:, fixed])
    scaled = delta[:, ~fixed] / eps[~fixed]
    assert np.linalg.norm(scaled, ORDERS[threat.norm], axis=1).max() <= 1 + atol
    if threat.bounds is not None:
        assert (z >= threat.bounds[0] - atol).all()
        assert (z <= threat.bounds[1] + atol).all()


def assert_nearest(threat, x, z, projected):
    """Compare the value of the objective with that of the solver, and then the points."""
    u, constraints, eps, free = as_problem(threat, x)
    wanted = ((z - x)[:, free]) / eps
    value = solve(cp.Minimize(cp.sum_squares(u - wanted)), constraints)
    ours = (((projected - z)[:, free] / eps) ** 2).sum(1)
    best = ((u.value - wanted) ** 2).sum(1)
    np.testing.assert_allclose(ours, best, rtol=1e-6, atol=1e-8 * max(1, value))
    np.testing.assert_allclose((projected - x)[:, free] / eps, u.value, atol=1e-4)


def assert_no_better_direction(threat, x, z, projected):
    """The projection ``p`` onto a convex set is the point with ``<z - p, q - p> <= 0`` for all q.

    Which is exact where a solver has tolerances.
    """
    _, _, eps, free = as_problem(threat, x.numpy())
    rng = np.random.default_rng(0)
    away = ((z - projected)[:, free]) / eps
    for scale in np.geomspace(1e-6, 10, 30):
        q = threat.project(torch.from_numpy(projected + scale * rng.normal(size=x.shape)), x)
        towards = (q.numpy() - projected)[:, free] / eps
        products = (away * towards).sum(1)
        assert (products <= 1e-13 * (1 + np.abs(away).sum(1))).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("norm", NORMS)
def test_projection_against_solver(norm, surrounding, seed):
    threat, x, z = make_case(norm, surrounding, seed)
    projected = threat.project(z, x).numpy()
    assert_feasible(threat, projected, x.numpy())
    assert_nearest(threat, x.numpy(), z.numpy(), projected)
    assert_no_better_direction(threat, x, z.numpy(), projected)


@pytest.mark.parametrize("surrounding", ["plain", "eps per feature, box, mask"])
@pytest.mark.parametrize("norm", NORMS)
def test_projection_in_higher_dimension(norm, surrounding):
    threat, x, z = make_case(norm, surrounding, 0, n_samples=3, n_features=150, reach=0.5)
    projected = threat.project(z, x).numpy()
    assert_feasible(threat, projected, x.numpy())
    assert_nearest(threat, x.numpy(), z.numpy(), projected)
    assert_no_better_direction(threat, x, z.numpy(), projected)


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("norm", NORMS)
def test_projection_in_single_precision(norm, surrounding):
    threat, x, z = make_case(norm, surrounding, 1, n_samples=8, n_features=300)
    single = threat.project(z.float(), x.float())
    assert single.dtype == torch.float32
    double = threat.project(z.float().double(), x.float().double())
    np.testing.assert_allclose(single, double, rtol=0, atol=2e-5)


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_idempotent_and_keeps_admissible_points(norm, surrounding):
    threat, x, z = make_case(norm, surrounding, 2, n_samples=20)
    once = threat.project(z, x)
    np.testing.assert_allclose(threat.project(once, x), once, rtol=0, atol=1e-14)
    inner = x + 0.999 * (once - x)
    np.testing.assert_allclose(threat.project(inner, x), inner, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(threat.project(x, x), x)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_of_extreme_points(norm):
    threat = ThreatModel(0.5, norm, bounds=(0, 1))
    x = torch.tensor([[0.0, 0.5, 1.0]] * 4, dtype=torch.float64)
    z = torch.tensor(
        [[-1e200, 0.5, 1e200], [1e-200, 0.5, 1.0], [1e9, 1e9, 1e9], [0.0, 0.5, 1.0]],
        dtype=torch.float64,
    )
    projected = threat.project(z, x).numpy()
    assert_feasible(threat, projected, x.numpy())
    np.testing.assert_array_equal(projected[[0, 3]], x[[0, 3]])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "function", ["project", "maximize_linear", "project_exactly", "random_start"]
)
def test_functions_leave_their_arguments_alone(norm, function):
    threat, x, z = make_case(norm, "box", 0)
    x_before, z_before = x.clone(), z.clone()
    if function == "random_start":
        threat.random_start(x)
    else:
        getattr(threat, function)(z, x)
    assert torch.equal(x, x_before)
    assert torch.equal(z, z_before)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("norm", NORMS)
def test_steepest_against_solver(norm, surrounding, seed):
    threat, x, _ = make_case(norm, surrounding, seed)
    rng = np.random.default_rng(seed)
    grad = torch.from_numpy(rng.normal(size=x.shape) * rng.choice([0.0, 1.0, 50.0], x.shape))
    best = threat.maximize_linear(grad, x)
    assert_feasible(threat, best.numpy(), x.numpy())

    u, constraints, eps, free = as_problem(threat, x.numpy())
    slope = grad.numpy()[:, free] * eps
    value = solve(cp.Maximize(cp.sum(cp.multiply(slope, u))), constraints)
    ours = ((best - x) * grad).sum()
    np.testing.assert_allclose(ours, value, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("norm", NORMS)
def test_bound_of_linear_functions_is_the_maximum(norm, surrounding, seed):
    threat, x, _ = make_case(norm, surrounding, seed)
    rng = np.random.default_rng(seed)
    grad = torch.from_numpy(rng.normal(size=x.shape) * rng.choice([0.0, 1.0, 50.0], x.shape))
    bound = threat.feasible_set(x).linear_upper_bound(grad)
    gain = ((threat.maximize_linear(grad, x) - x) * grad).sum(1)
    np.testing.assert_allclose(bound, gain, rtol=1e-12, atol=1e-13)
    u, constraints, eps, free = as_problem(threat, x.numpy())
    value = solve(cp.Maximize(cp.sum(cp.multiply(grad.numpy()[:, free] * eps, u))), constraints)
    np.testing.assert_allclose(bound.sum(), value, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_bound_of_linear_functions_holds_for_every_split(norm, surrounding, monkeypatch):
    """Weak duality: what the maximiser gets wrong makes the bound larger, never wrong."""
    threat, x, z = make_case(norm, surrounding, 0, n_samples=200)
    grad = z - x
    gain = ((threat.maximize_linear(grad, x) - x) * grad).sum(1)
    feasible_set = threat.feasible_set(x)
    rng = np.random.default_rng(0)

    def fill(size, room):
        return room, size * torch.from_numpy(rng.uniform(size=size.shape))

    monkeypatch.setattr(feasible_set, "_fill", fill)
    bound = feasible_set.linear_upper_bound(grad)
    # Without a box the rooms end at the radius.
    assert (bound >= gain - 1e-12).all()
    assert (bound > 1.01 * gain).any()


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("norm", NORMS)
def test_bound_of_linear_functions_in_single_precision(norm, surrounding):
    threat, x, z = make_case(norm, surrounding, 0, n_samples=40, n_features=300)
    grad = z - x
    exact = threat.feasible_set(x).linear_upper_bound(grad)
    single = threat.feasible_set(x.float()).linear_upper_bound(grad.float())
    np.testing.assert_allclose(single, exact, rtol=2e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_ignores_the_size_of_the_gradient(norm):
    threat, x, z = make_case(norm, "box", 0)
    grad = z - x
    tiny = threat.maximize_linear(grad * 1e-200, x)
    np.testing.assert_allclose(tiny, threat.maximize_linear(grad, x), rtol=1e-9)
    assert torch.equal(threat.maximize_linear(torch.zeros_like(x), x), x)


@pytest.mark.parametrize("norm", NORMS)
def test_images_are_flat_features(norm):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.uniform(size=(4, 2, 3, 3)))
    z = x + torch.from_numpy(rng.normal(size=x.shape))
    eps, mask = rng.uniform(0.1, 1, 18), rng.uniform(size=18) < 0.7
    flat = ThreatModel(eps, norm, (0, 1), mask)
    shaped = ThreatModel(eps.reshape(2, 3, 3), norm, (0, 1), mask.reshape(2, 3, 3))
    for threat in (flat, shaped):
        for function in (threat.project, threat.maximize_linear, threat.project_exactly):
            result = function(z, x)
            assert result.shape == x.shape
            name = function.__name__
            expected = getattr(flat, name)(z.flatten(1), x.flatten(1))
            np.testing.assert_allclose(result.flatten(1), expected, rtol=1e-12)
        assert threat.contains(threat.project_exactly(z, x), x).all()
        assert threat.random_start(x).shape == x.shape


@pytest.mark.parametrize("mask", [[0, 2], [-3, 2], [True, False, True], np.array([2, 0])])
def test_masks_by_index_and_bool(mask):
    threat = ThreatModel(1.0, mask=mask)
    x = torch.zeros(1, 3)
    assert threat.project(x + 5, x).tolist() == [[1, 0, 1]]


def test_masks_by_name():
    threat = ThreatModel(1.0, mask=["c", "a"], feature_names=["a", "b", "c"])
    x = torch.zeros(1, 3)
    assert threat.project(x + 5, x).tolist() == [[1, 0, 1]]


@pytest.mark.parametrize("mask", [[], [False, False, False]])
@pytest.mark.parametrize("norm", NORMS)
def test_empty_mask_allows_nothing(norm, mask):
    threat = ThreatModel(1.0, norm, mask=mask)
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    for result in (
        threat.project(x + 5, x),
        threat.maximize_linear(x + 5, x),
        threat.feasible_set(x).step_(x.clone(), x + 5, 1.0),
        threat.project_exactly(x + 5, x),
        threat.random_start(x),
    ):
        assert torch.equal(result, x)


@pytest.mark.parametrize("norm", NORMS)
def test_zero_eps_allows_nothing(norm):
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    for eps in (0.0, [0.0, 0.0, 0.0]):
        threat = ThreatModel(eps, norm)
        for result in (
            threat.project(x + 5, x),
            threat.project_exactly(x + 5, x),
            threat.random_start(x),
        ):
            assert torch.equal(result, x)
        assert threat.contains(x, x).all()
        assert not threat.contains(torch.nextafter(x, x + 1), x).any()


# --- to the last bit ---

AWKWARD_EPS = [0.1, 1 / 3, 8 / 255, 1e-3, 1e-8, 1e-30, 3.0]


def make_points(dtype, scale, norm, eps, n_features=40, n_samples=50):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(scale * rng.uniform(-1, 1, (n_samples, n_features))).to(dtype)
    direction = rng.normal(size=x.shape)
    direction /= np.linalg.norm(direction, ORDERS[norm], axis=1, keepdims=True)
    length = np.geomspace(0.9, 20, n_samples)[:, None]
    return x, x.double() + torch.from_numpy(eps * length * direction)


def assert_inside_in_numpy(a, x, eps, norm):
    """Everybody's own check: no tolerance, in the dtype of the data and in float64."""
    for type_ in (x.dtype, np.float64):
        delta = a.astype(type_) - x.astype(type_)
        if np.ndim(eps) == 0:
            if norm == "linf":
                assert float(np.abs(delta).max()) <= eps  # not rounded to the dtype of delta
            else:
                assert float(np.linalg.norm(delta, ORDERS[norm], axis=1).max()) <= eps
        else:
            assert np.linalg.norm(delta / eps, ORDERS[norm], axis=1).max() <= 1


@pytest.mark.parametrize("eps", AWKWARD_EPS)
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", NORMS)
def test_inside_to_the_last_bit(norm, dtype, scale, eps):
    x, z = make_points(dtype, scale, norm, eps)
    for threat in (
        ThreatModel(eps, norm),
        ThreatModel(eps, norm, bounds=(-scale * 1.0000001, scale * 1.0000001)),
        ThreatModel(eps, norm, bounds=(x.min().item(), x.max().item())),
    ):
        for start in (z, z.to(dtype)):
            a = threat.project_exactly(start, x)
            assert a.dtype == dtype
            assert threat.contains(a, x).all()
            assert_inside_in_numpy(a.numpy(), x.numpy(), eps, norm)
            if threat.bounds is not None:
                low, high = (a.new_tensor(side) for side in threat.bounds)
                assert (a >= low).all()
                assert (a <= high).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_inside_with_eps_per_feature(norm, dtype, scale):
    rng = np.random.default_rng(1)
    x, _ = make_points(dtype, scale, norm, 1.0)
    eps = 10 ** rng.uniform(-6, 1, x.shape[1])
    z = x.double() + torch.from_numpy(5 * eps * rng.normal(size=x.shape))
    a = ThreatModel(eps, norm).project_exactly(z, x)
    assert ThreatModel(eps, norm).contains(a, x).all()
    assert_inside_in_numpy(a.numpy().astype(np.float64), x.numpy().astype(np.float64), eps, norm)


@pytest.mark.parametrize("n_features", [3072, 30_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_inside_in_high_dimension(norm, dtype, n_features):
    """Where the sum of the norm has many terms to round."""
    x, z = make_points(dtype, 1.0, norm, 0.3, n_features=n_features, n_samples=6)
    threat = ThreatModel(0.3, norm, bounds=(-1, 1))
    a = threat.project_exactly(z, x)
    assert threat.contains(a, x).all()
    assert_inside_in_numpy(a.double().numpy(), x.double().numpy(), 0.3, norm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", NORMS)
def test_inside_wastes_hardly_anything(norm, dtype):
    x, z = make_points(dtype, 1.0, norm, 0.1)
    a = ThreatModel(0.1, norm).project_exactly(z, x).double()
    far = slice(5, None)  # beyond the ball
    length = np.linalg.norm((a - x.double()).numpy(), ORDERS[norm], axis=1)[far]
    slack = 200 * torch.finfo(dtype).eps
    np.testing.assert_allclose(length, 0.1, rtol=0, atol=slack)
    # And it is the projection.
    np.testing.assert_allclose(a, ThreatModel(0.1, norm).project(z, x.double()), atol=slack)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("how", ["mask", "zero eps"])
def test_inside_keeps_masked_features_bit_for_bit(norm, dtype, how):
    x, z = make_points(dtype, 1e3, norm, 50.0, n_features=6)
    x[0] = -0.0
    x[1] = torch.finfo(dtype).tiny / 4  # subnormal
    fixed = [0, 3, 4]
    threat = (
        ThreatModel(50.0, norm, bounds=(-1e4, 1e4), mask=[1, 2, 5])
        if how == "mask"
        else ThreatModel([0, 50.0, 50.0, 0, 0, 50.0], norm, bounds=(-1e4, 1e4))
    )
    a = threat.project_exactly(z, x)
    bits = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    assert torch.equal(a[:, fixed].view(bits), x[:, fixed].view(bits))
    assert not torch.equal(a, x)


def test_contains_is_strict():
    x = torch.zeros(1, 3, dtype=torch.float64)
    e = torch.tensor([[0.25, 0.0, 0.0]], dtype=torch.float64)
    beyond = torch.nextafter(e, e + 1)
    for norm in NORMS:
        for eps in (0.25, [0.25, 0.0, 1.0]):
            threat = ThreatModel(eps, norm)
            assert threat.contains(e, x).tolist() == [True]
            assert threat.contains(-e, x).tolist() == [True]
            beyond = torch.tensor([[np.nextafter(0.25, 1) * (1 + 1e-15), 0, 0]])
            assert threat.contains(beyond, x).tolist() == [False]
        assert ThreatModel(0.25, norm, (-1, 0.2)).contains(e, x).tolist() == [False]
        assert ThreatModel(0.25, norm, (-0.2, 1)).contains(-e, x).tolist() == [False]
        assert ThreatModel(0.25, norm, mask=[1, 2]).contains(e, x).tolist() == [False]
        assert ThreatModel(0.25, norm, mask=[0]).contains(e, x).tolist() == [True]
    corner = torch.full_like(x, 0.25)
    assert [ThreatModel(0.25, n).contains(corner, x).item() for n in NORMS] == [True, False, False]
    assert ThreatModel(0.25 * 3, "l1").contains(corner, x).item()


def test_contains_judges_each_row():
    x = torch.zeros(3, 2)
    a = torch.tensor([[0.0, 0.5], [0.6, 0.0], [0.0, 0.0]])
    assert ThreatModel(0.5).contains(a, x).tolist() == [True, False, True]
    assert not ThreatModel(0.5).contains(torch.full_like(x, torch.nan), x).any()


def test_inputs_outside_of_bounds_make_no_empty_set():
    threat = ThreatModel(0.1, "linf", bounds=(0, 1))
    x = torch.tensor([[2.0]])
    assert threat.project(torch.tensor([[5.0]]), x).item() == 2.0
    assert threat.project(torch.tensor([[0.0]]), x).item() == pytest.approx(1.9)


# --- random starts ---


def draw(threat, x, source):
    noise = GeneratorNoise(x, torch.Generator().manual_seed(3)) if source == "generator" else None
    return threat.feasible_set(x).random_start(noise if noise is not None else RowNoise(x, 3))


def distinct_rows(n_features, n_samples=4000, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n_samples, n_features, generator=generator, dtype=dtype)


def ball_marginal(norm, d):
    """Distribution function of one coordinate of a uniform point of the unit ball."""
    if norm == "linf":
        return lambda t: (1 + t) / 2
    if norm == "l2":
        return lambda t: stats.beta((d + 1) / 2, (d + 1) / 2).cdf((1 + t) / 2)
    return lambda t: 0.5 + 0.5 * np.sign(t) * (1 - (1 - np.abs(t)) ** d)


@pytest.mark.parametrize("source", ["generator", "rows"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "kind", ["scalar eps", "eps per feature", "mask", "eps per feature and mask"]
)
@pytest.mark.parametrize("norm", NORMS)
def test_random_start_is_uniform_in_the_ball(norm, kind, dtype, source):
    d = 5
    eps = np.array([0.5, 2.0, 0.0, 1.0, 4.0]) if "per feature" in kind else 2.0
    mask = [0, 3, 2] if "mask" in kind else None
    free = np.broadcast_to(np.asarray(eps) > 0, d).copy()
    if mask is not None:
        free &= np.isin(np.arange(d), mask)
    threat = ThreatModel(eps, norm, mask=mask)
    x = distinct_rows(d, dtype=dtype)
    delta = (draw(threat, x, source) - x).double().numpy()
    assert (delta[:, ~free] == 0).all()

    u = (delta / np.where(np.asarray(eps) > 0, eps, 1.0))[:, free]
    n_free = int(free.sum())
    radius = np.linalg.norm(u, ORDERS[norm], axis=1)
    assert radius.max() <= 1 + 1e-6
    assert stats.kstest(radius**n_free, "uniform").pvalue > 1e-3
    for column in u.T:
        assert stats.kstest(column, ball_marginal(norm, n_free)).pvalue > 1e-4
    assert (np.abs((u > 0).mean(0) - 0.5) < 4 * 0.5 / np.sqrt(len(u))).all()
    # Signs are independent of one another, and of the radius.
    agreement = np.corrcoef(np.column_stack([np.sign(u), radius]).T)
    assert np.abs(agreement - np.eye(n_free + 1)).max() < 5 / np.sqrt(len(u))


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_stays_in_the_box(norm):
    x = distinct_rows(4, n_samples=500)
    threat = ThreatModel(1.0, norm, bounds=(0, 1))
    for source in ("generator", "rows"):
        start = draw(threat, x, source)
        assert_feasible(threat, start.numpy(), x.numpy())
        assert (start != x).any(1).all()


def test_random_start_of_a_generator_repeats():
    x, threat = distinct_rows(4, n_samples=5), ThreatModel(1.0, "l2")

    def start(seed):
        return threat.random_start(x, torch.Generator().manual_seed(seed))

    assert torch.equal(start(0), start(0))
    assert not torch.equal(start(0), start(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_row_noise_depends_on_row_and_seed_alone(dtype):
    x = distinct_rows(7, n_samples=40, dtype=dtype)
    noise = RowNoise(x, 5)
    first, second = noise.uniform(9), noise.uniform(4)
    assert first.dtype == dtype
    assert (first >= 0).all()
    assert (first < 1).all()

    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    for rows in (order, order[:7], [3], slice(10, 20)):
        part = RowNoise(x[rows], 5)
        assert torch.equal(part.uniform(9), first[rows])
        assert torch.equal(part.uniform(4), second[rows])
    other = RowNoise(x, 6).uniform(9)
    assert (other != first).float().mean() > 0.99
    # Every draw is a new one, and rows differ.
    assert len(torch.unique(torch.cat([first, second], 1))) >= 40 * 13 - 2


def test_row_noise_is_uniform_and_uncorrelated():
    x = torch.arange(3000, dtype=torch.float64)[:, None]  # neighbours that differ by little
    u = torch.cat([RowNoise(x, seed).uniform(3) for seed in range(3)], 1).numpy()
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(u.T) - np.eye(9)).max() < 5 / np.sqrt(len(u))
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 5 / np.sqrt(len(u))


# --- feasible sets ---


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("norm", NORMS)
def test_take_is_the_geometry_of_the_rows(norm, surrounding):
    threat, x, z = make_case(norm, surrounding, 0, n_samples=10)
    whole = threat.feasible_set(x)
    for rows in (torch.tensor([7, 2]), torch.arange(10) % 3 == 0):
        part = whole.take(rows)
        assert torch.equal(part.x, x[rows])
        np.testing.assert_allclose(part.project_(z[rows].clone()), threat.project(z, x)[rows])
        np.testing.assert_allclose(
            part.maximize_linear(z[rows]), threat.maximize_linear(z, x)[rows]
        )
        noise = RowNoise(x[rows], 0)
        np.testing.assert_allclose(
            part.random_start(noise), whole.random_start(RowNoise(x, 0))[rows]
        )
    assert torch.equal(whole.x, x)  # the whole is still whole


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("norm", NORMS)
def test_steps_climb_and_stay_inside(norm, surrounding):
    threat, x, _ = make_case(norm, surrounding, 0, n_samples=10, n_features=30)
    slope = torch.from_numpy(np.random.default_rng(5).normal(size=x.shape))
    feasible_set, point = threat.feasible_set(x), x.clone()
    before = -torch.inf
    for _ in range(4):
        point = feasible_set.step_(point, slope.clone(), 0.4)
        assert_feasible(threat, point.numpy(), x.numpy())
        value = ((point - x) * slope).sum(1)
        if threat.bounds is None:  # else a feature that hits the box changes the direction
            assert (value >= before - 1e-9).all()
        before = value
    assert (value > 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_step_has_the_length_that_is_asked_for(norm):
    threat = ThreatModel(2.0, norm)
    x = torch.zeros(4, 30, dtype=torch.float64)
    grad = torch.from_numpy(np.random.default_rng(0).normal(size=x.shape))
    step = threat.feasible_set(x).step_(x.clone(), grad, 0.25)
    lengths = np.linalg.norm(step, ORDERS[norm], axis=1)
    np.testing.assert_allclose(lengths, 0.5)


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("norm", NORMS)
def test_steps_of_a_length_for_each_row(norm, surrounding):
    threat, x, z = make_case(norm, surrounding, 0, n_samples=8, n_features=60)
    feasible_set, start = threat.feasible_set(x), threat.project(z, x)
    slope = torch.from_numpy(np.random.default_rng(5).normal(size=x.shape))
    fraction = torch.linspace(0, 2, 8, dtype=x.dtype)[:, None]
    steps = feasible_set.step_(start.clone(), slope.clone(), fraction)
    for i, length in enumerate(fraction[:, 0].tolist()):
        row = [i]
        alone = feasible_set.take(row).step_(start[row], slope[row], length)
        np.testing.assert_allclose(steps[row], alone, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("norm", NORMS)
def test_steps_of_images(norm):
    x = torch.rand(5, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    feasible_set = ThreatModel(0.3, norm, (0, 1)).feasible_set(x)
    for fraction in (0.7, torch.full((5, 1), 0.7)):
        z = feasible_set.step_(x.clone(), x - 0.5, fraction)
        flat = ThreatModel(0.3, norm, (0, 1)).feasible_set(x.flatten(1))
        expected = flat.step_(x.flatten(1).clone(), (x - 0.5).flatten(1), 0.7)
        np.testing.assert_allclose(z.flatten(1), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("surrounding", ["plain", "eps per feature, box"])
@pytest.mark.parametrize("norm", NORMS)
def test_rows_do_not_depend_on_their_neighbours(norm, surrounding, dtype):
    """To the last bit."""
    threat, x, z = make_case(norm, surrounding, 0, n_samples=50, n_features=700, reach=10.0)
    x, z = x.to(dtype), z.to(dtype)
    feasible_set, grad = threat.feasible_set(x), z.flip(1) - x
    projected = feasible_set.project_(z.clone())
    steps = feasible_set.step_(projected.clone(), grad.clone(), 0.5)
    for i in range(50):
        part = feasible_set.take([i])
        assert torch.equal(part.project_(z[[i]]), projected[[i]])
        assert torch.equal(part.step_(projected[[i]], grad[[i]], 0.5), steps[[i]])


@pytest.mark.parametrize("norm", ALL_NORMS)
def test_results_share_no_memory(norm):
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    feasible_set = ThreatModel(2, norm, (0, 1)).feasible_set(x)
    calls = [
        lambda z: feasible_set.project_(z.clone()),
        feasible_set.perturbation,
        feasible_set.maximize_linear,
    ]
    if norm != "l0":
        calls += [
            lambda z: feasible_set.random_start(RowNoise(z, 0)),
            lambda z: feasible_set.step_(x.clone(), z.clone(), 0.5),
        ]
    for call in calls:
        result = call(1 - x)
        before = result.clone()
        for other in calls:
            other(2 * x)
        assert torch.equal(result, before)


# --- l0 ---

ONE_EPS = [name for name, (varied, *_) in SURROUNDINGS.items() if not varied]


def make_sparse_case(surrounding, n_changed, seed, **sizes):
    threat, x, z = make_case("linf", surrounding, seed, **sizes)
    return ThreatModel(n_changed, "l0", threat.bounds, threat.mask), x, z


def changeable_features(threat, n_features):
    return np.arange(n_features) if threat.mask is None else np.flatnonzero(threat.mask)


def cheapest_subset(free, n_changed, cost):
    """Least cost over all sets of so many features that can change."""
    n_changed = min(int(n_changed), len(free))
    return np.min([cost(list(s)) for s in combinations(free, n_changed)], axis=0)


def assert_sparse(threat, z, x):
    """Admissible in l0, judged without the code under test."""
    changed = z != x
    assert (changed.sum(1) <= threat.eps).all()
    assert set(np.flatnonzero(changed.any(0))) <= set(changeable_features(threat, x.shape[1]))
    if threat.bounds is not None:
        assert (z >= threat.bounds[0]).all()
        assert (z <= threat.bounds[1]).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_changed", [0, 1, 3, 6, 9])
@pytest.mark.parametrize("surrounding", ONE_EPS)
def test_l0_projection_against_enumeration(surrounding, n_changed, seed):
    threat, x, z = make_sparse_case(surrounding, n_changed, seed, n_features=6, reach=3.0)
    projected = threat.project(z, x).numpy()
    x, z = x.numpy(), z.numpy()
    assert_sparse(threat, projected, x)

    def cost(changed):
        nearest = x.copy()
        low, high = threat.bounds or (-np.inf, np.inf)
        nearest[:, changed] = np.clip(z, low, high)[:, changed]
        return ((nearest - z) ** 2).sum(1)

    best = cheapest_subset(changeable_features(threat, 6), n_changed, cost)
    np.testing.assert_allclose(((projected - z) ** 2).sum(1), best, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_changed", [0, 1, 3, 9])
@pytest.mark.parametrize("surrounding", ["box", "box per feature", "box and mask"])
def test_l0_steepest_against_enumeration(surrounding, n_changed, seed):
    if surrounding == "box and mask":
        threat, x, z = make_sparse_case("mask", n_changed, seed, n_features=6)
        threat = ThreatModel(n_changed, "l0", (-1, 1), threat.mask)
    else:
        threat, x, z = make_sparse_case(surrounding, n_changed, seed, n_features=6)
    grad = z - x
    best = threat.maximize_linear(grad, x)
    assert_sparse(threat, best.numpy(), x.numpy())
    x, grad = x.numpy(), grad.numpy()
    edge = np.where(grad > 0, threat.bounds[1], threat.bounds[0])

    def cost(changed):
        return -((edge - x) * grad)[:, changed].sum(1)

    value = -cheapest_subset(changeable_features(threat, 6), n_changed, cost)
    np.testing.assert_allclose(((best.numpy() - x) * grad).sum(1), value, rtol=1e-12)
    changed = best.numpy() != x
    assert (best.numpy() == edge)[changed].all()  # to the last bit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_l0_projection_in_high_dimension(dtype):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.uniform(size=(60, 784))).to(dtype)
    z = x + torch.from_numpy(rng.normal(size=x.shape)).to(dtype)
    projected = ThreatModel(30, "l0").project(z, x)
    for one, start, wanted in zip(projected, x, z, strict=True):
        largest = (wanted - start).abs().argsort()[-30:]
        expected = start.clone()
        expected[largest] = wanted[largest]
        assert torch.equal(one, expected)


@pytest.mark.parametrize("n_features", [6, 6000])  # fewer and more values than are counted
def test_l0_keeps_so_many_of_equal_ones(n_features):
    x = torch.zeros(10, n_features)
    projected = ThreatModel(4, "l0").project(x + 1, x)
    assert (projected[:, :4] == 1).all()
    assert (projected[:, 4:] == 0).all()


def test_l0_projection_of_extreme_points():
    x = torch.zeros(3, 4, dtype=torch.float64)
    z = x.new_tensor([[1e200, -1e300, 1e250, 0], [1e-200, 0, 1e-300, -1e-250], [0, 0, 0, 0]])
    projected = ThreatModel(2, "l0").project(z, x).tolist()
    assert projected == [[0, -1e300, 1e250, 0], [1e-200, 0, 0, -1e-250], [0, 0, 0, 0]]


def test_l0_of_images_and_parts():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.uniform(size=(8, 2, 3, 3)))
    z = x + torch.from_numpy(rng.normal(size=x.shape))
    threat = ThreatModel(4, "l0", (0, 1), mask=rng.uniform(size=18) < 0.7)
    for name in ("project", "maximize_linear", "project_exactly"):
        result = getattr(threat, name)(z, x)
        assert result.shape == x.shape
        flat = getattr(threat, name)(z.flatten(1), x.flatten(1))
        np.testing.assert_array_equal(result.flatten(1), flat)
        assert threat.contains(result, x).all()
    part = threat.feasible_set(x).take(torch.tensor([5, 1]))
    assert torch.equal(part.project_(z[[5, 1]]), threat.project(z, x)[[5, 1]])
    delta = threat.feasible_set(x).perturbation(z)
    np.testing.assert_allclose(delta, threat.project(z, x) - x)


@pytest.mark.parametrize("n_changed", [0, 1, 7])
@pytest.mark.parametrize("scale", [1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_l0_inside_to_the_last_bit(dtype, scale, n_changed):
    x, z = make_points(dtype, scale, "l2", scale)
    for bounds in (None, (-scale * 1.0000001, scale * 1.0000001), (x.min().item(), x.max().item())):
        threat = ThreatModel(n_changed, "l0", bounds, mask=np.arange(40) % 3 > 0)
        for start in (z, z.to(dtype), z * 1e100):
            a = threat.project_exactly(start, x)
            assert a.dtype == dtype
            assert a.isfinite().all()
            assert threat.contains(a, x).all()
            low, high = bounds or (-np.inf, np.inf)
            inner = (a > a.new_tensor(low)) & (a < a.new_tensor(high)) & (start.abs() < 1e30)
            assert ((a == x) | (a == start.to(dtype)) | ~inner).all()  # its value or none
            assert torch.equal(threat.project_exactly(a, x), a)


def test_l0_contains():
    x = torch.zeros(1, 4)
    threat = ThreatModel(2, "l0")
    assert threat.contains(torch.tensor([[1e-30, 0, 0, 1e30]]), x).item()
    assert not threat.contains(torch.tensor([[1.0, 1.0, 1e-30, 0]]), x).item()
    assert not threat.contains(torch.tensor([[torch.nan, 0, 0, 0]]), x).item()
    assert not threat.contains(torch.tensor([[torch.inf, 0, 0, 0]]), x).item()
    one = torch.tensor([[0, 0.5, 0, 0]])
    assert ThreatModel(1, "l0", mask=[1]).contains(one, x).item()
    assert not ThreatModel(1, "l0", mask=[0, 2]).contains(one, x).item()
    assert not ThreatModel(1, "l0", (-1, 0.4)).contains(one, x).item()
    assert not ThreatModel(0, "l0").contains(one, x).item()
    assert ThreatModel(0, "l0").contains(x, x).item()


@pytest.mark.parametrize("bounds", [None, (0, np.inf), ([0, -np.inf, 0], [1, 1, 1])])
def test_l0_needs_bounds_for_steepest_points(bounds):
    x = torch.full((1, 3), 0.5)
    with pytest.raises(ValueError, match="The steepest point with norm='l0' needs finite bounds"):
        ThreatModel(1, "l0", bounds).maximize_linear(x, x)
    x_wide = torch.zeros(1, 3)
    bound = ThreatModel(2, "l0", (-1, 2)).feasible_set(x_wide)
    assert bound.linear_upper_bound(torch.tensor([[1.0, -3.0, 0.5]])).item() == 5.0
    masked = ThreatModel(1, "l0", ([0, -np.inf, 0], [1, 1, 1]), mask=[0, 2])
    assert masked.maximize_linear(x, x).tolist() == [[1, 0.5, 0.5]]


def test_l0_has_no_lengths():
    x = torch.full((1, 3), 0.5)
    threat = ThreatModel(1, "l0", (0, 1))
    message = "needs a norm that measures lengths, 'linf', 'l2' or 'l1'; got norm='l0'"
    with pytest.raises(ValueError, match=f"A step {message}"):
        threat.feasible_set(x).step_(x.clone(), x.clone(), 1.0)
    with pytest.raises(ValueError, match=f"A random start {message}"):
        threat.random_start(x)
    with pytest.raises(ValueError, match=r"The dual norm needs .*; got norm='l0'\."):
        threat.dual_norm(x)


# --- without a radius ---


@pytest.mark.parametrize("mask", [None, [0, 2]])
@pytest.mark.parametrize("bounds", [None, (-1, np.inf), (-1, 1), ([-1, 0, -2], 1)])
def test_infinite_eps_leaves_bounds_and_mask(bounds, mask):
    threat = ThreatModel(np.inf, "linf", bounds, mask)
    x = torch.tensor([[0.5, 0.25, -0.5], [0.0, 1.0, -1.0]])
    z = torch.tensor([[9.0, -9.0, 0.3], [1e30, -1e30, 1e-30]])
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    expected = np.clip(z.numpy(), low, high).astype(np.float32)
    if mask is not None:
        expected[:, 1] = x[:, 1]
    feasible_set = threat.feasible_set(x)
    for result in (
        threat.project(z, x),
        threat.project_exactly(z, x),
        threat.project_exactly(z.double(), x),
    ):
        np.testing.assert_array_equal(result, expected)
        assert threat.contains(result, x).all()
    np.testing.assert_array_equal(feasible_set.perturbation(z), expected - x.numpy())
    np.testing.assert_array_equal(feasible_set.take([1]).project_(z[[1]]), expected[[1]])
    beyond = torch.from_numpy(expected) - torch.tensor([[0, 20.0, 0]])
    assert threat.contains(beyond, x).all() == (mask is None and bounds is None)
    assert not threat.contains(torch.full_like(x, torch.inf), x).any()
    assert not threat.contains(torch.full_like(x, torch.nan), x).any()


def test_infinite_eps_inside_is_finite():
    x = torch.zeros(1, 2)
    z = torch.tensor([[1e300, -1e300]], dtype=torch.float64)
    threat = ThreatModel(np.inf)
    largest = torch.finfo(torch.float32).max
    assert threat.project_exactly(z, x).tolist() == [[largest, -largest]]
    assert threat.contains(threat.project_exactly(z, x), x).all()


def test_infinite_eps_in_a_finite_box():
    threat = ThreatModel(np.inf, "linf", ([-1, 0, 3], [1, 10, 3]), mask=[1, 2])
    x = distinct_rows(3, n_samples=2000)
    x[:, 2] = 3.0
    for source in ("generator", "rows"):
        start = draw(threat, x, source)
        assert torch.equal(start[:, [0, 2]], x[:, [0, 2]])
        assert stats.kstest(start[:, 1].numpy() / 10, "uniform").pvalue > 1e-3
    grad = torch.tensor([[1.0, -1.0, 1.0]], dtype=x.dtype).expand_as(x)
    best = threat.maximize_linear(grad, x)
    np.testing.assert_array_equal(best, np.column_stack([x[:, 0], 0 * x[:, 0], x[:, 2]]))
    # A step is a share of half the width of the box.
    for fraction in (0.02, torch.full((len(x), 1), 0.02, dtype=x.dtype)):
        step = threat.feasible_set(x).step_(x.clone(), -grad.clone(), fraction) - x
        np.testing.assert_allclose(step[:, 1], 0.1)
        assert (step[:, [0, 2]] == 0).all()


@pytest.mark.parametrize("bounds", [None, (-1, np.inf)])
def test_infinite_eps_needs_bounds(bounds):
    threat = ThreatModel(np.inf, bounds=bounds)
    x = torch.zeros(2, 3)
    message = "with eps=inf needs finite bounds of all features that the attacker can change"
    with pytest.raises(ValueError, match=f"The steepest point {message}"):
        threat.maximize_linear(x, x)
    with pytest.raises(ValueError, match=f"A random start {message}"):
        threat.random_start(x)
    with pytest.raises(ValueError, match=f"A step {message}"):
        threat.feasible_set(x).step_(x.clone(), x.clone(), 1.0)
    with pytest.raises(ValueError, match=r"The dual norm needs .*; got eps=inf\."):
        threat.dual_norm(x)


@pytest.mark.parametrize("surrounding", ["plain", "mask", "eps per feature"])
@pytest.mark.parametrize("norm", NORMS)
def test_dual_norm_is_what_the_steepest_point_gains(norm, surrounding):
    threat, x, z = make_case(norm, surrounding, 0)
    grad = (z - x).requires_grad_()
    dual = threat.dual_norm(grad)
    best = threat.maximize_linear(grad.detach(), x)
    np.testing.assert_allclose(dual.detach(), ((best - x) * (z - x)).sum(1))
    (slope,) = torch.autograd.grad(dual.sum(), grad)
    np.testing.assert_allclose(slope, best - x, atol=1e-14)


# --- norms and sizes ---


@pytest.mark.parametrize("wanted", NORMS)
@pytest.mark.parametrize("own", NORMS)
def test_norm_factor_is_the_largest_that_holds(own, wanted):
    n = 16
    factor = norm_factor(own, wanted, n)
    extreme = np.array([np.eye(n)[0], np.ones(n)])
    radius = np.linalg.norm(extreme, ORDERS[wanted], axis=1, keepdims=True)
    # Where the balls touch, a single feature or all features have changed.
    own_radius = np.linalg.norm(factor * extreme / radius, ORDERS[own], axis=1)
    np.testing.assert_allclose(own_radius.max(), 1.0)
    inside = np.random.default_rng(0).normal(size=(200, n))
    inside *= factor / np.linalg.norm(inside, ORDERS[wanted], axis=1, keepdims=True)
    assert np.linalg.norm(inside, ORDERS[own], axis=1).max() <= 1 + 1e-12


def test_norm_factor_of_counts():
    assert norm_factor("l0", "l0", 5) == 1.0
    assert norm_factor("l0", "l2", 5) is None
    assert norm_factor("linf", "l0", 5) is None


def test_measure():
    delta = [[3.0, -4.0], [0.0, 0.0]]
    for norm, size in {"linf": 4.0, "l2": 5.0, "l1": 7.0, "l0": 2.0}.items():
        assert ThreatModel(1, norm).measure(delta).tolist() == [size, 0.0]
    assert ThreatModel([1, 2], "l1").measure(delta).tolist() == [5.0, 0.0]
    assert ThreatModel([1, 0], "l2").measure(delta).tolist() == [np.inf, 0.0]
    assert ThreatModel([1, 0], "l2").measure([[3.0, 0.0]]).tolist() == [3.0]


@pytest.mark.parametrize(
    ("threat", "unbounded"),
    [
        (ThreatModel(0.5, bounds=(0, 1)), False),
        (ThreatModel(1.0, bounds=(0, 1)), True),
        (ThreatModel(1.0, bounds=(0, 1), mask=[0, 2]), False),
        (ThreatModel(1.0), False),
        (ThreatModel(np.inf), True),
        (ThreatModel(np.inf, mask=[0]), False),
        (ThreatModel(1.7, "l2", (0, 1)), False),
        (ThreatModel(1.74, "l2", (0, 1)), True),
        (ThreatModel(2.9, "l1", (0, 1)), False),
        (ThreatModel(3, "l1", (0, 1)), True),
        (ThreatModel(2, "l0", (0, 1)), False),
        (ThreatModel(3, "l0", (0, 1)), True),
        (ThreatModel([1, 1, 0], bounds=(0, 1)), False),
        (ThreatModel([1, 1, 0], bounds=([0, 0, 0.5], [1, 1, 0.5])), True),
        (ThreatModel([[1, 1, 0]], bounds=([[0, 0, 0.5]], [[1, 1, 0.5]])), True),
    ],
)
def test_is_unbounded(threat, unbounded):
    assert threat.is_unbounded(3) is unbounded


# --- balls around the origin ---

BOXES = ["no box", "box", "open box", "narrow box"]


def make_balls(norm, box, seed, n_samples=8, n_features=6):
    """Points, radii from zero to far beyond the point, and how far a box reaches on both sides."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(n_samples, n_features)) * np.geomspace(0.1, 5, n_samples)[:, None]
    u[:, 0] = 0.0
    radius = rng.permutation(np.r_[0.0, np.geomspace(0.03, 20, n_samples - 1)])[:, None]
    if norm == "l0":
        radius = rng.integers(0, n_features + 2, radius.shape).astype(float)
    if box == "no box":
        return u, radius, None, None
    below, above = rng.uniform(0, 2, (2, *u.shape))
    below[:, 1] = above[:, 2] = 0.0
    if box == "open box":
        below[rng.uniform(size=u.shape) < 0.5] = np.inf
        above[:, 3:] = np.inf
    if box == "narrow box":
        below, above = below / 50, above / 50
    return u, radius, below, above


def project_in_numpy(u, norm, radius, below, above, dtype=torch.float64):
    arguments = [torch.from_numpy(u), torch.from_numpy(radius)]
    if above is not None:
        arguments += [torch.from_numpy(-below), torch.from_numpy(above)]
    before = copy.deepcopy(arguments)
    arguments = [a.to(dtype) for a in arguments]
    result = FEASIBLE_SETS[norm].project_ball(*arguments)
    for argument, copied in zip(arguments, before, strict=True):
        assert torch.equal(argument, copied.to(dtype))
    return result.numpy()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("norm", NORMS)
def test_project_ball_against_solver(norm, box, seed):
    u, radius, below, above = make_balls(norm, box, seed)
    projected = project_in_numpy(u, norm, radius, below, above)
    lengths = np.linalg.norm(projected, ORDERS[norm], axis=1, keepdims=True)
    assert (lengths <= radius * (1 + 1e-14)).all()
    low, high = (-np.inf, np.inf) if above is None else (-below, above)
    assert ((projected >= low) & (projected <= high)).all()

    v = cp.Variable(u.shape)
    constraints = [cp.norm(v[i], ORDERS[norm]) <= radius[i, 0] for i in range(len(u))]
    if above is not None:
        for expression, room in [(v, above), (-v, below)]:
            finite = np.isfinite(room)
            constraints.append(expression[finite] <= room[finite])
    solve(cp.Minimize(cp.sum_squares(v - u)), constraints)
    ours, best = (((p - u) ** 2).sum(1) for p in (projected, v.value))
    np.testing.assert_allclose(ours, best, rtol=1e-4, atol=1e-4)

    # No admissible direction leads any closer, which is exact where a solver has tolerances.
    rng = np.random.default_rng(seed)
    for scale in np.geomspace(1e-6, 10, 30):
        q = np.clip(projected + scale * rng.normal(size=u.shape), low, high)
        far = np.linalg.norm(q, ORDERS[norm], axis=1, keepdims=True)
        q *= np.minimum(1, np.divide(radius, far, out=np.ones_like(far), where=far > 0))
        assert (((u - projected) * (q - projected)).sum(1) <= 1e-13).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("box", BOXES)
def test_project_ball_in_l0_against_enumeration(box, seed):
    u, radius, below, above = make_balls("l0", box, seed)
    projected = project_in_numpy(u, "l0", radius, below, above)
    inner = u if above is None else np.clip(u, -below, above)
    for i, n_kept in enumerate(radius[:, 0]):
        assert np.count_nonzero(projected[i]) <= n_kept

        def cost(kept, i=i):
            nearest = np.zeros_like(u[i])
            nearest[kept] = inner[i, kept]
            return ((nearest - u[i]) ** 2).sum()

        best = cheapest_subset(range(u.shape[1]), n_kept, cost)
        np.testing.assert_allclose(((projected[i] - u[i]) ** 2).sum(), best, rtol=1e-12)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("norm", ALL_NORMS)
def test_project_ball_in_single_precision(norm, box):
    arguments = make_balls(norm, box, 0, n_samples=50, n_features=800)
    u, radius, below, above = arguments
    double = project_in_numpy(u, norm, radius, below, above)
    single = project_in_numpy(u, norm, radius, below, above, dtype=torch.float32)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, double, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("norm", ALL_NORMS)
def test_project_ball_of_no_rows(norm):
    empty = torch.zeros(0, 5)
    for sides in ((), (empty, empty)):
        projected = FEASIBLE_SETS[norm].project_ball(empty, empty[:, :1], *sides)
        assert projected.shape == (0, 5)


def shrink_in_numpy(size, room, radius):
    """Projection of sizes onto the l1 ball in a box, through the kinks of the norm, in order."""

    def shrunk(shift):
        return np.clip(size - shift, 0, room)

    kinks = np.unique(np.r_[0, size, np.maximum(size - room, 0)])
    lengths = np.array([shrunk(kink).sum() for kink in kinks])
    if lengths[0] <= radius:
        return shrunk(0)
    i = np.flatnonzero(lengths > radius)[-1]
    slope = (lengths[i + 1] - lengths[i]) / (kinks[i + 1] - kinks[i])
    return shrunk(kinks[i] + (radius - lengths[i]) / slope)


@pytest.mark.parametrize("kind", ["plain", "whole numbers", "far away", "of all sizes", "flat"])
def test_l1_projection_converges_on_awkward_sizes(kind):
    rng = np.random.default_rng(0)
    for _ in range(40):
        n_features = rng.integers(1, 80)
        size = np.abs(rng.normal(size=(9, n_features))) * 10 ** rng.uniform(-3, 3, (9, 1))
        room = np.abs(rng.normal(size=size.shape)) * 10 ** rng.uniform(-3, 2)
        radius = 10 ** rng.uniform(-2, 2, (9, 1))
        if kind == "whole numbers":
            size, room, radius = np.round(size), np.round(room), np.ceil(radius)
        elif kind == "far away":
            size += 10 ** rng.uniform(0, 9)
        elif kind == "of all sizes":
            size *= 10 ** rng.uniform(-6, 6, size.shape)
            room *= 10 ** rng.uniform(-6, 6, size.shape)
        elif kind == "flat":
            room[:] = radius / rng.integers(1, 2 * n_features)
        ours = project_in_numpy(size, "l1", radius, room, room)
        assert (ours.sum(1, keepdims=True) <= radius * (1 + 1e-14)).all()
        exact = [shrink_in_numpy(*row) for row in zip(size, room, radius[:, 0], strict=True)]
        tolerance = 1e-14 * (radius + size.max(1, keepdims=True))
        assert (np.abs(ours - exact) <= tolerance * n_features).all()


# --- the steepest features ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0.0, 1.0, 10.0])
def test_steepest_signs(spread, dtype):
    rng = np.random.default_rng(0)
    direction = rng.choice([-1, 1], (30, 200)) * np.exp(spread * rng.normal(size=(30, 200)))
    if spread == 0:
        direction = rng.normal(size=(30, 200))
    direction = torch.from_numpy(direction).to(dtype)
    direction[:, 150:] = 0
    direction[0] = 0
    order = direction.abs().argsort(1, descending=True)
    for n_moved in (0, 1, 7, 60, 149, 150, 151, 400, torch.arange(0, 210, 7)[:, None]):
        signs = L1Set.steepest_signs(direction, n_moved)
        rank = torch.empty_like(order).scatter_(1, order, torch.arange(200).expand(30, -1))
        assert torch.equal(signs, direction.sign() * (rank < n_moved))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_spread_steepest_moves_equal_ones_together(dtype):
    direction = [[1.0, -1.0, 2.0, 0.0, -0.5], [3.0, 3.0, -3.0, 3.0, 3.0]]
    direction = torch.tensor(direction, dtype=dtype)
    assert L1Set.steepest_signs(direction, 2).tolist() == [[1, -1, 1, 0, 0], [1, 1, -1, 1, 1]]
    assert L1Set.steepest_signs(direction, 1).tolist() == [[0, 0, 1, 0, 0], [1, 1, -1, 1, 1]]


def test_spread_steepest_of_broken_gradients():
    direction = torch.randn(50, 800, generator=torch.Generator().manual_seed(0))
    expected = L1Set.steepest_signs(direction, 20)
    direction[3, 5], direction[4, 6], direction[5] = torch.nan, torch.inf, torch.nan
    signs = L1Set.steepest_signs(direction, 20)
    others = [0, 1, 2, *range(6, 50)]
    assert torch.equal(signs[others], expected[others])
    assert signs[4].abs().sum() == 20


@pytest.mark.parametrize("norm", ALL_NORMS)
def test_size_of_each_row(norm):
    delta = torch.tensor([[3.0, 0.0, -4.0], [0.0, 0.0, 0.0]])
    expected = {"linf": [4, 0], "l2": [5, 0], "l1": [7, 0], "l0": [2, 0]}
    result = FEASIBLE_SETS[norm].size(delta)
    assert result.dtype == delta.dtype
    assert result.shape == (2, 1)
    assert result.flatten().tolist() == expected[norm]


# --- the object itself ---


def test_norms():
    assert ALL_NORMS == ("linf", "l2", "l1", "l0")
    assert tuple(NORMS) == LP_NORMS


def test_is_immutable():
    eps, mask = np.array([0.1, 0.2]), np.array([True, False])
    low, high = np.zeros(2), np.ones(2)
    threat = ThreatModel(eps, "l2", (low, high), mask)
    with pytest.raises(FrozenInstanceError):
        threat.eps = 0.3
    for array in (threat.eps, threat.mask, *threat.bounds):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    # And it does not see what happens to the arrays that it was made of.
    eps[:], mask[:], low[:], high[:] = 9, True, 9, 9
    assert threat.eps.tolist() == [0.1, 0.2]
    assert threat.mask.tolist() == [True, False]
    assert [side.tolist() for side in threat.bounds] == [[0, 0], [1, 1]]


def test_repr_shows_what_is_set():
    assert repr(ThreatModel(0.5, "l2")) == "ThreatModel(eps=0.5, norm='l2')"
    assert "bounds=(0.0, 1.0)" in repr(ThreatModel(bounds=(0, 1)))


@pytest.mark.parametrize("eps", [1, np.float32(1), np.array(1), True])
def test_eps_of_any_number_type(eps):
    assert ThreatModel(eps).eps == 1.0
    assert isinstance(ThreatModel(eps).eps, float)


def refuse(message, **parameters):
    return pytest.param(parameters, message, id=message[:60])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        refuse(r"norm must be one of linf, l2, l1, l0; got 'l3'\.", norm="l3"),
        refuse(r"eps must be finite and not negative, in the units of X; got -1\.", eps=-1),
        refuse(r"eps must be finite .*; got -0\.5\. To leave a feature unlimited, use bounds",
               eps=[0.1, -0.5]),
        refuse(r"eps must be finite .*; got inf\.", eps=[1, np.inf]),
        refuse(r"eps must be finite .*; got -inf\.", eps=-np.inf),
        refuse(r"eps=inf needs norm='linf'; got norm='l2'\. Balls of infinite radius are the same "
               r"in all norms\.", eps=np.inf, norm="l2"),
        refuse(r"eps must be one number of features, 0, 1, 2, \.\.\., with norm='l0'; got 2\.5\. "
               r"Round it down\.", eps=2.5, norm="l0"),
        refuse(r"eps must be one number of features, .*; got an array of shape \(2,\)\. To name "
               r"the features that can change, use mask\.", eps=[1, 2], norm="l0"),
        refuse(r"eps must be one number of features, .*; got -1\.", eps=-1, norm="l0"),
        refuse(r"eps must be one number of features, .*; got inf\. To let all features change, use "
               r"eps=inf with norm='linf'\.", eps=np.inf, norm="l0"),
        refuse(r"eps must be one number of features, .*; got nan\.", eps=np.nan, norm="l0"),
        refuse(r"eps must be finite .*; got nan\.", eps=[np.nan, 1]),
        refuse(r"eps must be a number or one number per feature; got 'wide'\.", eps="wide"),
        refuse(r"bounds must be None or a pair \(low, high\) .*; got 3\.", bounds=3),
        refuse(r"bounds must be None or a pair .*; got \(1, 2, 3\)\.", bounds=(1, 2, 3)),
        refuse(r"bounds must be None or a pair .*; got \('a', 'b'\)\.", bounds=("a", "b")),
        refuse(r"bounds must have low <= high; got low=1 and high=0\.", bounds=(1, 0)),
        refuse(r"bounds must have low <= high; got low=3 and high=2 for feature 1\.",
               bounds=([0, 3], 2)),
        refuse(r"bounds must not contain NaN; use -inf and inf for an open side\.",
               bounds=(0, np.nan)),
        refuse(r"bounds must have a low and a high of the same length; got shapes \(2,\) and "
               r"\(3,\)\.", bounds=([0, 0], [1, 1, 1])),
        refuse(r"mask must be None, booleans .* or column names; got array\(\[0\.5\]\)\.",
               mask=[0.5]),
        refuse(r"mask contains column names, and X has none\. Give X as a DataFrame", mask=["a"]),
        refuse(r"mask contains unknown column names: 'c', 'd'\. The columns of X are 'a', 'b'\.",
               mask=["a", "c", "d"], feature_names=["a", "b"]),
    ],
)  # fmt: skip
def test_constructor_refuses(parameters, message):
    with pytest.raises(ValueError, match=message):
        ThreatModel(**parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        refuse(r"eps has 2 values, but X has 3 features: give one number for all of them or one "
               r"per feature\.", eps=[1, 2]),
        refuse(r"eps has 1 values, but X has 3 features", eps=[1]),
        refuse(r"bounds has 2 values, but X has 3 features", bounds=([0, 0], 1)),
        refuse(r"bounds has 4 values, but X has 3 features", bounds=(0, np.ones(4))),
        refuse(r"mask has 2 booleans, but X has 3 features: give one boolean per feature, or "
               r"indices or column names\.", mask=[True, False]),
        refuse(r"mask contains the feature index 3, but X has 3 features\.", mask=[0, 3]),
        refuse(r"mask contains the feature index -4, but X has 3 features\.", mask=[-4]),
        refuse(r"X must lie within bounds: feature 2 has values from 2 to 5, and its bounds are "
               r"\[0, 4\]\. bounds are in the units of the X that is handed in: widen them, or "
               r"scale X before\.", bounds=(0, 4)),
        refuse(r"feature 0 \('a'\) has values from 0 to 3, and its bounds are \[1, 2\]\. "
               r"\(3 features are outside\.\)", bounds=(1, 2), feature_names=["a", "b", "c"]),
    ],
)  # fmt: skip
def test_check_inputs_refuses(parameters, message):
    X = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    threat = ThreatModel(**parameters)
    with pytest.raises(ValueError, match=message):
        threat.check_inputs(X)


def test_check_inputs_allows_the_edge_in_every_dtype():
    for dtype in (np.float32, np.float64):
        ThreatModel(bounds=(0.1, 0.7)).check_inputs(np.array([[0.1, 0.7]], dtype=dtype))
    ThreatModel(bounds=(-np.inf, np.inf)).check_inputs(np.array([[-1e300, 1e300]]))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fixed_features_without_bounds(norm):
    threat = ThreatModel([1.0, 0.0, 1.0], norm, bounds=(-np.inf, [np.inf, np.inf, 0.5]))
    x = torch.zeros(1, 3, dtype=torch.float64)
    projected = threat.project(x + 4, x)
    assert threat.contains(threat.project_exactly(x + 4, x), x).all()
    assert projected[0, 1] == 0
    assert projected[0, 0] >= 0.5
    assert torch.isfinite(threat.maximize_linear(torch.ones_like(x), x)).all()
