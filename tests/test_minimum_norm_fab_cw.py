"""FAB: the projection onto a hyperplane in a box, closed forms, and what it promises."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import linprog

from skrobust._space import Space
from skrobust.attacks._hyperplane import Hyperplane, _dual_size
from skrobust.threat import ThreatModel

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
    space = Space(ThreatModel(1.0, "linf", bounds), norm, torch.from_numpy(x))
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    u = np.zeros((n, d)) if from_input else np.clip(x + rng.normal(size=(n, d)), low, high) - x
    plane = Hyperplane(space, torch.from_numpy(w))
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
    space = Space(ThreatModel(1.0, "linf", bounds), norm, x)
    w = torch.tensor([[0.0] * 3, [1e-37] * 3, [1e30] * 3, [1e-30, 0, 1e30]], dtype=dtype)
    for gap in (0.0, 1e-35, 1.0, 1e30):
        step = Hyperplane(space, w).step(torch.full((4, 1), gap, dtype=dtype))
        assert torch.isfinite(step).all()
        assert (step[0] == 0).all()
        assert torch.isfinite(space.size(step)).all()


def test_l1_step_sorts_more_features_where_it_must():
    x = torch.zeros(3, 600, dtype=torch.float64)
    space = Space(ThreatModel(1.0, "linf", (0.0, 1.0)), "l1", x)
    w = torch.ones_like(x)
    w[1] = torch.linspace(1, 2, 600)
    gap = torch.tensor([[500.0], [3.0], [1e9]], dtype=torch.float64)
    step = Hyperplane(space, w).step(gap)
    assert_allclose(step.sum(1), [500, 1 + 1 / w[1, -2], 600], rtol=1e-12)
    alone = Hyperplane(space.take(torch.tensor([0])), w[:1]).step(gap[:1])
    assert torch.equal(alone, step[:1])


@every_norm
def test_dual_size(norm):
    w = np.random.default_rng(0).normal(size=(5, 7))
    dual = {"linf": 1, "l2": 2, "l1": np.inf}[norm]
    sizes = _dual_size(torch.from_numpy(w), norm)[:, 0]
    assert_allclose(sizes, np.linalg.norm(w, dual, axis=1))
    assert _dual_size(torch.zeros(1, 3), norm) > 0
