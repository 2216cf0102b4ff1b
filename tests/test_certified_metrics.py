"""Certified accuracy: counting, scorers, and what the display draws."""

import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.naive_bayes import GaussianNB

from skrobust import SmoothedClassifier
from skrobust.inspection import CertifiedAccuracyDisplay
from skrobust.metrics import (
    average_certified_radius_score,
    certified_accuracy_score,
    make_certified_scorer,
    robust_accuracy_score,
)

RADII = [0.5, 0.0, 1.0, 0.25, 20.0, 0.5]


class Certifier:
    """Certificates that are known, of any radius, and a count of the calls."""

    def __init__(self, label, radius, abstained):
        self.certificate = SimpleNamespace(
            label=np.array(label), radius=np.array(radius), abstained=np.array(abstained)
        )
        self.n_calls = 0

    def certify(self, X):
        self.n_calls += 1
        return self.certificate


class Decider(Certifier):
    """It decides about one radius, too, and keeps what it was asked for."""

    def __init__(self, *args, largest=np.inf):
        super().__init__(*args)
        self.largest = largest
        self.asked = []

    def certify(self, X, radius=None):
        self.asked.append(radius)
        if np.isnan(X).any():
            raise ValueError("X contains NaN")
        if radius is None:
            return self.certificate
        if radius > self.largest:
            raise ValueError(f"radius={radius:g} is more than I can certify")
        known = self.certificate
        short = known.abstained | (known.radius < radius)
        # As after a conversion between units and back.
        reached = np.where(short, 0.0, np.nextafter(radius, 0))
        return SimpleNamespace(label=known.label, radius=reached, abstained=short)


X = np.zeros((6, 2))
Y = np.array([0, 1, 0, 1, 1, 0])
KNOWN = (
    [0, 1, 0, 0, 1, 0],  # the fourth is wrong
    [0.5, 0.1, 1.0, 2.0, 0.0, 0.0],
    [False, False, False, False, False, True],
)
WEIGHT = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 0.0])


@pytest.fixture(scope="module")
def smoothed():
    X, y = make_blobs(80, 3, centers=3, cluster_std=2.5, random_state=1)
    y = np.array(["a", "b", "c"])[y]
    clf = SmoothedClassifier(GaussianNB(), sigma=0.7, n_samples=1000, random_state=0)
    return clf.fit(X, y), X, y


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


# ------------------------------------------------------------------------------------------------
# Scores


@pytest.mark.parametrize("kind", [Certifier, Decider])
@pytest.mark.parametrize(
    ("radius", "expected", "weighted"),
    [
        (0, 4 / 6, 11 / 15),
        (0.1, 3 / 6, 6 / 15),
        (0.5, 2 / 6, 4 / 15),
        (1, 1 / 6, 3 / 15),
        (2, 0, 0),
    ],
)
def test_score_counts(kind, radius, expected, weighted):
    clf = kind(*KNOWN)
    score = certified_accuracy_score(clf, X, Y, radius=radius)
    assert isinstance(score, float)
    assert_allclose(score, expected)
    score = certified_accuracy_score(clf, X, Y, radius=radius, sample_weight=WEIGHT)
    assert_allclose(score, weighted)


def test_radius_of_0_asks_for_any_certificate():
    assert_allclose(certified_accuracy_score(Certifier(*KNOWN), X, Y), 4 / 6)


@pytest.mark.parametrize("kind", [Certifier, Decider])
@pytest.mark.parametrize("container", [list, tuple, np.array, pd.Series])
def test_curve_counts_in_the_order_of_the_input(kind, container):
    curve = certified_accuracy_score(kind(*KNOWN), X, Y, radius=container([1, 0, 0.5, 3, 0.1]))
    assert_allclose(curve, np.array([1, 4, 2, 0, 3]) / 6)
    curve = certified_accuracy_score(
        kind(*KNOWN), X, Y, radius=container([0.5, 0]), sample_weight=WEIGHT.tolist()
    )
    assert_allclose(curve, np.array([4, 11]) / 15)


def test_average_radius_counts():
    clf = Decider(*KNOWN)
    assert_allclose(average_certified_radius_score(clf, X, Y), 1.6 / 6)
    weighted = average_certified_radius_score(clf, X, Y, sample_weight=WEIGHT)
    assert_allclose(weighted, (0.5 + 0.2 + 3.0) / 15)
    assert clf.asked == [None, None]


def test_how_often_and_what_is_asked():
    clf = Decider(*KNOWN)
    certified_accuracy_score(clf, X, Y, radius=0.5)
    certified_accuracy_score(clf, X, Y, radius=[0.5])
    certified_accuracy_score(clf, X, Y, radius=np.float32(0.5))
    certified_accuracy_score(clf, X, Y, radius=[0.5, 0.25, 0.1])
    assert clf.asked == [0.5, 0.5, 0.5, None]
    clf = Certifier(*KNOWN)
    certified_accuracy_score(clf, X, Y, radius=[0.5, 0.25, 0.1])
    assert clf.n_calls == 1


def test_radii_are_compared_up_to_rounding():
    """The radius of a norm and a unit is converted, as in 0.1 * 3 / 3."""
    clf = Certifier([0], [0.3 - 1e-16], [False])
    assert clf.certificate.radius[0] < 0.3
    assert certified_accuracy_score(clf, X[:1], [0], radius=0.3) == 1
    assert certified_accuracy_score(clf, X[:1], [0], radius=0.3 + 1e-7) == 0


def test_scores_of_a_smoothed_classifier(smoothed):
    clf, X, y = smoothed
    certificate = clf.certify(X)
    right = (certificate.label == y) & ~certificate.abstained
    weight = np.random.default_rng(0).random(len(y))
    curve = certified_accuracy_score(clf, X, y, radius=RADII, sample_weight=weight)
    by_hand = [weight[right & (certificate.radius >= r)].sum() / weight.sum() for r in RADII]
    assert_allclose(curve, by_hand)
    ordered = curve[np.argsort(RADII)]
    assert (np.diff(ordered) <= 0).all()
    assert ordered[0] > ordered[3] > ordered[-1] == 0
    assert ordered[0] <= np.average(clf.predict(X) == y, weights=weight)
    average = average_certified_radius_score(clf, X, y, sample_weight=weight)
    assert_allclose(average, np.average(right * certificate.radius, weights=weight))
    # The average radius is the area under the curve.
    grid = np.linspace(0, 3, 3001)
    area = certified_accuracy_score(clf, X, y, radius=grid, sample_weight=weight).mean() * 3
    assert_allclose(area, average, atol=2e-3)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_one_radius_is_decided_cheaply(smoothed, norm):
    clf, X, y = smoothed
    clf = SmoothedClassifier(clf.estimator_, sigma=0.7, norm=norm, random_state=0).fit(X, y)
    radius = 0.3
    certificate = clf.certify(X, radius=radius)
    assert certificate.n_samples.mean() < clf.n_samples / 10
    expected = (~certificate.abstained & (certificate.label == y)).mean()
    assert expected > 0.3
    assert certified_accuracy_score(clf, X, y, radius=radius) == expected
    # Close to the other test, which knows all radii.
    curve = certified_accuracy_score(clf, X, y, radius=[radius, 0])
    assert abs(curve[0] - expected) <= 0.05


def test_between_attack_and_certificate(smoothed):
    clf, X, y = smoothed
    # A majority that is certified up to 0.6 is one of at least 2 to 1 at 0.3, and so the same among
    # the few votes that predict counts.
    certified = certified_accuracy_score(clf, X, y, radius=0.6)
    attacked = robust_accuracy_score(clf, X, y, eps=0.3, norm="l2")
    assert 0.5 < certified <= attacked <= clf.score(X, y)


def test_score_takes_what_users_have(smoothed):
    clf, X, y = smoothed
    expected = certified_accuracy_score(clf, X, y, radius=0.5)
    assert certified_accuracy_score(clf, X.tolist(), y.tolist(), radius=0.5) == expected
    frame = pd.DataFrame(X, columns=list("abc"))
    named = SmoothedClassifier(clf.estimator, sigma=0.7, n_samples=1000, random_state=0)
    named.fit(frame, pd.Series(y))
    assert certified_accuracy_score(named, frame, pd.Series(y), radius=0.5) == expected


# ------------------------------------------------------------------------------------------------
# What no sample can have


def test_radius_out_of_reach_is_a_score_of_0():
    clf = Decider(*KNOWN, largest=0.3)
    with pytest.warns(UserWarning, match=r"No sample.*radius 0\.5: radius=0\.5 is more than I can"):
        assert certified_accuracy_score(clf, X, Y, radius=0.5) == 0
    assert clf.asked == [0.5, 0.0]
    with pytest.raises(ValueError, match="X contains NaN"):
        certified_accuracy_score(clf, X * np.nan, Y, radius=0.5)
    with pytest.raises(ValueError, match="X contains NaN"):
        certified_accuracy_score(clf, X * np.nan, Y)


def test_smoothed_classifier_out_of_reach(smoothed):
    clf, X, y = smoothed
    with pytest.warns(UserWarning, match=r"No sample.*radius 20: .*Take a larger sigma") as record:
        assert certified_accuracy_score(clf, X, y, radius=20) == 0
    assert record[0].filename == __file__
    with pytest.warns(UserWarning, match=r"No sample.*radius 2\.5: .*Set n_samples to"):
        assert certified_accuracy_score(clf, X, y, radius=2.5) == 0
    # What the curve says without a word.
    assert_array_equal(certified_accuracy_score(clf, X, y, radius=[2.5, 20]), [0, 0])


# ------------------------------------------------------------------------------------------------
# Errors

scores = pytest.mark.parametrize(
    "score",
    [
        certified_accuracy_score,
        average_certified_radius_score,
        make_certified_scorer(0.5),
        CertifiedAccuracyDisplay.from_estimator,
    ],
    ids=["accuracy", "average", "scorer", "display"],
)


@scores
def test_estimators_without_certificates(score):
    plain = LogisticRegression().fit(np.eye(2), [0, 1])
    with pytest.raises(TypeError, match=r"method certify.*LogisticRegression has none"):
        score(plain, np.eye(2), [0, 1])
    with pytest.raises(NotFittedError):
        score(SmoothedClassifier(), np.eye(2), [0, 1])


@scores
def test_wrong_labels_and_weights(score, smoothed):
    clf, X, y = smoothed
    with pytest.raises(ValueError, match="labels that the estimator does not know: x, z"):
        score(clf, X, np.r_[y[:-2], ["z", "x"]])
    with pytest.raises(ValueError, match="does not know: 0"):
        score(clf, X, np.zeros(len(X)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        score(clf, X, y[:-1])
    with pytest.raises(ValueError, match="1d array"):
        score(clf, X, np.c_[y, y])
    for weight in (np.ones(3), np.zeros(len(y)), np.full(len(y), np.nan), -np.ones(len(y))):
        with pytest.raises(ValueError, match=r"(?i)sample_?.?weight|negative"):
            score(clf, X, y, sample_weight=weight)


@pytest.mark.parametrize(
    "radius", [-0.1, np.nan, np.inf, [], [0.1, -1], [[0.1, 0.2]], "far", ["a"], [[1], [1, 2]], None]
)
def test_wrong_radii(radius):
    clf = Decider(*KNOWN)
    with pytest.raises(ValueError, match="radius must be a number"):
        certified_accuracy_score(clf, X, Y, radius=radius)
    with pytest.raises(ValueError, match="radius must be a number"):
        make_certified_scorer(radius=radius)
    if radius is not None:
        with pytest.raises(ValueError, match="radius must be a number"):
            CertifiedAccuracyDisplay.from_estimator(clf, X, Y, radius=radius)
    assert clf.asked == []


def test_certificates_of_other_samples():
    with pytest.raises(ValueError, match=r"one certificate for each label.*\(6,\).*\(5,\)"):
        certified_accuracy_score(Certifier(*KNOWN), X[:5], Y[:5])


# ------------------------------------------------------------------------------------------------
# Scorers


def test_scorer_is_the_score(smoothed):
    clf, X, y = smoothed
    weight = np.random.default_rng(0).random(len(y))
    scorer = make_certified_scorer(0.5)
    assert check_scoring(clf, scoring=scorer) is scorer
    assert scorer(clf, X, y) == certified_accuracy_score(clf, X, y, radius=0.5)
    assert scorer(clf, X, y, sample_weight=weight) == certified_accuracy_score(
        clf, X, y, radius=0.5, sample_weight=weight
    )
    expected = certified_accuracy_score(clf, X, y, radius=[0.5, 0, 1])
    for radius in ([0.5, 0, 1], (0.5, 0, 1), np.array([0.5, 0, 1])):
        scores = make_certified_scorer(radius=radius)(clf, X, y)
        assert list(scores) == [f"certified_accuracy_{r}" for r in ("0.5", "0", "1")]
        assert list(scores.values()) == expected.tolist()
        assert all(type(value) is float for value in scores.values())


@pytest.mark.parametrize("radius", [0.5, [0, 0.5]])
def test_scorer_can_be_pickled_and_read(radius):
    scorer = make_certified_scorer(radius)
    again = pickle.loads(pickle.dumps(scorer))
    clf = Decider(*KNOWN)
    assert again(clf, X, Y) == scorer(clf, X, Y)
    assert repr(again) == repr(scorer)
    assert eval(repr(scorer)).parameters == {"radius": radius}
    assert scorer(clf, X, Y) == eval(repr(scorer))(clf, X, Y)


def make_search(scoring, refit=True, **params):
    clf = SmoothedClassifier(GaussianNB(), n_augment=2, n_samples=1000, random_state=0)
    return GridSearchCV(clf, {"sigma": [0.3, 1.0]}, scoring=scoring, refit=refit, cv=2, **params)


def test_grid_search_over_sigma(smoothed):
    _, X, y = smoothed
    search = make_search(make_certified_scorer(0.5)).fit(X, y)
    by_hand = []
    for sigma in (0.3, 1.0):
        clf = search.estimator.set_params(sigma=sigma)
        folds = [
            certified_accuracy_score(clf.fit(X[train], y[train]), X[test], y[test], radius=0.5)
            for train, test in StratifiedKFold(2).split(X, y)
        ]
        by_hand.append(np.mean(folds))
    assert_allclose(search.cv_results_["mean_test_score"], by_hand)
    assert search.best_params_ == {"sigma": 1.0}


def test_small_sigma_loses_a_grid_search(smoothed):
    """What cannot certify the radius has a score of 0, not none."""
    _, X, y = smoothed
    search = make_search(make_certified_scorer(1.0))
    with pytest.warns(UserWarning, match="No sample can have a certificate of radius 1"):
        search.fit(X, y)
    assert search.cv_results_["mean_test_score"][0] == 0 < search.best_score_


def test_grid_search_over_several_radii(smoothed):
    _, X, y = smoothed
    scorer = make_certified_scorer([0, 1])
    for refit in scorer.names:
        results = (search := make_search(scorer, refit).fit(X, y)).cv_results_
        assert search.best_index_ == results[f"mean_test_{refit}"].argmax()
        means = [results[f"mean_test_{name}"] for name in scorer.names]
        assert (means[0] > means[1]).all()
    assert_array_equal(means[1] > 0, [False, True])


def test_scorer_beside_others(smoothed):
    clf, X, y = smoothed
    scoring = {"clean": "accuracy", "certified": make_certified_scorer(0.5)}
    result = cross_validate(clf, X, y, scoring=scoring, cv=2)
    assert (result["test_certified"] <= result["test_clean"]).all()


class TakesWeights(ClassifierMixin, BaseEstimator):
    """Certifies what it has seen most of."""

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        return self

    def certify(self, X):
        n = len(X)
        return SimpleNamespace(
            label=np.repeat(self.classes_[0], n), radius=X[:, 0], abstained=np.zeros(n, dtype=bool)
        )


def test_metadata_routing(smoothed):
    _, X, y = smoothed
    X, weight = np.abs(X), np.random.default_rng(0).random(len(y)) ** 4
    clf = TakesWeights()

    def run(scorer, **params):
        return cross_validate(clf, X, y, scoring=scorer, cv=2, params=params)["test_score"]

    with sklearn.config_context(enable_metadata_routing=True):
        clf.set_fit_request(sample_weight=False)
        plain = run(make_certified_scorer(0.5))
        routed = make_certified_scorer(0.5).set_score_request(sample_weight=True)
        weighted = run(routed, sample_weight=weight)
        with pytest.raises(ValueError, match=r"sample_weight.*not explicitly set"):
            run(make_certified_scorer(0.5), sample_weight=weight)
    assert (weighted != plain).all()
    by_hand = [
        certified_accuracy_score(
            clf.fit(X[train], y[train]),
            X[test],
            y[test],
            radius=0.5,
            sample_weight=weight[test],
        )
        for train, test in StratifiedKFold(2).split(X, y)
    ]
    assert_allclose(weighted, by_hand)


# ------------------------------------------------------------------------------------------------
# Display


def test_display_draws_the_scores(pyplot, smoothed):
    clf, X, y = smoothed
    weight = np.random.default_rng(0).random(len(y))
    display = CertifiedAccuracyDisplay.from_estimator(clf, X, y, radius=RADII, sample_weight=weight)
    expected = certified_accuracy_score(clf, X, y, radius=RADII, sample_weight=weight)
    assert_array_equal(display.scores, expected)
    order = np.argsort(RADII, kind="stable")
    assert_array_equal(display.line_.get_xdata(), np.array(RADII)[order])
    assert_array_equal(display.line_.get_ydata(), expected[order])
    assert display.line_.get_drawstyle() == "steps-pre"
    assert display.ax_.get_xlabel() == "radius (l2, in units of X)"
    assert display.ax_.get_ylabel() == "Certified accuracy"
    assert display.figure_ is display.ax_.figure
    assert display.line_.get_label() == display.estimator_name == "SmoothedClassifier"


def test_display_finds_the_steps(pyplot, smoothed):
    display = CertifiedAccuracyDisplay.from_estimator(Certifier(*KNOWN), X, Y)
    assert_allclose(display.radius, [0, 0.1, 0.5, 1.0, 1.05])
    assert_allclose(display.scores, np.array([4, 3, 2, 1, 0]) / 6)
    assert display.ax_.get_xlabel() == "radius"
    clf, X_, y = smoothed
    display = CertifiedAccuracyDisplay.from_estimator(clf, X_, y)
    assert_array_equal(display.scores, certified_accuracy_score(clf, X_, y, radius=display.radius))
    # The steps are the curve: in between, too.
    grid = np.linspace(0, display.radius[-1], 500)
    drawn = display.scores[np.searchsorted(display.radius, grid)]
    assert_array_equal(drawn, certified_accuracy_score(clf, X_, y, radius=grid))


def test_display_of_a_certificate(pyplot, smoothed):
    clf, X, y = smoothed
    certificate = clf.certify(X)
    weight = np.random.default_rng(0).random(len(y))
    _, ax = pyplot.subplots()
    display = CertifiedAccuracyDisplay.from_certificate(
        certificate, y.tolist(), radius=RADII, sample_weight=weight, ax=ax, color="red"
    )
    assert ax.get_legend() is None
    expected = certified_accuracy_score(clf, X, y, radius=RADII, sample_weight=weight)
    assert_array_equal(display.scores, expected)
    assert display.line_.get_color() == "red"
    CertifiedAccuracyDisplay.from_certificate(certificate, y, name="mine", ax=ax)
    assert len(ax.lines) == 2
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["mine"]
    one = CertifiedAccuracyDisplay.from_certificate(clf.certify(X, radius=0.5), y)
    assert_array_equal(one.radius, [0, 0.5, 0.525])
    assert one.scores[0] == one.scores[1] > one.scores[2] == 0


def test_display_of_nothing_and_of_no_end(pyplot):
    nothing = Certifier([0], [0.0], [True])
    display = CertifiedAccuracyDisplay.from_estimator(nothing, X[:1], [0])
    assert_array_equal(display.radius, [0, 1])
    assert_array_equal(display.scores, [0, 0])
    endless = Certifier([0, 1], [np.inf, 2.0], [False, False])
    display = CertifiedAccuracyDisplay.from_estimator(endless, X[:2], [0, 1])
    assert_allclose(display.radius, [0, 2, 2.1])
    assert_array_equal(display.scores, [1, 1, 0.5])


def test_display_can_be_plotted_again(pyplot):
    display = CertifiedAccuracyDisplay(radius=[1, 0], scores=[0.5, 1], norm="l1")
    assert display.plot().ax_.get_legend() is None
    assert_array_equal(display.line_.get_ydata(), [1, 0.5])
    assert display.ax_.get_xlabel() == "radius (l1)"
    first = display.ax_
    assert display.plot(name="again").ax_ is not first
    assert display.ax_.get_legend() is not None


def test_errors_of_the_display(pyplot):
    for radius, scores in (([0, 1], [1]), (0.1, 1.0), ([[0, 1]], [[1, 0]])):
        with pytest.raises(ValueError, match="one score for each radius"):
            CertifiedAccuracyDisplay(radius=radius, scores=scores).plot()
    clf = Certifier(*KNOWN)
    with pytest.raises(ValueError, match="must be None or a list of radii"):
        CertifiedAccuracyDisplay.from_estimator(clf, X, Y, radius=0.5)
    assert clf.n_calls == 0
    with pytest.raises(ValueError, match="one certificate for each label"):
        CertifiedAccuracyDisplay.from_certificate(clf.certificate, Y[:3])


def test_display_needs_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    clf = Certifier(*KNOWN)
    with pytest.raises(ImportError, match=r"CertifiedAccuracyDisplay needs matplotlib"):
        CertifiedAccuracyDisplay.from_estimator(clf, X, Y)
    assert clf.n_calls == 0
