"""What every attack guarantees, closed forms, strength, and life as a transformer."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from _table import (
    ATTACKS,
    BUILDERS,
    RANDOM_ATTACKS,
    goes_to_the_edge,
    make_attack,
    make_data,
    make_victim,
    predict,
    snapshot,
)
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from skrobust import attacks
from skrobust.attacks import (
    APGD,
    FGSM,
    PGD,
    AttackResult,
    AutoAttack,
    BaseAttack,
    MinimumNormAttack,
    _auto_attack,
    resolve_attack,
)
from skrobust.differentiable import to_torch
from skrobust.exceptions import AttackWarning, MaskedGradientsWarning
from skrobust.threat import LP_NORMS

ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}
every_attack = pytest.mark.parametrize("name", ATTACKS)
every_victim = pytest.mark.parametrize("victim", BUILDERS)


@pytest.fixture(autouse=True)
def short_ensemble(monkeypatch):
    """Members for random models that average less: the tests here are not about their strength."""
    losses = [{"loss": "ce"}, {"loss": "dlr"}]
    members = [(APGD, {"n_steps": 10, "eot_samples": 2, **loss}) for loss in losses]
    monkeypatch.setitem(_auto_attack._MEMBERS, "rand", dict.fromkeys(LP_NORMS, members))


# The table on one classifier, and one attack on all classifiers: where the product would be slow.
each_in_turn = pytest.mark.parametrize(
    ("name", "victim"),
    [(name, "MLPClassifier, 3 strings") for name in ATTACKS]
    + [("pgd linf", victim) for victim in BUILDERS if victim != "MLPClassifier, 3 strings"],
)
every_norm = pytest.mark.parametrize("norm", ORDERS)


@pytest.fixture(autouse=True)
def _quiet_about_the_victims(request):
    """Small nets that saturate do mislead gradients: AutoAttack says so, and is right."""
    if "auto" in request.node.name:
        warnings.simplefilter("ignore", MaskedGradientsWarning)


def assert_admissible(attack, X_adv, X):
    """Ball, box and mask without any tolerance, in plain numpy."""
    X, X_adv = np.asarray(X), np.asarray(X_adv)
    n_features = X[0].size
    unbounded = attack.eps is None
    eps = np.inf if unbounded else np.asarray(attack.eps, dtype=np.float64).ravel()
    eps = np.broadcast_to(eps, n_features)
    delta = (X_adv.astype(np.float64) - X.astype(np.float64)).reshape(len(X), -1)
    size = np.abs(delta)
    if attack.norm == "linf" or unbounded:
        assert (size <= eps).all()
    elif attack.norm == "l0":
        assert (np.count_nonzero(delta, axis=1) <= attack.eps).all()
    elif np.ndim(attack.eps) == 0:
        assert np.linalg.norm(delta, ORDERS[attack.norm], axis=1).max() <= attack.eps
    else:
        scaled = np.divide(delta, eps, out=np.zeros_like(delta), where=eps > 0)
        assert (delta[:, eps == 0] == 0).all()
        assert np.linalg.norm(scaled, ORDERS[attack.norm], axis=1).max() <= 1
    flat = X_adv.reshape(len(X), -1)
    if attack.bounds is not None:
        low, high = (np.asarray(side, dtype=X_adv.dtype).ravel() for side in attack.bounds)
        assert (flat >= low).all()
        assert (flat <= high).all()
    if attack.mask is not None:
        fixed = ~np.asarray(attack.mask).ravel()
        kept = X.reshape(len(X), -1)[:, fixed].astype(X_adv.dtype)
        assert np.ascontiguousarray(flat[:, fixed]).tobytes() == kept.tobytes()


def assert_same_up_to_rounding(name, X_adv, expected):
    """A rounding may tip a choice of the attack, in rare rows in float32, or of the ensemble."""
    if expected.dtype == np.float64 and not isinstance(ATTACKS[name], AutoAttack):
        assert_allclose(X_adv, expected, rtol=1e-5, atol=1e-5)
    else:
        other = ~np.isclose(X_adv, expected, rtol=1e-5, atol=1e-5).all(axis=1)
        assert other.mean() <= 0.15


def n_correct(estimator, X, y):
    return int((predict(estimator, X) == y).sum())


def test_table_has_every_public_attack():
    public = {getattr(attacks, name) for name in attacks.__all__} - {
        BaseAttack,
        MinimumNormAttack,
        AttackResult,
        resolve_attack,
    }
    assert {type(attack) for attack in ATTACKS.values()} == public


# --- the guarantees ---


@every_victim
@every_attack
def test_attack_on_every_kind_of_classifier(name, victim):
    estimator, X, y = make_victim(victim)
    attack, parameters = make_attack(name), clone(ATTACKS[name]).get_params()
    X_before, y_before, before = X.copy(), y.copy(), snapshot(estimator)
    clean = predict(estimator, X)

    X_adv = attack.perturb(estimator, X, y)

    assert isinstance(X_adv, np.ndarray)
    assert X_adv.dtype == X.dtype
    assert X_adv.shape == X.shape
    assert_array_equal(X, X_before)
    assert_array_equal(y, y_before)
    assert not np.shares_memory(X_adv, X)
    assert snapshot(estimator) == before
    assert attack.get_params() == parameters | {"random_state": 0}
    assert not hasattr(attack, "estimator_")
    assert_admissible(attack, X_adv, X)

    fooled = predict(estimator, X_adv) != y
    assert fooled[clean != y].all()  # at least as strong as doing nothing, for each sample
    assert fooled.sum() > (clean != y).sum()  # and, on these problems, stronger

    result = attack.run(estimator, X, y)
    assert_array_equal(result.X_adv, X_adv)  # same seed, same bits
    assert_array_equal(result.success, fooled)


@every_attack
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, np.float16])
@pytest.mark.parametrize("victim", ["logistic, 3 classes", "module"])
def test_dtypes(name, victim, dtype):
    estimator, X, y = make_victim(victim)
    X = (
        np.rint(20 * (X - X.min())).astype(dtype)
        if np.dtype(dtype).kind in "iu"
        else X.astype(dtype)
    )
    scale = 20 if np.dtype(dtype).kind in "iu" else 1
    attack = make_attack(name)
    if attack.eps is not None and attack.norm != "l0":
        attack.set_params(eps=scale * attack.eps)
    X_adv = attack.perturb(estimator, X, y)
    assert X_adv.dtype == (np.float32 if dtype == np.float32 else np.float64)
    assert_admissible(attack, X_adv, X)
    assert (X_adv != X).any()
    assert n_correct(estimator, X_adv, y) <= n_correct(estimator, X, y)


@every_attack
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_ball_box_and_mask_to_the_last_bit(name, dtype, scale):
    """All three at once, per feature, with numbers that no dtype can hold."""
    X, y = make_data(3)
    X = (scale * X).astype(dtype)
    X[:3] = -0.0
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    rng = np.random.default_rng(0)
    attack = make_attack(name)
    if attack.norm != "l0":  # which counts features, all alike
        attack.set_params(eps=scale * (attack.eps or 2.0) * rng.uniform(0.1, 1 / 3, 6))
    attack.set_params(
        bounds=(X.min(0).astype(float), X.max(0).astype(float) + scale / 30),
        mask=np.array([True, True, False, True, False, True]),
    )
    if isinstance(attack, PGD) and attack.step_size:  # which is in units of X
        attack.set_params(step_size=scale * attack.step_size)
    X_adv = attack.perturb(estimator, X, y)
    assert X_adv.dtype == dtype
    assert_admissible(attack, X_adv, X)
    changed = (X_adv != X).any(0)
    assert changed.any()
    if attack.norm not in ("l1", "l0"):  # which pick their features
        assert_array_equal(changed, attack.mask)


@every_attack
def test_images_with_bounds_and_mask(name):
    estimator, X, y = make_victim("module, images")
    low, high = X.min(), X.max()
    mask = np.zeros((1, 6, 6), dtype=bool)
    mask[:, 1:5, 1:5] = True
    attack = make_attack(name, bounds=(low, high), mask=mask)
    if attack.norm != "l0":
        attack.set_params(eps=np.full((1, 6, 6), 0.3) + 0.1 * mask)
    X_adv = attack.perturb(estimator, X, y)
    assert X_adv.shape == X.shape
    assert_admissible(attack, X_adv, X)
    assert_array_equal((X_adv != X).any(0).ravel() <= mask.ravel(), True)
    assert (X_adv != X).any()


@pytest.mark.parametrize("name", ["fgsm l2", "pgd restarts"])
@pytest.mark.parametrize("form", ["read-only", "F-ordered", "strided", "list", "memmap"])
@pytest.mark.parametrize("victim", ["logistic, 3 classes", "module"])
@pytest.mark.parametrize("labelled", [True, False])
def test_containers(name, victim, form, labelled, tmp_path):
    estimator, X, y = make_victim(victim)
    y = y if labelled else None
    attack = make_attack(name)
    expected = attack.perturb(estimator, X, y)
    if form == "read-only":
        given = X.copy()
        given.setflags(write=False)
    elif form == "F-ordered":
        given = np.asfortranarray(X)
    elif form == "strided":
        given = np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3]
    elif form == "list":
        given = X.tolist()
    else:
        np.save(tmp_path / "X.npy", X)
        given = np.load(tmp_path / "X.npy", mmap_mode="r")
    X_adv = attack.perturb(estimator, given, y)
    assert type(X_adv) is np.ndarray
    assert X_adv.flags.writeable
    assert_array_equal(X_adv, expected)


def as_frame(X):
    return pd.DataFrame(
        X, columns=[f"v{i}" for i in range(X.shape[1])], index=np.arange(len(X))[::-1] + 100
    )


@every_attack
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("labelled", [True, False])
def test_data_frames_come_back_as_data_frames(name, dtype, labelled):
    X, y = make_data(3)
    frame = as_frame((5 * X).astype(dtype))
    frame_before = frame.copy()
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, y)
    attack = make_attack(name)
    attack.set_params(eps=5 * attack.eps, mask=["v4", "v0", "v1", "v2"])
    X_adv = attack.perturb(estimator, frame, pd.Series(y) if labelled else None)
    assert type(X_adv) is pd.DataFrame
    pd.testing.assert_index_equal(X_adv.index, frame.index)
    pd.testing.assert_index_equal(X_adv.columns, frame.columns)
    assert (X_adv.dtypes == (np.float32 if dtype == np.float32 else np.float64)).all()
    pd.testing.assert_frame_equal(frame, frame_before)
    attack.set_params(mask=np.isin(frame.columns, attack.mask))
    assert_admissible(attack, X_adv, frame)
    changed = (X_adv != frame).any()
    assert changed.any()
    if attack.norm not in ("l1", "l0"):  # which pick their features
        assert changed.tolist() == attack.mask.tolist()
    assert isinstance(attack.run(estimator, frame, y).X_adv, np.ndarray)


@pytest.mark.parametrize("victim", ["module", "skorch"])
@pytest.mark.parametrize("labelled", [True, False])
def test_data_frames_for_nets(victim, labelled):
    estimator, X, y = make_victim(victim)
    attack = make_attack("pgd linf")
    y = y if labelled else None
    X_adv = attack.perturb(estimator, as_frame(X), y)
    pd.testing.assert_frame_equal(X_adv, as_frame(attack.perturb(estimator, X, y)))


def test_data_frame_of_mixed_columns_by_name():
    X, y = make_data(3)
    frame = as_frame(X).astype({"v0": np.float32})
    frame["v1"] = np.rint(frame["v1"]).astype(int)
    parts = ColumnTransformer([("a", StandardScaler(), ["v3", "v1"])], remainder="passthrough")
    estimator = make_pipeline(parts, LogisticRegression()).fit(frame, y)
    attack = make_attack("pgd linf")
    X_adv = attack.perturb(estimator, frame, y)
    assert list(X_adv) == list(frame)
    assert (estimator.predict(X_adv) == y).mean() < (estimator.predict(frame) == y).mean() - 0.1


# --- nothing is touched ---


def awkward_module():
    """Modes, gradients and flags of all kinds in one module."""
    module, X, y = make_victim("module")
    module.train()
    module[1].eval()
    module[0].weight.requires_grad_(False)
    module[0].bias.grad = torch.full_like(module[0].bias, 3.0)
    return module, X, y


@every_attack
def test_model_is_untouched(name):
    module, X, y = awkward_module()
    before = snapshot(module)
    make_attack(name).perturb(module, X, y)
    make_attack(name).perturb(module, X)
    make_attack(name).perturb(module, X, y_target=1)
    assert snapshot(module) == before
    assert before["training"] == {"": True, "0": True, "1": False, "2": True, "3": True, "4": True}


class FailsLater(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module
        self.calls_left = 10**9

    def forward(self, x):
        self.calls_left -= 1
        if self.calls_left < 0:
            raise RuntimeError("out of calls")
        return self.module(x)


@every_attack
@pytest.mark.parametrize("n_calls", [0, 1, 2, 3])
def test_model_is_untouched_after_an_exception(name, n_calls):
    module, X, y = awkward_module()
    module = FailsLater(module)
    before, torch_state = snapshot(module), torch.get_rng_state()
    module.calls_left = n_calls
    with pytest.raises(RuntimeError, match="out of calls"):
        make_attack(name).perturb(module, X, y)
    assert snapshot(module) == before
    assert torch.equal(torch.get_rng_state(), torch_state)


@every_victim
def test_untouched_in_evaluation_mode_too(victim):
    estimator, X, y = make_victim(victim)
    if isinstance(estimator, nn.Module):
        estimator.eval().requires_grad_(False)
    before = snapshot(estimator)
    make_attack("pgd linf").perturb(estimator, X, y)
    assert snapshot(estimator) == before


@each_in_turn
def test_gradients_may_be_switched_off_outside(name, victim):
    estimator, X, y = make_victim(victim)
    expected = make_attack(name).perturb(estimator, X, y)
    with torch.no_grad():
        assert_array_equal(make_attack(name).perturb(estimator, X, y), expected)
    assert torch.is_grad_enabled()


# --- randomness ---


class NoisyModule(nn.Module):
    """Draws from torch's global generator, in evaluation mode too."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x + 0.01 * torch.randn_like(x))


@every_attack
@pytest.mark.parametrize("noisy", [False, True])
def test_global_random_states_are_neither_used_nor_moved(name, noisy):
    module, X, y = make_victim("module")
    if noisy:
        module = NoisyModule(module)
        warnings.simplefilter("ignore", AttackWarning)
    results = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
            results.append(make_attack(name).perturb(module, X, y))
            assert torch.equal(torch.get_rng_state(), torch_state)
            numpy_after = np.random.get_state()  # noqa: NPY002
            assert_array_equal(numpy_after[1], numpy_state[1])
            assert numpy_after[2:] == numpy_state[2:]
    assert_array_equal(*results)


@every_attack
def test_random_state_as_in_sklearn(name):
    estimator, X, y = make_victim("MLPClassifier, 3 strings")

    def perturb(random_state):
        return make_attack(name, random_state=random_state).perturb(estimator, X, y)

    assert_array_equal(perturb(5), perturb(5))
    assert_array_equal(perturb(np.random.RandomState(5)), perturb(5))
    attack = make_attack(name, random_state=np.random.RandomState(5))
    first, second = attack.perturb(estimator, X, y), attack.perturb(estimator, X, y)
    is_random = name in RANDOM_ATTACKS
    assert (first != second).any() == is_random
    assert (perturb(5) != perturb(6)).any() == is_random


@every_attack
@pytest.mark.parametrize("victim", ["logistic, 3 classes", "MLPClassifier, 2 bools", "skorch"])
def test_batch_size_does_not_matter(name, victim):
    estimator, X, y = make_victim(victim)
    X, y = X[:20], y[:20]
    whole = make_attack(name).perturb(estimator, X, y)
    for batch_size in (1, 7, 10_000):
        parts = make_attack(name, batch_size=batch_size).perturb(estimator, X, y)
        assert_same_up_to_rounding(name, parts, whole)


@every_attack
@pytest.mark.parametrize("victim", ["logistic, 3 classes", "MLPClassifier, 2 bools", "skorch"])
def test_neighbours_and_order_do_not_matter(name, victim):
    estimator, X, y = make_victim(victim)
    whole = make_attack(name).perturb(estimator, X, y)
    order = np.random.default_rng(0).permutation(len(X))
    for rows in (order, order[:11], [3]):
        part = make_attack(name).perturb(estimator, X[rows], y[rows])
        assert_same_up_to_rounding(name, part, whole[rows])


# --- labels and targets ---


@each_in_turn
def test_without_labels_the_predictions_are_left(name, victim):
    estimator, X, _ = make_victim(victim)
    predicted = predict(estimator, X)
    X_adv = make_attack(name).perturb(estimator, X)
    assert_array_equal(X_adv, make_attack(name).perturb(estimator, X, predicted))
    assert (predict(estimator, X_adv) != predicted).any()


@every_attack
@every_victim
def test_targeted(name, victim):
    estimator, X, y = make_victim(victim)
    clean = predict(estimator, X)
    target = np.unique(y)[1]
    attack = make_attack(name)
    X_adv = attack.perturb(estimator, X, y_target=target)
    assert_admissible(attack, X_adv, X)
    hit = predict(estimator, X_adv) == target
    assert hit[clean == target].all()
    assert hit.sum() > (clean == target).sum()
    assert_array_equal(attack.perturb(estimator, X, y_target=np.full(len(X), target)), X_adv)
    assert_array_equal(attack.run(estimator, X, y_target=target).success, hit)


def test_each_sample_can_have_its_own_target():
    estimator, X, y = make_victim("logistic, 3 classes")
    targets = np.roll(y, 1)
    result = PGD(eps=9.0, random_state=0).run(estimator, X, y_target=targets)
    assert_array_equal(result.success, estimator.predict(result.X_adv) == targets)
    assert result.success.mean() > 0.95


@every_attack
def test_labels_of_any_type_mean_the_same(name):
    X, y = make_data(3)
    expected = None
    for labels in ([0, 1, 2], ["a", "b", "c"], [-5.0, 0.0, 9.0], [10, 20, 30]):
        named = np.array(labels)[y]
        estimator = LogisticRegression().fit(X, named)
        for given in (named, named.tolist(), pd.Series(named), named.astype(object)):
            X_adv = make_attack(name).perturb(estimator, X, given)
            expected = X_adv if expected is None else expected
            assert_array_equal(X_adv, expected)


def test_a_label_that_is_absent_from_the_batch():
    estimator, X, y = make_victim("MLPClassifier, 3 strings")
    rows = y == "red"
    X_adv = make_attack("pgd linf").perturb(estimator, X[rows], y[rows])
    assert_allclose(X_adv, make_attack("pgd linf").perturb(estimator, X, y)[rows], rtol=1e-11)


# --- small things ---


@every_attack
def test_progress_bar(name, capsys):
    estimator, X, y = make_victim("logistic, 2 classes")
    make_attack(name, batch_size=20).perturb(estimator, X, y)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
    make_attack(name, batch_size=20, verbose=1).perturb(estimator, X, y)
    captured = capsys.readouterr()
    assert captured.out == ""
    kind = type(ATTACKS[name]).__name__
    assert ("APGD" if kind == "AutoAttack" else kind) in captured.err
    assert "3/3" in captured.err


@every_attack
@pytest.mark.parametrize("eps", [0.0, [0.0] * 6])
def test_nothing_can_be_done_without_budget(name, eps):
    estimator, X, y = make_victim("MLPClassifier, 3 strings")
    if ATTACKS[name].norm != "l0" or eps == 0.0:
        assert_array_equal(make_attack(name, eps=eps).perturb(estimator, X, y), X)
    warnings.simplefilter("ignore", AttackWarning)
    assert_array_equal(make_attack(name, mask=[False] * 6).perturb(estimator, X, y), X)


@every_attack
def test_flat_models_leave_the_input_admissible(name):
    """No gradient anywhere: nothing to climb, and no NaN."""
    X, y = make_data(2)
    estimator = LogisticRegression().fit(X, y)
    estimator.coef_ = np.zeros_like(estimator.coef_)
    attack = make_attack(name, bounds=(-5, 5))
    warnings.simplefilter("ignore", AttackWarning)
    X_adv = attack.perturb(estimator, X, y)
    assert_admissible(attack, X_adv, X)
    assert_array_equal(estimator.predict(X_adv), estimator.predict(X))


@pytest.mark.parametrize("name", [n for n in ATTACKS if goes_to_the_edge(ATTACKS[n])])
def test_dead_features_do_not_spoil_the_others(name):
    """Gradients of zero beside others whose box is narrower than the ball."""
    X, y = make_data(2)
    estimator = LogisticRegression().fit(X, y)
    estimator.coef_[0, [1, 4]] = 0.0
    bounds = (X - 0.01).min(0), (X + 0.01).max(0)
    X[:] = np.where(estimator.coef_ * np.where(y == 1, -1, 1)[:, None] > 0, bounds[1], bounds[0])
    X = np.clip(X, bounds[0] + 0.05, bounds[1] - 0.05)
    attack = make_attack(name, eps=2.0, bounds=bounds)
    if hasattr(attack, "stop_on_success"):
        attack.set_params(stop_on_success=False)
    if getattr(attack, "step_size", None) is not None:
        attack.set_params(step_size=1.0)  # long enough to cross the ball from any start
    if name.startswith("apgd") and attack.norm == "l1":
        attack.set_params(n_steps=30)  # of which twelve are in the ball itself
    X_adv = attack.perturb(estimator, X, y)
    sign = np.where(y == 1, -1.0, 1.0)
    gain = sign * (estimator.decision_function(X_adv) - estimator.decision_function(X))
    most = 0.05 * np.abs(estimator.coef_).sum()  # every live feature goes to its side of the box
    assert (gain > 0.99 * most).all()


@every_attack
def test_huge_logits_have_gradients_all_the_same(name):
    """A model that is sure of itself: the cross-entropy's own gradient is zero here."""
    X, y = make_data(3)
    estimator = LogisticRegression().fit(X, y)
    X_adv = make_attack(name).perturb(estimator, X, y)
    scaled = copy.deepcopy(estimator)
    scaled.coef_, scaled.intercept_ = scaled.coef_ * 1e6, scaled.intercept_ * 1e6
    X_scaled = make_attack(name).perturb(scaled, X, y)
    assert n_correct(scaled, X_scaled, y) < n_correct(scaled, X, y) - 5
    assert n_correct(scaled, X_scaled, y) <= n_correct(estimator, X_adv, y) + 5


@every_attack
def test_one_sample(name):
    estimator, X, y = make_victim("module")
    assert make_attack(name).perturb(estimator, X[:1], y[:1]).shape == (1, 6)


@every_attack
def test_pickles_and_clones(name):
    estimator, X, y = make_victim("logistic, 3 classes")
    attack = make_attack(name)
    expected = attack.perturb(estimator, X, y)
    written = eval(repr(attack), vars(attacks))
    for copied in (clone(attack), pickle.loads(pickle.dumps(attack)), written):
        assert_array_equal(copied.perturb(estimator, X, y), expected)


# --- closed forms: linear models ---


@pytest.fixture(scope="module")
def cancer():
    """Raw features with scales from 1e-3 to 1e3, scaled inside of the pipeline."""
    X, y = load_breast_cancer(return_X_y=True)
    clf = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    weight = clf[-1].coef_[0] / clf[0].scale_
    sign = np.where(y == 1, 1.0, -1.0)
    return clf, X, y, weight, sign * clf.decision_function(X), sign


EXACT_ATTACKS = {
    "fgsm": lambda **k: FGSM(**k),
    "pgd": lambda **k: PGD(random_state=0, **k),
    "pgd margin": lambda **k: PGD(random_state=0, loss="margin", **k),
    "pgd from the input": lambda **k: PGD(random_start=False, **k),
    "pgd stop": lambda **k: PGD(random_state=0, stop_on_success=True, **k),
    "pgd dlr": lambda **k: PGD(random_state=0, loss="dlr", **k),
    "apgd": lambda **k: APGD(random_state=0, **k),
    "apgd targets": lambda **k: APGD(random_state=0, loss="dlr", n_target_classes=9, **k),
    "auto": lambda **k: AutoAttack(random_state=0, version="fast", **k),
}
RADII = {"linf": [0.05, 0.2, 0.4], "l2": [0.3, 1.0], "l1": [0.5, 2.0]}


def dual_norm(weighted, norm):
    return np.linalg.norm(weighted, {"linf": 1, "l2": 2, "l1": np.inf}[norm])


def assert_decided(margin, most):
    """No sample lies on the edge, where rounding would decide."""
    assert np.abs(margin - most).min() > 1e-7


@pytest.mark.parametrize("make", EXACT_ATTACKS)
@pytest.mark.parametrize(("norm", "radius"), [(n, r) for n in RADII for r in RADII[n]])
def test_binary_linear_is_exact_on_every_sample(cancer, norm, radius, make):
    clf, X, y, weight, margin, _ = cancer
    eps = radius * X.std(axis=0)
    most = dual_norm(eps * weight, norm)
    assert_decided(margin, most)
    result = EXACT_ATTACKS[make](eps=eps, norm=norm).run(clf, X, y)
    assert_array_equal(result.success, margin <= most)
    assert 0 < result.success.sum() < len(X)


@every_norm
@pytest.mark.parametrize("masked", [False, True])
def test_binary_linear_with_scalar_eps_and_mask(cancer, norm, masked):
    _, X, y, *_ = cancer
    X = StandardScaler().fit_transform(X)
    clf = LogisticRegression().fit(X, y)
    margin = np.where(y == 1, 1, -1) * clf.decision_function(X)
    mask = np.arange(30) % 3 == 0 if masked else np.ones(30, dtype=bool)
    eps = {"linf": 0.3, "l2": 1.0, "l1": 2.0}[norm]
    most = eps * dual_norm(clf.coef_[0][mask], norm)
    assert_decided(margin, most)
    for attack in (FGSM(), PGD(random_state=0), APGD(random_state=0)):
        attack.set_params(eps=eps, norm=norm, mask=mask)
        assert_array_equal(attack.run(clf, X, y).success, margin <= most)


def best_with_bounds(norm, eps, low, high, x, slope):
    """Largest increase of <slope, z> from x over ball and box, by a method of its own."""
    low, high = np.maximum(low - x, -eps) / eps, np.minimum(high - x, eps) / eps
    gain = slope * eps
    if norm == "linf":
        return np.maximum(gain * low, gain * high).sum()
    room, gain = np.where(gain > 0, high, -low), np.abs(gain)
    if norm == "l1":
        result = linprog(
            -gain, A_ub=np.ones((1, len(x))), b_ub=[1], bounds=np.column_stack([0 * room, room])
        )
        return -result.fun
    t_low, t_high = 0.0, 1e9  # bisection on min(t * gain, room)
    for _ in range(200):
        t = (t_low + t_high) / 2
        t_low, t_high = (t, t_high) if (np.minimum(t * gain, room) ** 2).sum() <= 1 else (t_low, t)
    return (gain * np.minimum(t_low * gain, room)).sum()


@every_norm
@pytest.mark.parametrize("make", ["fgsm", "pgd", "pgd from the input", "apgd"])
def test_binary_linear_with_bounds(cancer, norm, make):
    clf, X, y, weight, margin, sign = cancer
    rows = slice(0, 150)
    X, y, margin, sign = X[rows], y[rows], margin[rows], sign[rows]
    low, high = np.quantile(X, 0.2, axis=0), np.quantile(X, 0.8, axis=0)
    X = np.clip(X, low, high)  # many values on the edge
    margin = sign * clf.decision_function(X)
    eps = {"linf": 0.3, "l2": 1.0, "l1": 2.0}[norm] * X.std(axis=0)
    most = np.array(
        [
            best_with_bounds(norm, eps, low, high, x, -s * weight)
            for x, s in zip(X, sign, strict=True)
        ]
    )
    attack = EXACT_ATTACKS[make](eps=eps, norm=norm, bounds=(low, high))
    result = attack.run(clf, X, y)
    assert_admissible(attack, result.X_adv, X)
    gain = margin - sign * clf.decision_function(result.X_adv)
    assert (gain <= most + 1e-9).all()
    if make == "fgsm" or norm == "linf":
        assert_allclose(gain, most, rtol=1e-9, atol=1e-9)
    decided = np.abs(margin - most) > (1e-7 if make == "fgsm" or norm == "linf" else 0.01 * most)
    assert decided.mean() > 0.9
    assert_array_equal(result.success[decided], (margin <= most)[decided])
    assert 0 < result.success.sum() < len(X)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_multiclass_linear_against_all_other_classes(loss):
    X, y = load_iris(return_X_y=True)
    clf = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    W = clf[-1].coef_ / clf[0].scale_
    scores = clf.decision_function(X)
    own = np.arange(len(X)), y
    for radius in (0.2, 0.5, 0.8):
        eps = radius * X.std(axis=0)
        reach = (scores - scores[own][:, None]) + np.abs(W - W[y][:, None]) @ eps
        reach[own] = -np.inf
        assert np.abs(reach.max(1)).min() > 1e-7
        vulnerable = reach.max(1) > 0
        attack = PGD(eps=eps, loss=loss, n_restarts=3, random_state=0)
        assert_array_equal(attack.run(clf, X, y).success, vulnerable)
        # One step follows one class only, and never claims more than is possible.
        assert (FGSM(eps=eps, loss=loss).run(clf, X, y).success <= vulnerable).all()
        assert 0 < vulnerable.sum() < len(X)


@pytest.mark.parametrize("bounds", [None, (0, 16)], ids=["no box", "box"])
@pytest.mark.parametrize(
    "attack",
    [
        PGD(loss="margin"),
        PGD(n_target_classes=9, n_steps=5),
        PGD(n_target_classes=9, n_steps=5, loss="dlr"),
        APGD(n_target_classes=9, n_steps=20, loss="dlr"),
    ],
    ids=["margin", "targets", "targets dlr", "apgd targets"],
)
def test_digits_linear_equals_the_closed_form(attack, bounds):
    """Ten classes: the strongest attack heads straight for the best of the nine others."""
    X, y = load_digits(return_X_y=True)
    clf = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(X, y)
    X, y, eps = X[:600], y[:600], 0.9
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    low, high = np.maximum(X - eps, low), np.minimum(X + eps, high)
    W, scores = clf[-1].coef_ / clf[0].scale_, clf.decision_function(X)
    reach = np.full((len(X), 10), -np.inf)
    for j in range(10):
        slope = W[j] - W[y]
        gain = np.maximum(slope * (low - X), slope * (high - X)).sum(1)
        reach[:, j] = np.where(y == j, -np.inf, scores[:, j] - scores[np.arange(len(X)), y] + gain)
    assert np.abs(reach.max(1)).min() > 1e-7
    attack = clone(attack).set_params(eps=eps, bounds=bounds, random_state=0)
    assert_array_equal(attack.run(clf, X, y).success, reach.max(1) > 0)
    assert 0.05 < np.mean(reach.max(1) <= 0) < 0.5


# --- problems with a known optimum ---


class Waves(nn.Module):
    """Two classes, and a margin with several local maxima on a line."""

    def __init__(self):
        super().__init__()
        self.register_buffer("anchor", torch.zeros(1, dtype=torch.float64))

    def forward(self, x):
        score = torch.sin(5 * x[:, 0]) + 0.8 * x[:, 0] - 1.2
        return torch.stack([torch.zeros_like(score), score], 1)


@every_norm
def test_one_dimension_against_a_grid(norm):
    X = np.linspace(-2, 2, 21)[:, None]
    y = np.zeros(len(X), dtype=int)
    attack = PGD(
        eps=0.8, norm=norm, bounds=(-2.5, 2.5), n_restarts=20, n_steps=100, step_size=0.02,
        random_state=0,
    )  # fmt: skip
    result = attack.run(Waves(), X, y)
    grid = np.clip(X + np.linspace(-0.8, 0.8, 4001), -2.5, 2.5)

    def score(x):
        return np.sin(5 * x) + 0.8 * x - 1.2

    assert_allclose(score(result.X_adv[:, 0]), score(grid).max(1), atol=2e-3)
    assert_array_equal(result.success, score(grid).max(1) > 0)
    assert 0 < result.success.sum() < len(X)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    clf = MLPClassifier((32,), max_iter=80, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a short fit
        clf.fit(X[:1000], y[:1000])
    return clf, X[1000:1300], y[1000:1300]


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.07), ("l2", 0.7), ("l1", 1.5), ("l1", 2.5)])
def test_more_steps_are_stronger(digits, norm, eps):
    clf, X, y = digits
    common = {"eps": eps, "norm": norm, "bounds": (0, 1)}
    clean = clf.predict(X) != y
    fgsm = FGSM(**common).run(clf, X, y).success
    pgd = PGD(**common, random_state=0).run(clf, X, y).success
    assert clean.sum() < fgsm.sum() < pgd.sum()
    assert (fgsm >= clean).all()
    assert (pgd >= clean).all()
    assert (fgsm & ~pgd).mean() <= 0.01


@every_norm
@pytest.mark.parametrize("stop", [False, True])
def test_more_restarts_are_never_weaker(digits, norm, stop):
    clf, X, y = digits
    eps = {"linf": 0.06, "l2": 0.35, "l1": 1.2}[norm]
    attack = PGD(eps=eps, norm=norm, bounds=(0, 1), n_steps=3, random_state=0)
    attack.set_params(stop_on_success=stop)
    counts, before = [], np.zeros(len(X), dtype=bool)
    for n_restarts in (1, 2, 4):
        success = attack.set_params(n_restarts=n_restarts).run(clf, X, y).success
        assert (success >= before).all()
        before = success
        counts.append(success.sum())
    assert counts[-1] > counts[0]


def test_more_budget_is_stronger(digits):
    clf, X, y = digits
    counts = [
        PGD(eps=eps, n_steps=10, random_state=0).run(clf, X, y).success.sum()
        for eps in (0, 0.02, 0.05, 0.1, 0.5)
    ]
    assert counts[0] == (clf.predict(X) != y).sum()
    assert counts[-1] == len(X)
    assert (np.diff(counts) > 0).all()


@every_norm
def test_stopping_changes_no_verdict(digits, norm):
    clf, X, y = digits
    eps = {"linf": 0.06, "l2": 0.35, "l1": 1.2}[norm]
    attack = PGD(eps=eps, norm=norm, bounds=(0, 1), n_restarts=2, n_steps=10, random_state=0)
    full = attack.run(clf, X, y)
    early = attack.run(clf, X, y, stop_on_success=True)
    assert_array_equal(early.success, full.success)
    asked = clone(attack).set_params(stop_on_success=True).run(clf, X, y)
    assert_array_equal(asked.X_adv, early.X_adv)

    def margin(X_adv):
        log_p = clf.predict_log_proba(X_adv)
        own = log_p[np.arange(len(y)), y]
        log_p[np.arange(len(y)), y] = -np.inf
        return log_p.max(1) - own

    # The full search ends at the strongest point, the early one at the first.
    fallen = full.success
    gain = (margin(full.X_adv) - margin(early.X_adv))[fallen]
    assert (gain > -1e-9).all()
    assert (gain > 1e-3).mean() > 0.5


def test_explicit_steps_of_half_the_radius_are_taken():
    X, y = make_data(2)
    clf = LogisticRegression().fit(X, y)
    attack = PGD(eps=0.4, n_steps=2, step_size=0.1, random_start=False)
    X_adv = attack.perturb(clf, X, y)
    moved = np.abs(X_adv - X)
    assert_allclose(moved[clf.predict(X) == y], 0.2, rtol=1e-9)
    # With one eps per feature, step_size is that of the largest.
    eps = np.array([0.4, 0.2, 0.4, 0.1, 0.4, 0.4])
    moved = np.abs(attack.set_params(eps=eps).perturb(clf, X, y) - X)
    assert_allclose(
        moved[clf.predict(X) == y],
        0.5 * eps * np.ones((len(moved[clf.predict(X) == y]), 1)),
        rtol=1e-9,
    )


# --- the estimator has the last word ---


class Shifted(LogisticRegression):
    """Its view is another model than its predict, as with a rounding that is much too large."""

    shift = 0.7

    def __to_torch__(self):
        seen = LogisticRegression()
        seen.__dict__.update(vars(self), intercept_=self.intercept_ + self.shift)
        return to_torch(seen)


@every_attack
def test_success_is_judged_by_predict(name):
    X, y = make_data(2)
    clf = Shifted().fit(X, y)
    result = make_attack(name).run(clf, X, y)
    assert_array_equal(result.success, clf.predict(result.X_adv) != y)
    assert result.success[clf.predict(X) != y].all()
    view = to_torch(clf)(torch.from_numpy(result.X_adv)).argmax(1).numpy() != y
    assert (view != result.success).any()  # the two do disagree here


class Opposed(LogisticRegression):
    """Its view misleads: what it takes for adversarial helps predict."""

    def __to_torch__(self):
        seen = LogisticRegression()
        seen.__dict__.update(vars(self), coef_=-self.coef_, intercept_=-self.intercept_)
        return to_torch(seen)


@every_attack
def test_a_misleading_view_does_no_harm(name):
    X, y = make_data(2)
    clf = Opposed().fit(X, y)
    wrong = clf.predict(X) != y
    assert 0 < wrong.sum() < len(X)
    for labels in ({"y": y}, {"y_target": 1 - y}):
        result = make_attack(name, eps=3.0).run(clf, X, **labels)
        assert_array_equal(result.success, clf.predict(result.X_adv) != y)
        assert result.success[wrong].all()


def test_search_goes_on_where_predict_disagrees():
    """A search that stops where the view has fallen goes on until predict falls too."""
    X, y = make_data(2)
    clf = Shifted().fit(X, y)
    attack = PGD(eps=0.6, random_state=0)
    full = attack.run(clf, X, y).success
    assert_array_equal(attack.run(clf, X, y, stop_on_success=True).success, full)


# --- as a transformer ---


def test_transform_leaves_predictions_and_fit_transform_true_labels():
    estimator, X, y = make_victim("MLPClassifier, 3 strings")
    attack = make_attack("pgd linf", estimator=estimator)
    assert attack.fit(X, y) is attack
    assert attack.estimator_ is estimator
    assert attack.n_features_in_ == 6
    assert_array_equal(attack.transform(X), attack.perturb(estimator, X))
    assert_array_equal(attack.fit_transform(X, y), attack.perturb(estimator, X, y))
    assert_array_equal(attack.fit_transform(X), attack.perturb(estimator, X))


@pytest.mark.parametrize("estimator", [None, LogisticRegression(C=0.5)])
def test_an_unfitted_estimator_is_cloned_and_fitted(estimator):
    X, y = make_data(3)
    attack = PGD(estimator, random_state=0)
    X_adv = attack.fit_transform(X, y)
    assert attack.estimator is estimator
    assert attack.estimator_ is not estimator
    if estimator is not None:
        assert not hasattr(estimator, "coef_")
        assert attack.estimator_.C == 0.5
    assert n_correct(attack.estimator_, X_adv, y) < n_correct(attack.estimator_, X, y)


def test_a_fitted_estimator_survives_clone_when_frozen():
    estimator, X, _ = make_victim("logistic, 3 classes")
    assert not hasattr(clone(PGD(estimator)).estimator[-1], "coef_")
    frozen = clone(PGD(FrozenEstimator(estimator), random_state=0))
    expected = PGD(random_state=0).perturb(estimator, X)
    assert_array_equal(frozen.fit(X).transform(X), expected)
    assert frozen.estimator_.estimator is estimator
    module, X, _ = make_victim("module")
    copied = clone(PGD(module, random_state=0))
    assert_array_equal(copied.fit(X).transform(X), PGD(random_state=0).perturb(module, X))


@pytest.mark.parametrize("victim", ["module", "skorch"])
def test_nets_as_estimators_of_a_transformer(victim):
    estimator, X, y = make_victim(victim)
    attack = make_attack("pgd linf", estimator=estimator)
    assert_array_equal(attack.fit_transform(X, y), attack.perturb(estimator, X, y))
    assert attack.estimator_ is estimator


def test_images_as_a_transformer():
    estimator, X, y = make_victim("module, images")
    attack = make_attack("pgd linf", estimator=estimator)
    assert_array_equal(attack.fit_transform(X, y), attack.perturb(estimator, X, y))
    assert_array_equal(attack.transform(X), attack.perturb(estimator, X))


def test_set_output():
    X, y = make_data(3)
    frame = as_frame(X)
    estimator = LogisticRegression().fit(frame, y)
    attack = FGSM(estimator).set_output(transform="pandas")
    result = attack.fit_transform(frame, y)
    pd.testing.assert_frame_equal(result, FGSM().perturb(estimator, frame, y))
    pd.testing.assert_frame_equal(attack.transform(frame), FGSM().perturb(estimator, frame))
    assert attack.get_feature_names_out().tolist() == list(frame)
    assert isinstance(FGSM(estimator).fit(frame).transform(frame), np.ndarray)


def test_in_a_pipeline():
    X, y = make_data(3)
    pipeline = Pipeline(
        [("scale", StandardScaler()), ("attack", FGSM(eps=0.2)), ("clf", LogisticRegression())]
    ).fit(X, y)
    Z = pipeline[0].transform(X)
    inner = LogisticRegression(max_iter=1000).fit(Z, y)
    Z_adv = FGSM(eps=0.2).perturb(inner, Z, y)
    assert_allclose(pipeline[-1].coef_, LogisticRegression().fit(Z_adv, y).coef_)
    assert_array_equal(pipeline.predict(X), pipeline[-1].predict(FGSM(eps=0.2).perturb(inner, Z)))


def test_in_a_grid_search():
    X, y = make_data(3)
    fitted = LogisticRegression().fit(X, y)
    pipeline = make_pipeline(PGD(FrozenEstimator(fitted), n_steps=3), RandomForestClassifier(5))
    search = GridSearchCV(pipeline, {"pgd__eps": [0.0, 0.3], "pgd__norm": ["linf", "l2"]}, cv=2)
    search.fit(X, y)
    assert set(search.best_params_) == {"pgd__eps", "pgd__norm"}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


# --- scikit-learn's own checks ---

BASES = {
    "none": lambda: None,
    "logistic": lambda: LogisticRegression(),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
}
ESTIMATORS = [
    attack(make()) for attack in (FGSM, PGD) for make in BASES.values()
]  # fmt: skip
ESTIMATORS += [
    PGD(LogisticRegression(), norm=norm, bounds=(-1e3, 1e3), n_restarts=2, n_steps=3)
    for norm in ("l2", "l1")
]


@parametrize_with_checks(ESTIMATORS)
def test_sklearn_checks(estimator, check):
    check(estimator)


# Those that scikit-learn runs on its own estimators only.
MORE_CHECKS = [
    "check_param_validation",
    "check_dataframe_column_names_consistency",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
]


@pytest.mark.parametrize("check", MORE_CHECKS)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: repr(e)[:60])
def test_more_sklearn_checks(estimator, check):
    with warnings.catch_warnings():
        if "output_transform" in check:  # they mix arrays and frames, whatever the transformer
            warnings.filterwarnings("ignore", ".*feature names.*", UserWarning)
        getattr(estimator_checks, check)(type(estimator).__name__, estimator)
