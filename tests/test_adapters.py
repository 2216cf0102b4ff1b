"""The fitted classifier behind one interface, prepared once and used without locks."""

import multiprocessing
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from _table import BUILDERS, make_data, make_victim
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import BaggingClassifier
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from skrobust import RobustClassifier
from skrobust.adapters import FittedClassifier, find_access
from skrobust.adapters import _access as access_module
from skrobust.adapters import _classifier as classifier_module
from skrobust.attacks import PGD, Square
from skrobust.attacks.core import _problem as problem_module
from skrobust.metrics import robust_accuracy_curve, robust_accuracy_score
from skrobust.utils import _random
from skrobust.utils._random import TorchRandomState


class Jitter(nn.Module):
    """Logits that differ in every pass."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 2)

    def forward(self, x):
        return self.linear(x + 0.01 * torch.randn_like(x))


# --- one preparation for a data set ---


@pytest.fixture
def calls(monkeypatch):
    """Number of calls of the functions that prepare a classifier and its inputs."""
    counts = Counter()

    def count(module, name):
        function = getattr(module, name)

        def counted(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)

    count(classifier_module, "to_torch")
    count(access_module, "logits_and_vjp")
    count(problem_module, "check_array")
    return counts


@pytest.mark.parametrize("victim", ["logistic, 3 classes", "MLPClassifier, 2 bools", "module"])
def test_a_default_score_prepares_once(victim, calls):
    estimator, X, y = make_victim(victim)
    assert 0 < robust_accuracy_score(estimator, X, y, eps=0.05) < 1  # so that several attacks run
    assert calls == {"to_torch": 1, "logits_and_vjp": 1, "check_array": 1}


def test_a_curve_prepares_once(calls):
    estimator, X, y = make_victim("logistic, 3 classes")
    robust_accuracy_curve(estimator, X, y, eps=[0, 0.01, 0.05, 0.1, 0.2])
    assert calls == {"to_torch": 1, "logits_and_vjp": 1, "check_array": 1}


# --- the strongest access ---


@pytest.mark.parametrize("victim", BUILDERS)
def test_gradients_where_there_is_a_view(victim):
    estimator, X, _ = make_victim(victim)
    classifier = FittedClassifier(estimator)
    classifier.check_inputs(X, X)
    access = find_access(classifier, X, X)
    assert access.provides == ("gradients", "scores", "decisions")
    with access.prepared(0):
        z = torch.tensor(X[:9], **access.options)
        logits, vjp = access(z)
        assert torch.equal(access.logits(z), logits)
        assert vjp(torch.ones_like(logits)).shape == z.shape
        index = access.decide(z).numpy()
    assert_array_equal(classifier.classes[index], classifier.predict(X[:9]))


def test_labels_and_their_positions():
    classifier = FittedClassifier(make_victim("MLPClassifier, 3 strings")[0])
    assert_array_equal(classifier.encode(np.array(["red", "blue"])), [2, 0])
    index, known = classifier.find_labels(np.array(["green", "black"]))
    assert_array_equal(known, [True, False])
    assert index[0] == 1
    assert_array_equal(classifier.find_labels(np.array([1, 2]))[1], [False, False])
    with pytest.raises(ValueError, match="labels that the estimator does not know: black"):
        classifier.encode(np.array(["black"]))


def test_predictions_get_a_copy():
    X, y = make_data(2)

    class Overwrites(DecisionTreeClassifier):
        def predict(self, X):
            labels = super().predict(X)
            X[:] = 0
            return labels

    before = X.copy()
    FittedClassifier(Overwrites().fit(X, y)).predict(X)
    assert_array_equal(X, before)


# --- random numbers and locks ---


def test_random_state_continues_and_leaves_the_global_one_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    state = TorchRandomState(0, "cpu")
    with state.active():
        first = torch.rand(3)
    with state.swapped():
        second = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(first, torch.rand(3, generator=generator))
    assert torch.equal(second, torch.rand(3, generator=generator))
    assert not state.restore_global([before])
    torch.rand(1)
    assert state.restore_global([before])
    assert torch.equal(torch.get_rng_state(), before)


def test_random_state_is_put_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), TorchRandomState(0, "cpu").active():
        torch.rand(1) @ torch.rand(2, 2)
    assert torch.equal(torch.get_rng_state(), before)


class AttacksInside(ClassifierMixin, BaseEstimator):
    """A classifier whose ``predict`` waits for a thread that attacks a random module."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.module_ = Jitter().double().eval()
        return self

    def predict(self, X):
        attack = PGD(eps=0.1, n_steps=2, eot_samples=2, random_state=0)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(attack.perturb, self.module_, np.array(X[:2])).result()
        return self.classes_[(np.asarray(X)[:, 0] > 0).astype(int)]

    def __to_torch__(self):
        return self.module_


def test_no_lock_is_held_while_the_estimator_predicts():
    X, y = make_data(2)
    clf = AttacksInside().fit(X, y)
    attack = PGD(eps=0.3, n_steps=3, eot_samples=2, random_state=0)
    results = []
    thread = threading.Thread(target=lambda: results.append(attack.perturb(clf, X, y)), daemon=True)
    thread.start()
    thread.join(60)
    assert len(results) == 1, "the attack and the prediction wait for each other"


def test_ensembles_of_nets_in_threads():
    X, y = make_data(2)
    net = RobustClassifier(eps=0.1, max_epochs=2, random_state=0)
    clf = BaggingClassifier(net, n_estimators=3, n_jobs=2, random_state=0).fit(X, y)
    attack = Square(eps=0.5, n_queries=10, random_state=0)
    with joblib.parallel_config("threading"):
        X_adv = attack.perturb(clf, X[:10], y[:10])
    assert_array_equal(attack.perturb(clf.set_params(n_jobs=1), X[:10], y[:10]), X_adv)


def draw_and_attack():
    with TorchRandomState(0, "cpu").active():
        torch.rand(1)


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this platform cannot fork"
)
def test_the_lock_is_free_in_a_forked_child():
    held, done = threading.Event(), threading.Event()

    def hold():
        with _random._LOCK.held():
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    held.wait(60)
    child = multiprocessing.get_context("fork").Process(target=draw_and_attack)
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads, which is the subject here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    child.join(30)
    exitcode = child.exitcode
    child.kill()
    done.set()
    thread.join(60)
    assert exitcode == 0
