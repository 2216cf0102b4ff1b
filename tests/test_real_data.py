"""Real data: training buys the robustness that it should, at the price that it should."""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.defenses import TRADES, AdversarialTraining, StandardTraining

DATA = Path(os.environ.get("SKROBUST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def scores(defense, eps, X_train, X_test, y_train, y_test):
    """Accuracy, and accuracy under 5 times 50 steps of PGD."""
    classifier = RobustClassifier(defense=defense, eps=eps, bounds=(0, 1), random_state=0)
    classifier.fit(X_train, y_train)
    attack = PGD(eps=eps, bounds=(0, 1), n_steps=50, n_restarts=5, random_state=0)
    withstood = ~attack.run(classifier, X_test, y_test, stop_on_success=True).success
    return classifier.score(X_test, y_test), withstood.mean()


def split(X, y):
    return train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)


def digits(defense):
    X, y = load_digits(return_X_y=True)
    return scores(defense, 0.1, *split(X / 16, y))


def spambase(defense):
    path = DATA / "spambase.csv"
    if not path.exists():
        pytest.skip(f"{path} is absent; set SKROBUST_DATA to the folder that has it")
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    X_train, X_test, y_train, y_test = split(np.log1p(table[:, :-1]), table[:, -1].astype(int))
    scaler = MinMaxScaler(clip=True).fit(X_train)
    return scores(
        defense, 0.05, scaler.transform(X_train), scaler.transform(X_test), y_train, y_test
    )


def test_digits_adversarial_training():
    clean, robust = digits(AdversarialTraining())
    assert clean >= 0.97
    assert robust >= 0.80


@pytest.mark.slow
def test_digits_without_defense():
    clean, robust = digits(StandardTraining())
    assert clean >= 0.97
    assert robust < 0.45


@pytest.mark.slow
def test_digits_trades():
    clean, robust = digits(TRADES(beta=6.0))
    assert clean >= 0.95
    assert robust >= 0.82


@pytest.mark.slow
def test_spambase_without_defense():
    clean, robust = spambase(StandardTraining())
    assert clean >= 0.91
    assert robust <= 0.35


@pytest.mark.slow
def test_spambase_adversarial_training():
    clean, robust = spambase(AdversarialTraining())
    assert clean >= 0.91
    assert robust >= 0.80
