"""SmoothedClassifier: an estimator like any other, and certificates that hold."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_blobs
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch import NeuralNetClassifier
from torch import nn

from skrobust import RobustClassifier, SmoothedClassifier, to_torch
from skrobust.attacks import PGD
from skrobust.defenses import (
    MACER,
    AdversarialTraining,
    Consistency,
    GaussianAugmentation,
    NoiseAugmentation,
    SmoothAdv,
    Stability,
)
from skrobust.exceptions import NotDifferentiableError
from skrobust.metrics import robust_accuracy_score
from skrobust.smoothing import (
    FlipNoise,
    GaussianNoise,
    LaplaceNoise,
    SmoothedCertificate,
    SplittingNoise,
    UniformNoise,
)
from skrobust.verification import Certificate


def make_data(n_classes=2, n_samples=60, n_features=4):
    """Clouds of which some points overlap."""
    return make_blobs(
        n_samples, n_features, centers=n_classes, cluster_std=2.0, random_state=n_classes
    )


def assert_same(certificate, other):
    for name in ("label", "radius", "abstained", "p_lower", "n_samples", "reason"):
        assert_array_equal(getattr(certificate, name), getattr(other, name), err_msg=name)


@parametrize_with_checks(
    [
        SmoothedClassifier(random_state=0),
        SmoothedClassifier(
            DecisionTreeClassifier(random_state=0),
            noise="uniform",
            scale="std",
            n_selection=30,
            random_state=0,
        ),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


# The classifier inside -----------------------------------------------------------------------


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        make_pipeline(StandardScaler(), LinearSVC()),
        RandomForestClassifier(5, random_state=0),
        HistGradientBoostingClassifier(max_iter=3),
        KNeighborsClassifier(),
        RobustClassifier(module__hidden=(8,), max_epochs=80, batch_size=16, random_state=0),
        NeuralNetClassifier(
            net,
            criterion=nn.CrossEntropyLoss,
            lr=0.1,
            max_epochs=40,
            batch_size=8,
            train_split=None,
            verbose=0,
        ),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
@pytest.mark.parametrize("fitted", [True, False])
def test_any_classifier_inside(estimator, fitted):
    X, y = make_data(3)
    X = (X / 5).astype(np.float32)
    if fitted:
        estimator = clone(estimator).fit(X, y)
    clf = SmoothedClassifier(estimator, sigma=0.3, n_samples=300, n_augment=3, random_state=0)
    clf.fit(X, y)
    assert (clf.estimator_ is estimator) == fitted
    assert clf.score(X, y) > 0.85
    assert_array_equal(clf.classes_, [0, 1, 2])
    certificate = clf.certify(X)
    assert_array_equal(certificate.label, clf.predict(X))
    assert np.mean(~certificate.abstained) > 0.7
    assert 0.3 < certificate.radius.max() < 0.8
    decided = clf.certify(X, radius=0.2)
    assert_array_equal(decided.label, certificate.label)
    assert np.mean(decided.abstained == (certificate.radius < 0.2)) > 0.9
    assert decided.n_samples.mean() < certificate.n_samples.mean()


def test_modules_and_images():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
    )
    X = np.random.default_rng(0).random((7, 1, 6, 6), dtype=np.float32)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    clf = SmoothedClassifier(module, sigma=0.1, n_samples=200, random_state=0).fit(X)
    assert_array_equal(clf.classes_, [0, 1, 2])
    certificate = clf.certify(X)
    assert_same(certificate, clf.set_params(batch_size=7).certify(X))
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())
    with pytest.raises(ValueError, match=r"samples of shape \(1, 5, 6\)"):
        clf.predict(X[:, :, 1:])


def test_labels_can_be_strings():
    X, y = make_data(3)
    clf = SmoothedClassifier(sigma=0.5, random_state=0).fit(X, np.array(["a", "b", "c"])[y])
    assert set(clf.certify(X).label) == {"a", "b", "c"}
    assert clf.certify(X).label.dtype == clf.predict(X).dtype


def test_data_frames_reach_the_classifier_inside():
    X, y = make_data(2)
    frame = pd.DataFrame(X, columns=list("abcd"))
    frame["d"] = (frame["d"] > frame["d"].median()).astype(int)
    inner = make_pipeline(
        make_column_transformer((StandardScaler(), ["a", "b"]), (OneHotEncoder(), ["d"])),
        LogisticRegression(),
    )
    noise = FlipNoise(["d"])
    clf = SmoothedClassifier(inner, sigma=0.2, noise=noise, random_state=0).fit(frame, y)
    assert_array_equal(clf.feature_names_in_, list("abcd"))
    certificate = clf.certify(frame)
    assert_array_equal(certificate.radius[~certificate.abstained] % 1, 0)
    assert set(certificate.radius) <= {0.0, 1.0}
    assert clf.score(frame, y) > 0.9
    # A classifier that was fitted on arrays gets arrays.
    fitted = KNeighborsClassifier().fit(X, y)
    assert SmoothedClassifier(fitted, random_state=0).fit(frame).predict(frame).shape == (60,)


def test_noise_is_added_before_the_first_step_of_a_pipeline():
    X, y = make_data(2)
    inner = make_pipeline(StandardScaler(), LogisticRegression()).fit(X * 1000, y)
    clf = SmoothedClassifier(inner, sigma=300.0, random_state=0).fit(X * 1000)
    small = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    same = SmoothedClassifier(small, sigma=0.3, random_state=0).fit(X)
    assert_allclose(clf.certify(X * 1000).radius / 1000, same.certify(X).radius, atol=0.02)


def test_in_pipelines_and_grids():
    X, y = make_data(2)
    pipeline = make_pipeline(StandardScaler(), SmoothedClassifier(n_samples=100, random_state=0))
    grid = GridSearchCV(pipeline, {"smoothedclassifier__sigma": [0.1, 0.5]}, cv=2).fit(X, y)
    assert grid.score(X, y) > 0.9
    frozen = FrozenEstimator(LogisticRegression().fit(X, y))
    grid = GridSearchCV(SmoothedClassifier(frozen), {"sigma": [0.1, 0.5]}, cv=2).fit(X, y)
    assert grid.best_estimator_.estimator_.estimator is frozen.estimator


def test_robust_classifiers_train_with_fresh_noise():
    X, y = make_data(2, n_samples=30)
    inner = RobustClassifier(module__hidden=(4,), max_epochs=1, random_state=0)
    clf = SmoothedClassifier(inner, sigma=0.5).fit(X, y)
    assert isinstance(clf.estimator_.defense, GaussianAugmentation)
    assert clf.estimator_.defense.sigma == 0.5
    assert inner.defense is None
    clf = SmoothedClassifier(inner, sigma=0.5, scale="std").fit(X, y)
    assert_allclose(clf.estimator_.defense.sigma, 0.5 * X.std(axis=0))
    clf = SmoothedClassifier(inner, sigma=0.5, noise="uniform").fit(X, y)
    assert isinstance(clf.estimator_.defense, NoiseAugmentation)
    inner.set_params(defense=GaussianAugmentation(sigma=9.0))
    assert SmoothedClassifier(inner, sigma=0.5).fit(X, y).estimator_.defense.sigma == 0.5
    inner.set_params(defense=AdversarialTraining())
    clf = SmoothedClassifier(inner, sigma=0.5).fit(X, y)
    assert isinstance(clf.estimator_.defense, AdversarialTraining)
    inner.set_params(defense=None, max_epochs=30, batch_size=8)
    for noise in (SplittingNoise(step=1.0), "laplace", "flips"):
        clf = SmoothedClassifier(inner, sigma=0.3, noise=noise, random_state=0)
        assert clf.fit(np.round(X), y).score(np.round(X), y) > 0.85


@pytest.mark.parametrize("defense", [SmoothAdv(), MACER(), Consistency(), Stability()])
def test_defenses_for_smoothing_get_the_noise(defense):
    X, y = make_data(2, n_samples=30)
    inner = RobustClassifier(module__hidden=(4,), defense=defense, max_epochs=2, random_state=0)
    clf = SmoothedClassifier(inner, sigma=0.3).fit(X, y)
    assert type(clf.estimator_.defense) is type(defense)
    assert clf.estimator_.defense.sigma == 0.3
    assert defense.sigma == 0.25  # that of the parameters is left alone
    assert np.isfinite([epoch["train_loss"] for epoch in clf.estimator_.history_]).all()
    clf = SmoothedClassifier(inner, sigma=0.3, scale="std").fit(X, y)
    assert_allclose(clf.estimator_.defense.sigma, 0.3 * X.std(axis=0))


class TrainsUnderNoise(LogisticRegression):
    """Records what it gets, and leaves the rest to LogisticRegression."""

    def __fit_under_noise__(self, noise):
        assert not hasattr(self, "coef_")
        self.noise_ = noise

    def fit(self, X, y, sample_weight=None):
        self.X_, self.weight_ = X, sample_weight
        return super().fit(X, y, sample_weight)


def test_an_estimator_can_train_under_noise_by_itself():
    X, y = make_data(2)
    inner, weight = TrainsUnderNoise(), np.arange(len(y)) % 3
    clf = SmoothedClassifier(inner, sigma=0.5, noise="laplace", random_state=0)
    fitted = clf.fit(X, y, sample_weight=weight).estimator_
    assert fitted.noise_ is clf.noise_
    assert_array_equal(fitted.X_, X)
    assert_array_equal(fitted.weight_, weight)
    assert not hasattr(inner, "noise_")
    frame = pd.DataFrame(X, columns=list("abcd"))
    assert clf.fit(frame, y).estimator_.X_ is frame


def test_standard_deviation_of_gaussian_noise():
    X = np.zeros((1, 2, 2))
    assert GaussianNoise().fit(X, 0.5).normal_std == 0.5
    scale = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert_array_equal(GaussianNoise().fit(X, 0.5, scale).normal_std, [0.5, 1.0, 1.5, 2.0])
    assert UniformNoise().fit(X, 0.5).normal_std is None


def test_sample_weights_count_rows():
    X, y = make_data(2)
    weight = np.arange(len(y)) % 3
    clf = SmoothedClassifier(sigma=0.5, random_state=0).fit(X, y, sample_weight=weight)
    repeated = clone(clf).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    assert_allclose(clf.estimator_.coef_, repeated.estimator_.coef_, rtol=1e-3)
    with pytest.raises(ValueError, match="KNeighborsClassifier, the estimator of"):
        clf.set_params(estimator=KNeighborsClassifier()).fit(X, y, sample_weight=weight)


# Certificates --------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["gaussian", "laplace", "uniform"])
@pytest.mark.parametrize("radius", [None, 0.3])
def test_certificates_of_linear_classifiers_are_true(noise, radius):
    # The vote of a half space is decided by its side, and its radius is at most the distance.
    X, y = make_data(2, n_samples=400)
    inner = LogisticRegression().fit(X, y)
    clf = SmoothedClassifier(inner, noise=noise, sigma=1.0, n_samples=500, random_state=0).fit(X)
    certificate = clf.certify(X, radius=radius)
    weight = inner.coef_[0]
    dual = np.linalg.norm(weight) if noise == "gaussian" else np.abs(weight).max()
    distance = np.abs(inner.decision_function(X)) / dual
    certified = ~certificate.abstained
    assert (certificate.label == inner.predict(X))[certified].all()
    # 0.4 of 400 are expected to be wrong if all were as bad as can be.
    assert np.sum(certified & (certificate.radius > distance)) <= 5
    assert certified.mean() > 0.5
    if radius is None and noise == "gaussian":  # nor is it far below
        near = certified & (distance < 2)
        assert np.median(certificate.radius[near] / distance[near]) > 0.8


class Side(nn.Module):
    """On which side of a plane across the first feature a point lies."""

    def __init__(self, n_features):
        super().__init__()
        self.register_buffer("weight", torch.eye(n_features, dtype=torch.float64)[:1])

    def forward(self, x):
        score = x @ self.weight.T
        return torch.cat([-score, score], 1)


@pytest.mark.parametrize("noise", ["gaussian", "laplace", "uniform"])
def test_10_000_certificates_at_the_edge_are_wrong_as_rarely_as_alpha_says(noise):
    # At a distance of 0.4 from the plane, for which no radius above it is true.
    X = np.random.default_rng(0).uniform(-5, 5, (10_000, 3))
    X[:, 0] = np.where(X[:, 1] > 0, 0.4, -0.4)
    alpha = 0.05
    clf = SmoothedClassifier(
        Side(3),
        noise=noise,
        sigma=0.5,
        alpha=alpha,
        n_samples=200,
        n_selection=20,
        random_state=0,
    ).fit(X[:10])
    for certificate in (clf.certify(X), clf.certify(X, radius=0.4 + 1e-9)):
        right = certificate.label == (X[:, 0] > 0)
        wrong = ~certificate.abstained & ((certificate.radius > 0.4) | ~right)
        # A rate of alpha would give more once in 10,000 times.
        assert wrong.sum() <= stats.binom.isf(1e-4, len(X), alpha)
        assert wrong.mean() > 0.2 * alpha  # as close to it as it should be at the edge


@pytest.mark.parametrize("noise", ["gaussian", "laplace", "uniform", "splitting", "flips"])
@pytest.mark.parametrize("estimator", [LogisticRegression(), KNeighborsClassifier()])
def test_nothing_depends_on_batches_neighbours_or_order(noise, estimator):
    X, y = make_data(3, n_samples=40)
    X = np.round(X)
    sigma = 2.0 if noise in ("gaussian", "laplace", "uniform") else 0.5
    noise = {"splitting": SplittingNoise(step=1.0)}.get(noise, noise)
    settings = {"sigma": sigma, "noise": noise, "n_samples": 150, "random_state": 0}
    clf = SmoothedClassifier(estimator, **settings).fit(X, y)
    for radius in (None, 0.2):
        whole = clf.set_params(batch_size="auto").certify(X, radius)
        for batch_size in (1, 37, 1000):
            if batch_size > 1 or isinstance(estimator, LogisticRegression):
                assert_same(whole, clf.set_params(batch_size=batch_size).certify(X, radius))
        order = np.random.default_rng(0).permutation(len(X))
        assert_array_equal(clf.certify(X[order], radius).p_lower, whole.p_lower[order])
        alone = clf.certify(X[3:4], radius)
        assert alone.p_lower == whole.p_lower[3]
        assert alone.n_samples == whole.n_samples[3]
    other = clone(clf).set_params(random_state=1).fit(X, y).certify(X)
    again = clone(clf).fit(X, y).certify(X)
    assert_same(again, clf.certify(X))
    if not isinstance(noise, SplittingNoise):
        assert (other.p_lower != again.p_lower).any()


def test_threads_and_pickles_give_the_same():
    X, y = make_data(3)
    clf = SmoothedClassifier(
        RandomForestClassifier(5, random_state=0), sigma=1.0, n_samples=200, random_state=0
    ).fit(X, y)
    certificate = clf.certify(X)
    assert_same(certificate, pickle.loads(pickle.dumps(clf)).certify(X))
    assert_same(certificate, clf.set_params(n_jobs=2).certify(X))


def test_memory_is_bounded():
    X, y = make_data(2)
    clf = SmoothedClassifier(Counting(), n_samples=2000, batch_size=300).fit(X, y)
    Counting.most_rows = 0
    clf.certify(X)
    assert Counting.most_rows <= 300


def test_global_random_state_is_left_alone():
    X, y = make_data(2)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    SmoothedClassifier(random_state=0).fit(X, y).certify(X)
    assert torch.equal(state, torch.get_rng_state())


def test_predict_proba_is_the_shares_of_the_votes():
    X, y = make_data(3)
    clf = SmoothedClassifier(sigma=2.0, n_selection=40, random_state=0).fit(X, y)
    proba = clf.predict_proba(X)
    assert_allclose(proba * 40, np.round(proba * 40))
    assert_array_equal(clf.classes_[proba.argmax(axis=1)], clf.predict(X))
    assert ((proba > 0).sum(axis=1) > 1).any()


def test_radii_in_other_norms_are_converted():
    X, y = make_data(2)
    clf = SmoothedClassifier(sigma=1.0, random_state=0).fit(X, y)
    radius = clf.certify(X).radius
    for noise, norm, factor in [
        ("gaussian", "l2", 1.0),
        ("gaussian", "l1", 1.0),
        ("gaussian", "linf", 0.5),
        ("laplace", "l2", 0.5),
        ("laplace", "linf", 0.25),
    ]:
        own = clone(clf).set_params(noise=noise).fit(X, y)
        radius = own.certify(X).radius
        converted = own.set_params(norm=norm).certify(X)
        assert converted.norm == norm
        assert_allclose(converted.radius, factor * radius)
        if factor != 1 or norm == "l2":
            assert_array_equal(
                own.certify(X, radius=0.3 * factor).reason,
                own.set_params(norm=None).certify(X, radius=0.3).reason,
            )


def test_sigma_for_each_feature_and_in_standard_deviations():
    X, y = make_data(2)
    X[:, 2] *= 1000
    X = np.column_stack([X, np.full(len(X), 7.0)])
    std = np.append(X[:, :4].std(axis=0), 1.0)
    inner = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    settings = {"n_samples": 300, "random_state": 0}
    by_scale = SmoothedClassifier(inner, sigma=0.4, scale="std", **settings).fit(X).certify(X)
    by_array = SmoothedClassifier(inner, sigma=0.4 * std, **settings).fit(X).certify(X)
    assert_allclose(by_scale.radius, 0.4 * by_array.radius, rtol=1e-6)
    assert by_scale.unit == "standard deviations of the features"
    assert by_array.unit == "sigma of each feature"
    # In those units it is the certificate of the scaled data.
    scaled = SmoothedClassifier(inner[-1], sigma=0.4, **settings).fit((X - X.mean(0)) / std)
    assert_allclose(
        np.median(scaled.certify((X - X.mean(0)) / std).radius),
        np.median(by_scale.radius),
        rtol=0.1,
    )
    both = SmoothedClassifier(inner, sigma=[0.4] * 5, scale="std", **settings).fit(X).certify(X)
    assert_allclose(both.radius, by_array.radius, rtol=1e-6)


def test_what_a_certificate_says():
    X, y = make_data(2)
    clf = SmoothedClassifier(sigma=2.0, n_samples=200, random_state=0).fit(X, y)
    middle = X[y == 0].mean(axis=0) / 2 + X[y == 1].mean(axis=0) / 2
    X = np.vstack([X, middle])
    certificate = clf.certify(X)
    assert len(certificate) == 61
    assert_array_equal(certificate.abstained, certificate.reason == "no majority")
    assert_array_equal(certificate.radius[certificate.abstained], 0)
    frame = certificate.to_frame()
    columns = ["label", "radius", "abstained", "p_lower", "n_samples", "reason"]
    assert list(frame.columns) == columns
    assert len(frame) == 61
    assert isinstance(certificate, SmoothedCertificate)
    assert isinstance(certificate, Certificate)
    text = repr(certificate)
    assert re.match(r"Certificate of 61 samples: \d+ certified, \d+ abstained", text)
    for part in ("norm l2", "units of X", "alpha=0.001", "GaussianNoise", "Clopper-Pearson"):
        assert part in text
    decided = clf.certify(X, radius=1.0)
    assert set(decided.reason) <= {"certified", "out of reach", "undecided"}
    assert decided.n_samples.max() <= 400
    assert_array_equal(decided.radius, np.where(decided.abstained, 0, 1.0))
    assert "betting" in repr(decided)


def test_bound_for_the_runner_up():
    X, y = make_data(3)
    clf = SmoothedClassifier(sigma=1.0, n_samples=1000, bound="runner-up", random_state=0)
    clf.fit(X, y)
    certificate = clf.certify(X)
    plain = clf.set_params(bound="two-class").certify(X)
    assert_array_equal(certificate.label, plain.label)
    assert np.median(np.abs(certificate.radius - plain.radius)) < 0.2
    decided = clf.set_params(bound="runner-up").certify(X, radius=0.3)
    assert np.mean(decided.abstained == (certificate.radius < 0.3)) > 0.9


def test_progress_bar(capsys):
    X, y = make_data(2)
    clf = SmoothedClassifier(n_samples=100, random_state=0).fit(X, y)
    clf.certify(X)
    assert capsys.readouterr().err == ""
    clf.set_params(verbose=1).certify(X)
    assert "SmoothedClassifier: 100%" in capsys.readouterr().err


# Attacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["gaussian", "laplace", "uniform"])
def test_attacks_do_not_beat_certificates(noise):
    X, y = make_data(2, n_samples=100)
    inner = RobustClassifier(module__hidden=(16,), max_epochs=100, batch_size=32, random_state=0)
    clf = SmoothedClassifier(inner, noise=noise, sigma=1.0, n_samples=2000, random_state=0)
    clf.fit(X, y)
    certificate = clf.certify(X)
    votes = clone(clf).set_params(n_selection=10_000, estimator=FrozenEstimator(clf.estimator_))
    votes.set_params(random_state=1).fit(X, y)
    # Each sample just inside its own radius.
    X_adv = X.copy()
    attack = PGD(norm=certificate.norm, n_steps=20, random_state=0)
    certified = np.flatnonzero(~certificate.abstained)
    for i in certified:
        attack.set_params(eps=0.99 * certificate.radius[i])
        X_adv[i : i + 1] = attack.perturb(clf, X[i : i + 1], certificate.label[i : i + 1])
    # 0.1 of 100 are expected to be wrong if all were as bad as can be.
    assert (votes.predict(X_adv) != certificate.label)[certified].sum() <= 2
    assert len(certified) > 80
    # Beyond it attacks succeed, so that those above were attacks.
    attack.set_params(eps=20 * np.median(certificate.radius[certified]))
    far = attack.perturb(clf, X, certificate.label)
    assert (votes.predict(far) != certificate.label).mean() > 0.9


def test_view_for_attacks():
    X, y = make_data(3)
    clf = SmoothedClassifier(sigma=1.0, n_selection=500, random_state=0).fit(X, y)
    view = to_torch(clf)
    assert_allclose(view(torch.tensor(X)).exp().sum(dim=1), 1)
    assert (view(torch.tensor(X)).argmax(dim=1).numpy() == clf.predict(X)).mean() > 0.95
    assert torch.equal(view(torch.tensor(X)), to_torch(clf)(torch.tensor(X)))
    assert robust_accuracy_score(clf, X[:20], y[:20], eps=5.0, norm="l2") < 0.5 * clf.score(X, y)
    with pytest.raises(NotDifferentiableError, match="FlipNoise has no differentiable view"):
        to_torch(SmoothedClassifier(noise="flips").fit(np.round(X), y))
    with pytest.raises(NotDifferentiableError, match="KNeighborsClassifier"):
        to_torch(SmoothedClassifier(KNeighborsClassifier()).fit(X, y))


# Bad input -----------------------------------------------------------------------------------


def test_too_few_samples_are_an_error_before_any_pass():
    X, y = make_data(2)
    clf = SmoothedClassifier(Counting(), n_samples=9)
    with pytest.raises(ValueError, match=r"n_samples=9 .* anything .* Set n_samples to 10 or more"):
        clf.fit(X, y)
    clf = SmoothedClassifier(Counting(), sigma=0.5, n_samples=100, random_state=0).fit(X, y)
    asked = Counting.asked
    with pytest.raises(ValueError, match=r"cannot certify radius=1 at alpha=0\.001") as error:
        clf.certify(X, radius=1.0)
    least = int(re.search(r"to (\d+) or more", str(error.value))[1])
    with pytest.raises(ValueError, match="cannot certify radius=1 at"):
        clf.set_params(n_samples=least - 1).certify(X, radius=1.0)
    with pytest.raises(ValueError, match=r"more than GaussianNoise with sigma=0\.5 can certify"):
        clf.certify(X, radius=100.0)
    assert Counting.asked == asked
    assert not clf.set_params(n_samples=least).certify(X, radius=1.0).abstained.any()
    uniform = clone(clf).set_params(noise="uniform").fit(X, y)
    with pytest.raises(ValueError, match=r"radius=0.87 is more than UniformNoise"):
        uniform.certify(X, radius=0.87)


class Counting(ClassifierMixin, BaseEstimator):
    """A classifier of one opinion that counts how often it is asked."""

    asked = 0
    most_rows = 0

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        Counting.asked += 1
        Counting.most_rows = max(Counting.most_rows, len(X))
        return np.full(len(X), self.classes_[0])


class Moody(Counting):
    def predict(self, X):
        return self.classes_[np.random.default_rng().integers(2, size=len(X))]


class NoisyModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x + torch.randn_like(x))


@pytest.mark.parametrize("estimator", [Moody(), NoisyModule()], ids=["predict", "module"])
def test_classifiers_that_are_random_themselves_are_an_error(estimator):
    X, y = make_data(2)
    with pytest.raises(ValueError, match="gives different answers for the same inputs"):
        SmoothedClassifier(estimator, random_state=0).fit(X, y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sigma": 0}, "'sigma' parameter"),
        ({"sigma": -1.0}, "'sigma' parameter"),
        ({"sigma": [1, 1, 0, 1]}, "must be positive for all features; got 0"),
        ({"sigma": [1, 1]}, "sigma has 2 values, but X has 4 features"),
        ({"alpha": 0}, "'alpha' parameter"),
        ({"alpha": 0.7}, "'alpha' parameter"),
        ({"noise": "pink"}, "'noise' parameter"),
        ({"norm": "l0"}, "GaussianNoise certifies in l2, which says nothing about norm='l0'"),
        ({"noise": "flips", "norm": "l2"}, "FlipNoise certifies in l0"),
        ({"noise": "flips", "sigma": 1.5}, "sigma between 0 and 1, .* got sigma=1.5"),
        ({"noise": "flips", "scale": "std"}, "got one sigma for each feature"),
        ({"noise": FlipNoise(["a"])}, "contains 'a', and X has no such column"),
        ({"noise": FlipNoise([4])}, "contains 4, and X has no such column: it has 4"),
        ({"noise": FlipNoise([0, [0, 1]])}, "none of them twice"),
        ({"noise": FlipNoise([[0, 1]])}, "no one-hot code"),
        ({"noise": "splitting"}, "on the grid of its step"),
        ({"noise": SplittingNoise(step=-1)}, "'step' parameter"),
        ({"noise": "splitting", "scale": "std"}, "the same sigma for all features"),
        ({"n_samples": 5}, "cannot certify anything"),
        ({"estimator": 3}, "'estimator' parameter"),
    ],
)
def test_bad_parameters(parameters, message):
    X, y = make_data(2)
    clf = SmoothedClassifier(**{"sigma": 0.5, "random_state": 0} | parameters)
    with pytest.raises(ValueError, match=message):
        clf.fit(X, y)


def test_bad_inputs():
    X, y = make_data(2)
    with pytest.raises(NotFittedError):
        SmoothedClassifier().certify(X)
    clf = SmoothedClassifier(random_state=0).fit(X, y)
    for radius in (-1.0, np.nan, "0.5", [0.1]):
        with pytest.raises(ValueError, match="radius must be None or a number"):
            clf.certify(X, radius=radius)
    with pytest.raises(ValueError, match="contains NaN"):
        clf.certify(np.full((1, 4), np.nan))
    fitted = LogisticRegression().fit(X, y)
    with pytest.raises(ValueError, match="labels that the estimator does not know: 7"):
        SmoothedClassifier(fitted).fit(X, np.full(len(y), 7))
    with pytest.raises(ValueError, match="X has 3 features"):
        SmoothedClassifier(fitted).fit(X[:, :3], y)
    flips = SmoothedClassifier(noise="flips", random_state=0).fit(np.round(X), y)
    with pytest.raises(ValueError, match="a category that was not there at fit"):
        flips.predict(np.round(X) + 100)


def test_noise_objects_have_names_that_are_short():
    X, y = make_data(2)
    for name, kind in [
        ("gaussian", GaussianNoise),
        ("laplace", LaplaceNoise),
        ("uniform", UniformNoise),
    ]:
        settings = {"n_samples": 50, "random_state": 0}
        by_name = SmoothedClassifier(noise=name, **settings).fit(X, y)
        by_object = SmoothedClassifier(noise=kind(), **settings).fit(X, y)
        assert_same(by_name.certify(X), by_object.certify(X))
    grid = SmoothedClassifier(noise=SplittingNoise()).set_params(noise__step=0.5)
    assert grid.fit(np.round(X), y).noise_.step == 0.5
