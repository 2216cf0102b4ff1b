"""RobustClassifier: a scikit-learn estimator to the last bit, and training as it is told."""

import copy
import pickle
import re
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.base import clone
from sklearn.datasets import make_blobs, make_classification
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback, EpochScoring, GradientNormClipping
from torch import nn
from torch.utils.data import DataLoader

from skrobust import RobustClassifier, to_torch
from skrobust.attacks import PGD
from skrobust.defenses import (
    TRADES,
    AdversarialTraining,
    BaseDefense,
    GaussianAugmentation,
    InputGradientRegularization,
    NoiseAugmentation,
    SmoothAdv,
    StandardTraining,
)
from skrobust.exceptions import NotDifferentiableError
from skrobust.metrics import robust_accuracy_score


def make_data(n_classes=2, n_samples=48, n_features=4):
    """Overlapping clouds in the unit cube."""
    X, y = make_blobs(
        n_samples, n_features, centers=n_classes, cluster_std=3.0, random_state=n_classes
    )
    return MinMaxScaler(clip=True).fit_transform(X), y


def make_classifier(**parameters):
    small = {"max_epochs": 3, "batch_size": 16, "module__hidden": (8,), "random_state": 0}
    if not isinstance(parameters.get("module", "mlp"), str):
        del small["module__hidden"]
    return RobustClassifier(**small | parameters)


def state(classifier):
    return copy.deepcopy(classifier.module_.state_dict())


def same(a, b):
    """Whether two states of modules, or the modules of two classifiers, are equal bit for bit."""
    a, b = (x if isinstance(x, dict) else x.module_.state_dict() for x in (a, b))
    assert a.keys() == b.keys()
    return all(torch.equal(a[key], b[key]) for key in a)


def linear_widths(classifier):
    return [m.out_features for m in classifier.module_ if isinstance(m, nn.Linear)]


class Recorder(Callback):
    """What the training looks like from the outside."""

    def initialize(self):
        self.lr, self.batch_states, self.epoch_states, self.batch_rows = [], [], [], []
        return self

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        self.lr.append(net.optimizer_.param_groups[0]["lr"])
        self.batch_rows.append(batch[0]["x"].clone())
        self.batch_states.append(copy.deepcopy(net.module_.state_dict()))

    def on_epoch_end(self, net, **kwargs):
        self.epoch_states.append(copy.deepcopy(net.module_.state_dict()))


def recorder_of(classifier):
    (found,) = [c for _, c in classifier.net_.callbacks_ if isinstance(c, Recorder)]
    return found


class OwnNet(nn.Module):
    def __init__(self, n_features, n_classes, input_shape, width=5):
        super().__init__()
        self.given = (n_features, n_classes, input_shape, width)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(n_features, width), nn.Tanh(), nn.Linear(width, n_classes)
        )

    def forward(self, x):
        return self.layers(x)


class SingleLogit(nn.Module):
    """One logit a sample: of shape (n, 1), or (n,) where flat."""

    def __init__(self, n_features, flat=False):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n_features, 8), nn.Tanh(), nn.Linear(8, 1))
        self.flat = flat

    def forward(self, x):
        logits = self.layers(x)
        return logits[:, 0] if self.flat else logits


def make_net(n_features, n_classes, width=6):
    return nn.Sequential(nn.Linear(n_features, width), nn.ReLU(), nn.Linear(width, n_classes))


def make_lazy_net(n_classes):
    return nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.LazyLinear(n_classes))


def make_normalised_net(n_features, n_classes):
    return nn.Sequential(
        nn.Linear(n_features, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(8, n_classes),
    )


# ------------------------------------------------------------------------------------------------
# scikit-learn's own checks

CHECKED = [
    RobustClassifier(max_epochs=5, lr=0.01),
    RobustClassifier(max_epochs=5, lr=0.01, preprocessor=StandardScaler()),
    RobustClassifier(max_epochs=5, lr=0.01, early_stopping=True, validation_fraction=0.3),
]


@parametrize_with_checks(CHECKED)
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "check", ["check_param_validation", "check_dataframe_column_names_consistency"]
)
@pytest.mark.parametrize("estimator", CHECKED[:2], ids=["bare", "preprocessor"])
def test_more_sklearn_checks(estimator, check):
    getattr(estimator_checks, check)("RobustClassifier", estimator)


# ------------------------------------------------------------------------------------------------
# The same integer, the same bits

VARIANTS = {
    "default": {},
    "standard": {"defense": StandardTraining()},
    "TRADES": {"defense": TRADES()},
    "noise": {"defense": GaussianAugmentation()},
    "gradient": {"defense": InputGradientRegularization()},
    "dropout": {"module": make_normalised_net},
    "early stopping": {"early_stopping": True, "validation_fraction": 0.25},
    "averaging": {"weight_averaging": 0.9},
    "balanced": {"class_weight": "balanced"},
    "preprocessor": {"preprocessor": StandardScaler()},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


@every_variant
def test_same_seed_same_bits(variant):
    X, y = make_data(3)
    first = make_classifier(**VARIANTS[variant]).fit(X, y)
    torch.rand(3), np.random.rand(3)  # noqa: NPY002 - moves the global streams
    second = make_classifier(**VARIANTS[variant]).fit(X, y)
    assert same(first, second)
    assert same(state(first), first.fit(X, y))
    assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    other = make_classifier(**VARIANTS[variant] | {"random_state": 1}).fit(X, y)
    assert not same(first, other)


def test_random_state_instance_and_none():
    X, y = make_data()
    stream = np.random.RandomState(0)
    first = make_classifier(random_state=stream).fit(X, y)
    assert not same(first, make_classifier(random_state=stream).fit(X, y))
    assert same(first, make_classifier(random_state=np.random.RandomState(0)).fit(X, y))
    first, second = (make_classifier(random_state=None).fit(X, y) for _ in range(2))
    assert not same(first, second)


@every_variant
def test_global_state_is_left_alone(variant):
    X, y = make_data()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    filters, n_threads = list(warnings.filters), torch.get_num_threads()
    classifier = make_classifier(**VARIANTS[variant]).fit(X, y)
    classifier.predict(X)
    classifier.partial_fit(X, y)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert warnings.filters == filters
    assert torch.get_num_threads() == n_threads
    assert torch.is_grad_enabled()
    assert not any(child.training for child in classifier.module_.modules())


@pytest.fixture
def every_torch_warning():
    """Torch says most things only once a process."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


@pytest.mark.usefixtures("every_torch_warning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_variant
def test_data_are_not_modified(variant, dtype):
    X, y = make_data()
    X = X.astype(dtype)
    X_before, y_before = X.copy(), y.copy()
    X.setflags(write=False)
    y.setflags(write=False)
    classifier = make_classifier(**VARIANTS[variant]).fit(X, y)
    classifier.predict(X)
    classifier.partial_fit(X, y)
    assert_array_equal(X, X_before)
    assert_array_equal(y, y_before)


def test_container_and_memory_order_do_not_matter():
    X, y = make_data()
    expected = make_classifier().fit(X, y)
    for same_X in (
        X.tolist(),
        np.asfortranarray(X),
        pd.DataFrame(X),
        np.repeat(X, 2, axis=1)[:, ::2],
    ):
        assert same(expected, make_classifier().fit(same_X, y.tolist()))
    assert same(
        make_classifier().fit(X.astype(np.float32), y),
        make_classifier().fit(X.astype(np.float32).astype(np.float64), y),
    )


@every_variant
def test_order_of_the_rows_does_not_matter(variant):
    X, y = make_data(3)
    order = np.random.default_rng(0).permutation(len(X))
    fitted = make_classifier(**VARIANTS[variant]).fit(X, y)
    assert same(fitted, make_classifier(**VARIANTS[variant]).fit(X[order], y[order]))


@every_variant
def test_weights_are_duplicates(variant):
    X, y = make_data(3)
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    weighted = make_classifier(**VARIANTS[variant]).fit(X, y, sample_weight=weight)
    repeated = make_classifier(**VARIANTS[variant])
    repeated.fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    assert same(weighted, repeated)
    assert not same(weighted, make_classifier(**VARIANTS[variant]).fit(X, y))


def test_scale_of_the_weights_does_not_matter():
    X, y = make_data()
    weight = np.random.default_rng(0).integers(1, 5, len(X)).astype(float)
    fitted = make_classifier().fit(X, y, sample_weight=weight)
    assert same(fitted, make_classifier().fit(X, y, sample_weight=4 * weight))


def test_equal_inputs_with_different_labels_stay_apart():
    X, y = make_data()
    X, y = np.r_[X, X[:5]], np.r_[y, 1 - y[:5]]
    recorded = make_classifier(callbacks=[Recorder()], max_epochs=1).fit(X, y)
    assert sum(map(len, recorder_of(recorded).batch_rows)) == len(X)


# MinMaxScaler takes no weights.
@pytest.mark.parametrize("preprocessor", [None, StandardScaler(), MinMaxScaler()], ids=repr)
def test_samples_without_weight_are_dropped(preprocessor):
    X, y = make_data()
    far = np.r_[X, [[50.0, -50.0, 0.0, 0.0]]]
    weight = np.r_[np.ones(len(X)), 0]
    dropped = make_classifier(preprocessor=preprocessor)
    dropped.fit(far, np.r_[y, 0], sample_weight=weight)
    without = make_classifier(preprocessor=preprocessor).fit(X, y)
    assert_allclose(dropped.predict_proba(X), without.predict_proba(X), atol=1e-5)
    # A class that has samples without weight only is none.
    third = make_classifier().fit(far, np.r_[y, 7], sample_weight=weight)
    assert_array_equal(third.classes_, [0, 1])


# ------------------------------------------------------------------------------------------------
# class_weight


def test_class_weight_is_a_sample_weight():
    X, y = make_data(3)
    fitted = make_classifier(class_weight={0: 3, 2: 0.5}).fit(X, y)
    factors = np.array([3, 1, 0.5])[y]
    assert same(fitted, make_classifier().fit(X, y, sample_weight=factors))
    both = make_classifier(class_weight={0: 3, 2: 0.5}).fit(X, y, sample_weight=1 + y)
    assert same(both, make_classifier().fit(X, y, sample_weight=(1 + y) * factors))


def test_class_weight_balanced():
    X, y = make_data()
    kept = (y == 0) | (np.arange(len(y)) % 4 == 0)
    X, y = X[kept], y[kept]
    n_samples = np.bincount(y)
    weights = dict(enumerate(len(y) / 2 / n_samples))
    assert n_samples[0] > 2 * n_samples[1]
    fitted = make_classifier(class_weight="balanced").fit(X, y)
    by_hand = make_classifier(class_weight=weights).fit(X, y)
    assert_allclose(fitted.predict_proba(X), by_hand.predict_proba(X), atol=1e-6)
    plain = make_classifier().fit(X, y)
    assert fitted.predict_proba(X)[:, 1].mean() > plain.predict_proba(X)[:, 1].mean()


def test_class_weight_with_string_labels():
    X, y = make_data()
    names = np.array(["ham", "spam"])[y]
    fitted = make_classifier(class_weight={"spam": 2}).fit(X, names)
    assert same(fitted, make_classifier(class_weight={1: 2}).fit(X, y))


# ------------------------------------------------------------------------------------------------
# partial_fit, warm_start


def test_partial_fit_takes_one_epoch_after_the_other():
    X, y = make_data(3)
    classifier = make_classifier(callbacks=[Recorder()], lr=0.01)
    for n_epochs in (1, 2, 3):
        assert classifier.partial_fit(X, y) is classifier
        assert len(classifier.history_) == n_epochs
    recorder = recorder_of(classifier)
    assert len(recorder.epoch_states) == 3
    assert not same(*recorder.epoch_states[:2])
    assert recorder.lr == [0.01] * 9  # three batches of 16
    first_rows = recorder.batch_rows[::3]
    assert not torch.equal(first_rows[0], first_rows[1])  # another order in every epoch
    again = make_classifier(lr=0.01)
    for _ in range(3):
        again.partial_fit(X, y)
    assert same(classifier, again)


def test_partial_fit_in_pieces():
    X, y = make_data(3, 90)
    order = np.argsort(y, kind="stable")
    classifier = make_classifier(lr=0.02)
    for _ in range(40):
        for label in range(3):  # every piece has one class only
            rows = order[30 * label : 30 * (label + 1)]
            classifier.partial_fit(X[rows][::3], y[rows][::3], classes=[0, 1, 2])
        classifier.partial_fit(X, y)
    assert_array_equal(classifier.classes_, [0, 1, 2])
    assert classifier.score(X, y) > 0.8


def test_partial_fit_with_weights():
    X, y = make_data()
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    weighted = make_classifier().partial_fit(X, y, sample_weight=weight)
    repeated = make_classifier().partial_fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    assert same(weighted, repeated)


def test_partial_fit_classes_may_be_absent_from_the_data():
    X, y = make_data()
    classifier = make_classifier().partial_fit(X, y + 3, classes=[9, 3, 4])
    assert_array_equal(classifier.classes_, [3, 4, 9])
    assert classifier.predict_proba(X).shape == (len(X), 3)
    classifier.partial_fit(X, np.full(len(X), 9))


def test_partial_fit_goes_on_after_fit():
    X, y = make_data()
    classifier = make_classifier(lr=1e-4, max_epochs=4).fit(X, y)
    before = state(classifier)
    classifier.partial_fit(X, y)
    assert len(classifier.history_) == 5
    assert not same(before, classifier)
    for key, value in classifier.module_.state_dict().items():
        assert (value - before[key]).abs().max() < 1e-3


def test_fit_starts_anew_after_partial_fit():
    X, y = make_data(3)
    classifier = make_classifier().partial_fit(X[y < 2], y[y < 2])
    classifier.fit(X, y)
    assert_array_equal(classifier.classes_, [0, 1, 2])
    assert same(classifier, make_classifier().fit(X, y))
    assert len(classifier.history_) == 3


def test_warm_start():
    X, y = make_data()
    classifier = make_classifier(warm_start=True, lr=1e-4).fit(X, y)
    before = state(classifier)
    assert same(before, make_classifier(lr=1e-4).fit(X, y))
    classifier.set_params(max_epochs=2).fit(X, y)
    assert len(classifier.history_) == 5
    assert not same(before, classifier)
    for key, value in classifier.module_.state_dict().items():
        assert (value - before[key]).abs().max() < 1e-3
    with pytest.raises(ValueError, match=r"unknown at the first fit: \[5\]"):
        classifier.fit(X, np.where(y == 1, 5, 0))
    with pytest.raises(ValueError, match="features"):
        classifier.fit(X[:, :3], y)


# ------------------------------------------------------------------------------------------------
# Early stopping


def test_early_stopping_keeps_the_best_weights():
    X, y = make_data(3, 120)
    classifier = make_classifier(
        early_stopping=True,
        validation_fraction=0.25,
        n_iter_no_change=30,
        max_epochs=30,
        lr=0.3,
        lr_schedule="constant",
        callbacks=[Recorder()],
    ).fit(X, y)
    history = classifier.history_
    assert len(history) == 30
    robust, clean = np.array(history[:, ("valid_robust_acc", "valid_acc")]).T
    assert (robust <= clean).all()
    assert (robust >= 0).all()
    assert (clean <= 1).all()
    best = np.flatnonzero(history[:, "valid_robust_acc_best"])[-1]
    assert robust[best] == robust.max()
    assert best < 29
    states = recorder_of(classifier).epoch_states
    assert same(classifier, states[best])
    assert not same(classifier, states[-1])
    assert sum(map(len, recorder_of(classifier).batch_rows)) == 30 * 90


def test_early_stopping_stops():
    X, y = make_data(3, 120)
    classifier = make_classifier(
        early_stopping=True,
        validation_fraction=0.25,
        n_iter_no_change=3,
        max_epochs=300,
        lr=0.1,
        lr_schedule="constant",
    ).fit(X, y)
    assert 3 < len(classifier.history_) < 100
    is_best = classifier.history_[:, "valid_robust_acc_best"]
    assert is_best[-4:] == [True, False, False, False]


def test_validation_is_under_attack():
    X, y = make_data(3, 120)
    options = {"early_stopping": True, "validation_fraction": 0.25, "max_epochs": 10, "lr": 0.02}
    weak = make_classifier(**options, eps=0.0).fit(X, y)
    assert weak.history_[:, "valid_acc"] == weak.history_[:, "valid_robust_acc"]
    strong = make_classifier(**options, eps=0.2).fit(X, y)
    clean, robust = (np.mean(strong.history_[:, f"valid_{k}"]) for k in ("acc", "robust_acc"))
    assert robust < clean - 0.05


def test_no_validation_without_early_stopping():
    X, y = make_data()
    assert "valid_acc" not in make_classifier().fit(X, y).history_[-1]
    partial = make_classifier(early_stopping=True).partial_fit(X, y)
    assert "valid_acc" not in partial.history_[-1]


def test_early_stopping_on_few_samples():
    X, y = make_data(3, 12)
    # A tenth of twelve samples is less than one of each class: it works, or says what to do.
    try:
        classifier = make_classifier(early_stopping=True).fit(X, y)
    except ValueError as error:
        assert "validation_fraction" in str(error)  # noqa: PT017
    else:
        assert "valid_robust_acc" in classifier.history_[-1]


# ------------------------------------------------------------------------------------------------
# Callbacks, history, verbosity


def test_callbacks_of_the_user():
    X, y = make_data()
    recorder = Recorder()
    clipping = GradientNormClipping(1e-9)
    classifier = make_classifier(
        callbacks=[recorder, ("clip", clipping)], optimizer="sgd", max_epochs=2
    ).fit(X, y)
    assert not vars(recorder)  # it was a copy that was initialised
    assert len(recorder_of(classifier).epoch_states) == 2
    first, *_, last = recorder_of(classifier).batch_states
    for key in first:
        assert (first[key] - last[key]).abs().max() < 1e-8  # clipped
    classifier.fit(X, y)
    assert len(recorder_of(classifier).epoch_states) == 2


def test_callback_parameters():
    X, y = make_data()
    clipping = ("clip", GradientNormClipping(1.0))
    classifier = make_classifier(callbacks=[clipping], callbacks__clip__gradient_clip_value=1e-9)
    classifier.set_params(optimizer="sgd").fit(X, y)
    assert dict(classifier.net_.callbacks_)["clip"].gradient_clip_value == 1e-9
    assert clipping[1].gradient_clip_value == 1.0


def test_epoch_scoring_sees_the_predictions_of_the_training():
    X, y = make_data()
    scoring = EpochScoring("accuracy", on_train=True, name="train_acc", lower_is_better=False)
    classifier = make_classifier(callbacks=[scoring], max_epochs=5).fit(X, y)
    accuracies = classifier.history_[:, "train_acc"]
    assert len(accuracies) == 5
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)


def test_a_callback_can_end_the_training():
    class StopAfterTwo(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                raise KeyboardInterrupt

    X, y = make_data()
    classifier = make_classifier(callbacks=[StopAfterTwo()], max_epochs=9).fit(X, y)
    assert len(classifier.history_) == 2


def test_history():
    X, y = make_data()
    classifier = make_classifier(max_epochs=40, lr=0.02).fit(X, y)
    history = classifier.history_
    assert history[:, "epoch"] == list(range(1, 41))
    assert history[-1, "train_loss"] < 0.8 * history[0, "train_loss"]
    assert all(seconds > 0 for seconds in history[:, "dur"])
    assert history is classifier.net_.history


@pytest.mark.parametrize("early_stopping", [False, True])
def test_verbose_prints_a_table(capsys, early_stopping):
    X, y = make_data()
    options = {"early_stopping": early_stopping, "validation_fraction": 0.25}
    make_classifier(**options).fit(X, y)
    assert capsys.readouterr().out == ""
    make_classifier(verbose=1, **options).fit(X, y)
    lines = capsys.readouterr().out.strip().splitlines()
    columns = ["epoch", "train_loss"] + ["valid_acc", "valid_robust_acc"] * early_stopping
    assert set(columns) <= set(lines[0].split())
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "3"]
    assert same(
        make_classifier(**options).fit(X, y), make_classifier(verbose=1, **options).fit(X, y)
    )


# ------------------------------------------------------------------------------------------------
# Preprocessor: eps and bounds in raw units


def test_preprocessor_keeps_the_threat_model_in_raw_units():
    """Training on raw data with a scaler inside is training on scaled data in scaled units."""
    X, y = make_data()
    raw = X * [1e4, 1e-3, 1.0, 1e2] + [5e4, 0.0, -3.0, 1e3]
    scaler = StandardScaler().fit(raw)
    eps = 0.3 * scaler.scale_
    bounds = (raw.min(axis=0), raw.max(axis=0))
    # Whole batches and no random starts, for the hash orders samples by their values.
    options = {
        "module__activation": "tanh",
        "batch_size": len(X),
        "max_epochs": 15,
        "lr": 0.02,
        "defense": AdversarialTraining(random_start=False),
    }
    inside = make_classifier(eps=eps, bounds=bounds, preprocessor=StandardScaler(), **options)
    before = make_classifier(eps=0.3, bounds=tuple(scaler.transform(bounds)), **options)
    inside.fit(raw, y)
    before.fit(scaler.transform(raw), y)
    expected = before.predict_proba(scaler.transform(raw))
    assert_allclose(inside.predict_proba(raw), expected, atol=1e-5)
    for wrong in ({"eps": 0.3}, {"eps": 2 * eps}, {"bounds": None}):
        other = clone(inside).set_params(**wrong)
        assert np.abs(other.fit(raw, y).predict_proba(raw) - expected).max() > 5e-4


def test_preprocessor_is_fitted_on_raw_data_and_copied():
    X, y = make_data()
    scaler = StandardScaler()
    classifier = make_classifier(preprocessor=scaler).fit(1e4 * X, y)
    assert not hasattr(scaler, "mean_")
    assert_allclose(classifier.preprocessor_.mean_, 1e4 * X.mean(axis=0))
    weight = np.arange(len(X))
    classifier.fit(1e4 * X, y, sample_weight=weight)
    assert_allclose(classifier.preprocessor_.mean_, 1e4 * np.average(X, axis=0, weights=weight))
    classifier.set_params(preprocessor=None).fit(X, y)
    assert classifier.preprocessor_ is None


def test_partial_fit_fits_the_preprocessor_once():
    X, y = make_data()
    classifier = make_classifier(preprocessor=StandardScaler()).partial_fit(X, y)
    mean = classifier.preprocessor_.mean_.copy()
    classifier.partial_fit(X + 5, y)
    assert_array_equal(classifier.preprocessor_.mean_, mean)


@pytest.mark.parametrize(
    ("preprocessor", "n_left"),
    [
        (PCA(2), 2),
        (SelectKBest(k=3), 3),
        (make_pipeline(StandardScaler(), SelectKBest(k=1)), 1),
    ],
    ids=["PCA", "SelectKBest", "Pipeline"],
)
def test_preprocessor_may_change_the_number_of_features(preprocessor, n_left):
    X, y = make_data()
    classifier = make_classifier(module=OwnNet, preprocessor=preprocessor).fit(X, y)
    assert classifier.module_.given[:3] == (n_left, 2, (n_left,))
    assert classifier.n_features_in_ == 4
    X_adv = PGD(eps=0.1, random_state=0).perturb(classifier, X, y)
    assert X_adv.shape == X.shape


def test_preprocessor_without_a_view():
    X, y = make_data()
    with pytest.raises(NotDifferentiableError, match="QuantileTransformer has no differentiable"):
        make_classifier(preprocessor=QuantileTransformer(n_quantiles=10)).fit(X, y)


# ------------------------------------------------------------------------------------------------
# Modules and shapes


def make_images(n_classes=3):
    X, y = make_data(n_classes, 36, 64)
    return X, X.reshape(-1, 1, 8, 8), y


@pytest.mark.parametrize("preprocessor", [None, StandardScaler()], ids=["", "preprocessor"])
def test_flat_rows_are_images(preprocessor):
    X, images, y = make_images()
    options = {"module": "cnn", "module__channels": (3,), "module__hidden": 8}
    flat = make_classifier(**options, input_shape=(1, 8, 8), preprocessor=preprocessor).fit(X, y)
    assert flat.n_features_in_ == 64
    if preprocessor is None:
        deep = make_classifier(**options).fit(images, y)
        assert same(flat, deep)
        assert_array_equal(flat.predict_proba(X), deep.predict_proba(images))
        assert same(flat, make_classifier(**options, input_shape=(1, 8, 8)).fit(images, y))
    X_adv = PGD(eps=0.1, random_state=0).perturb(flat, X, y)
    assert X_adv.shape == X.shape


def test_input_shape_as_list_and_threat_model_of_images():
    X, images, y = make_images()
    mask = np.zeros((1, 8, 8), dtype=bool)
    mask[0, :4] = True
    options = {"bounds": (0, 1), "eps": np.linspace(0, 0.2, 64)}
    flat = make_classifier(input_shape=[1, 8, 8], mask=mask.ravel(), **options).fit(X, y)
    deep = make_classifier(mask=mask, **options | {"eps": options["eps"].reshape(1, 8, 8)})
    assert same(flat, deep.fit(images, y))


def test_mlp_flattens_images():
    _, images, y = make_images()
    classifier = make_classifier().fit(images, y)
    assert classifier.module_[1].in_features == 64
    assert classifier.predict(images).shape == (36,)


def test_named_and_class_and_factory():
    X, y = make_data(3)
    assert linear_widths(make_classifier().fit(X, y)) == [8, 3]
    own = make_classifier(module=OwnNet, module__width=7).fit(X, y)
    assert own.module_.given == (4, 3, (4,), 7)
    own = make_classifier(module=OwnNet, input_shape=(2, 2)).fit(X, y)
    assert own.module_.given == (4, 3, (2, 2), 5)
    made = make_classifier(module=make_net, module__width=9).fit(X, y)
    assert made.module_[0].out_features == 9
    # What the user says goes before what the data say.
    wide = make_classifier(module=OwnNet, module__n_classes=3).fit(X, y)
    assert wide.module_.given[1] == 3


def test_module_instance_is_copied():
    X, y = make_data(3)
    module = make_net(4, 3)
    module[0].weight.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    classifier = make_classifier(module=module).fit(X, y)
    assert same(before, dict(module.state_dict()))
    assert module.training
    assert all(p.grad is None for p in module.parameters())
    assert classifier.module_ is not module
    assert not same(before, classifier)
    # Training starts from its weights, and leaves frozen ones.
    assert torch.equal(classifier.module_[0].weight, before["0.weight"])
    assert same(classifier, make_classifier(module=module).fit(X, y))


def test_lazy_modules():
    X, y = make_data(3)
    module = make_lazy_net(3)
    instance = make_classifier(module=module).fit(X, y)
    assert instance.module_[0].in_features == 4
    assert isinstance(module[0], nn.LazyLinear)
    assert module[0].has_uninitialized_params()
    factory = make_classifier(module=make_lazy_net)
    assert same(factory.fit(X, y), clone(factory).fit(X, y))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    "defense", [StandardTraining(), AdversarialTraining(), TRADES()], ids=lambda d: repr(d)[:8]
)
def test_single_logit(flat, defense):
    X, y = make_data(n_samples=80)
    classifier = make_classifier(
        module=SingleLogit, module__flat=flat, defense=defense, max_epochs=60, lr=0.02, eps=0.02
    ).fit(X, y)
    with torch.no_grad():
        logits = classifier.module_(torch.tensor(X, dtype=torch.float32)).numpy().ravel()
    assert_allclose(classifier.decision_function(X), logits, rtol=1e-6)
    assert_array_equal(classifier.predict(X), (logits > 0).astype(int))
    assert classifier.score(X, y) > 0.85


def test_dropout_and_batch_normalisation():
    X, y = make_data(3)
    classifier = make_classifier(module=make_normalised_net).fit(X, y)
    normalisation = classifier.module_[1]
    # One pass in training mode a batch: the attack itself runs in evaluation mode.
    assert normalisation.num_batches_tracked == 9
    assert normalisation.running_mean.abs().max() > 0
    assert_array_equal(classifier.predict_proba(X), classifier.predict_proba(X))
    # As evaluated, each sample for itself.
    assert_allclose(classifier.predict_proba(X)[:1], classifier.predict_proba(X[:1]), rtol=1e-5)
    some, little = (make_classifier(module__dropout=p).fit(X, y) for p in (0.5, 1e-6))
    assert not same(some, little)


def test_batches_are_of_nearly_equal_size():
    X, y = make_data(n_samples=33)
    classifier = make_classifier(module=make_normalised_net, callbacks=[Recorder()]).fit(X, y)
    sizes = [len(x) for x in recorder_of(classifier).batch_rows]
    assert sizes == [11] * 9
    rows = torch.cat(recorder_of(classifier).batch_rows[:3])
    assert len(rows.unique(dim=0)) == 33


# ------------------------------------------------------------------------------------------------
# Optimizer, schedule, averaging


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle"])
def test_lr_schedule(schedule):
    X, y = make_data(n_samples=40)
    classifier = make_classifier(
        lr=0.02, lr_schedule=schedule, batch_size=10, max_epochs=5, callbacks=[Recorder()]
    ).fit(X, y)
    progress = np.arange(20) / 20
    expected = {
        "constant": np.ones(20),
        "cosine": (1 + np.cos(np.pi * progress)) / 2,
        "one-cycle": np.minimum(progress / 0.3, (1 - progress) / 0.7),
    }[schedule]
    assert_allclose(recorder_of(classifier).lr, 0.02 * expected, atol=1e-12)
    assert classifier.net_.optimizer_.param_groups[0]["lr"] == 0.02


@pytest.mark.parametrize(
    ("optimizer", "cls"),
    [
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("sgd", torch.optim.SGD),
        (torch.optim.RMSprop, torch.optim.RMSprop),
    ],
)
def test_optimizers(optimizer, cls):
    X, y = make_data()
    classifier = make_classifier(optimizer=optimizer, optimizer__weight_decay=0.25, lr=0.004)
    classifier.fit(X, y)
    assert type(classifier.net_.optimizer_) is cls
    (group,) = classifier.net_.optimizer_.param_groups
    assert (group["weight_decay"], group["lr"]) == (0.25, 0.004)
    assert not same(classifier, clone(classifier).set_params(optimizer__weight_decay=0.0).fit(X, y))


def test_optimizer_with_a_closure():
    X, y = make_data(3)
    classifier = make_classifier(optimizer=torch.optim.LBFGS, lr=0.1).fit(X, y)
    assert isinstance(classifier.net_.optimizer_, torch.optim.LBFGS)
    assert classifier.score(X, y) > 0.6


def test_data_loader_of_the_user():
    X, y = make_data(3)
    options = {"iterator_train": DataLoader, "iterator_train__drop_last": True, "batch_size": 20}
    classifier = make_classifier(**options, iterator_train__shuffle=True, callbacks=[Recorder()])
    classifier.fit(X, y)
    assert [len(x) for x in recorder_of(classifier).batch_rows] == [20] * 6
    assert same(classifier, clone(classifier).fit(X[::-1], y[::-1]))
    assert not same(classifier, make_classifier(**options).fit(X, y))
    assert not same(classifier, clone(classifier).set_params(random_state=1).fit(X, y))


def moving_average(states, decay):
    average = copy.deepcopy(states[0])
    for n_averaged, weights in enumerate(states, start=1):
        kept = min(decay, n_averaged / (n_averaged + 9))
        for key in average:
            average[key] = kept * average[key] + (1 - kept) * weights[key]
    return average


@pytest.mark.parametrize("decay", [0.3, 0.99])
def test_weight_averaging(decay):
    X, y = make_data(3)
    classifier = make_classifier(weight_averaging=decay, callbacks=[Recorder()], lr=0.02)
    classifier.fit(X, y)
    states = recorder_of(classifier).batch_states
    raw = make_classifier(lr=0.02).fit(X, y)
    assert same(states[-1], raw)  # the optimizer goes on from its own weights
    for key, average in moving_average(states, decay).items():
        assert_allclose(classifier.module_.state_dict()[key], average, atol=1e-6)
        assert not torch.equal(classifier.module_.state_dict()[key], states[-1][key])


def test_weight_averaging_over_partial_fits():
    X, y = make_data(3)
    classifier = make_classifier(weight_averaging=0.9, callbacks=[Recorder()], lr=0.02)
    raw = make_classifier(lr=0.02)
    for _ in range(3):
        classifier.partial_fit(X, y)
        raw.partial_fit(X, y)
        states = recorder_of(classifier).batch_states
        assert same(states[-1], raw)
        for key, average in moving_average(states, 0.9).items():
            assert_allclose(classifier.module_.state_dict()[key], average, atol=1e-6)


def test_weight_averaging_is_what_is_validated_and_kept():
    X, y = make_data(3, 120)
    classifier = make_classifier(
        weight_averaging=0.9,
        early_stopping=True,
        validation_fraction=0.25,
        n_iter_no_change=20,
        max_epochs=20,
        lr=0.2,
        callbacks=[Recorder()],
    ).fit(X, y)
    recorder = recorder_of(classifier)
    best = np.flatnonzero(classifier.history_[:, "valid_robust_acc_best"])[-1]
    n_batches = len(recorder.batch_states) // len(classifier.history_)
    average = moving_average(recorder.batch_states[: n_batches * (best + 1)], 0.9)
    for key in average:
        assert_allclose(classifier.module_.state_dict()[key], average[key], atol=1e-5)


def test_max_epochs_auto():
    X, y = make_data(n_samples=32)
    options = {"defense": StandardTraining(), "max_epochs": "auto"}
    assert len(make_classifier(**options, batch_size=2).fit(X, y).history_) == 125
    assert len(make_classifier(**options, batch_size=32).fit(X, y).history_) == 200
    many = np.random.default_rng(0).random((450, 4))
    labels = (many[:, 0] > 0.5).astype(int)
    assert len(make_classifier(**options, batch_size=2).fit(many, labels).history_) == 10


# ------------------------------------------------------------------------------------------------
# Parameters


def test_double_underscores():
    classifier = RobustClassifier(
        module__hidden=(5,), optimizer__weight_decay=0.1, defense=TRADES(beta=2.0)
    )
    params = classifier.get_params()
    assert params["module__hidden"] == (5,)
    assert params["optimizer__weight_decay"] == 0.1
    assert params["defense__beta"] == 2.0
    assert "defense__beta" not in classifier.get_params(deep=False)
    assert classifier.get_params(deep=False)["module__hidden"] == (5,)
    copied = clone(classifier)
    assert repr(copied.get_params()) == repr(params)
    assert copied.defense is not classifier.defense
    assert copied.set_params(defense__beta=4.0, module__hidden=(6, 7), eps=0.3) is copied
    assert (copied.defense.beta, classifier.defense.beta) == (4.0, 2.0)
    copied.set_params(module__dropout=0.2, max_epochs=1)
    X, y = make_data()
    copied.fit(X, y)
    assert linear_widths(copied) == [6, 7, 2]
    assert sum(isinstance(m, nn.Dropout) for m in copied.module_) == 2
    assert classifier.get_params()["module__hidden"] == (5,)


def test_defense_parameter_where_the_defense_is_the_default():
    classifier = RobustClassifier()
    try:
        classifier.set_params(defense__n_steps=3)
    except ValueError as error:  # either it works, or it says what to do
        assert "defense" in str(error)  # noqa: PT017
    else:
        assert classifier.get_params()["defense__n_steps"] == 3


def test_nested_preprocessor_parameters():
    classifier = RobustClassifier(preprocessor=PCA(2))
    classifier.set_params(preprocessor__n_components=3)
    X, y = make_data()
    classifier.set_params(module=OwnNet, max_epochs=1).fit(X, y)
    assert classifier.module_.given[0] == 3


@pytest.mark.parametrize("name", ["n_epochs", "modul__hidden", "criterion", "train_split"])
def test_unknown_keyword(name):
    X, y = make_data()
    with pytest.raises(TypeError, match=f"(?s)unexpected keyword argument '{name}'.*module__"):
        RobustClassifier(**{name: 1}).fit(X, y)
    with pytest.raises(ValueError, match="Invalid parameter"):
        RobustClassifier().set_params(**{name: 1})


def test_repr():
    classifier = RobustClassifier(eps=0.3, module__hidden=(5,))
    assert repr(classifier) == "RobustClassifier(eps=0.3, module__hidden=(5,))"
    assert "RobustClassifier" in classifier._repr_html_()
    X, y = make_data()
    assert "RobustClassifier" in make_classifier().fit(X, y)._repr_html_()


def test_constructor_assigns_only():
    X, y = make_data()
    classifier = make_classifier(eps=-1.0)
    with pytest.raises(ValueError, match="'eps' parameter of RobustClassifier"):
        classifier.fit(X, y)
    with pytest.raises(ValueError, match="'beta' parameter of TRADES"):
        make_classifier(defense=TRADES(beta=-1)).fit(X, y)
    with pytest.raises(ValueError, match="'weight_averaging' parameter of RobustClassifier"):
        make_classifier(weight_averaging=1.0).fit(X, y)


def test_grid_search_gives_the_same_on_one_and_two_workers():
    X, y = make_data(n_samples=30)
    grid = [
        {"eps": [0.0, 0.2], "module__hidden": [(4,), (8,)]},
        {"defense": [TRADES()], "defense__beta": [1.0, 6.0]},
        {"defense": [None, StandardTraining()]},
    ]
    searches = [
        GridSearchCV(make_classifier(max_epochs=2, lr=0.02), grid, cv=2, n_jobs=n_jobs).fit(X, y)
        for n_jobs in (1, 2)
    ]
    one, two = (
        np.array([search.cv_results_[f"split{i}_test_score"] for i in range(2)])
        for search in searches
    )
    assert_array_equal(one, two)
    assert len(np.unique(one)) > 1
    assert same(*(search.best_estimator_ for search in searches))
    assert [p.get("defense__beta") for p in searches[0].cv_results_["params"][4:6]] == [1.0, 6.0]


@pytest.mark.parametrize("way", ["pickle", "joblib", "deepcopy"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip(way, variant, tmp_path):
    X, y = make_data(3)
    classifier = make_classifier(**VARIANTS[variant]).fit(X, y)
    if way == "pickle":
        loaded = pickle.loads(pickle.dumps(classifier))
    elif way == "joblib":
        joblib.dump(classifier, tmp_path / "classifier.joblib")
        loaded = joblib.load(tmp_path / "classifier.joblib")
    else:
        loaded = copy.deepcopy(classifier)
    assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))
    # It goes on where the other does.
    assert same(loaded.partial_fit(X, y), classifier.partial_fit(X, y))


def test_inside_a_pipeline():
    X, y = make_data(3)
    raw = 1e4 * X
    pipeline = make_pipeline(MinMaxScaler(), make_classifier(max_epochs=40, lr=0.02)).fit(raw, y)
    assert pipeline.score(raw, y) > 0.8
    X_adv = PGD(eps=500.0, random_state=0).perturb(pipeline, raw, y)
    assert 0 < np.abs(X_adv - raw).max() <= 500
    assert pipeline.score(X_adv, y) < pipeline.score(raw, y)
    weight = np.ones(len(y))
    pipeline.fit(raw, y, robustclassifier__sample_weight=weight)


def test_metadata_routing():
    X, y = make_data(3)
    weight = 1.0 + y
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(
            MinMaxScaler(), make_classifier().set_fit_request(sample_weight=True)
        ).fit(X, y, sample_weight=weight)
    expected = make_classifier().fit(MinMaxScaler().fit_transform(X), y, sample_weight=weight)
    assert same(pipeline[-1], expected)


# ------------------------------------------------------------------------------------------------
# Labels, names, threat models


@pytest.mark.parametrize(
    "labels", [np.array(["a", "b", "cc"]), np.array(["a", "b", "cc"], object), np.array([-5, 7, 9])]
)
def test_labels(labels):
    X, y = make_data(3)
    classifier = make_classifier().fit(X, labels[y])
    assert_array_equal(classifier.classes_, labels)
    assert classifier.classes_.dtype == labels.dtype
    assert same(classifier, make_classifier().fit(X, y))
    assert_array_equal(classifier.predict(X), labels[classifier.predict_proba(X).argmax(axis=1)])
    assert classifier.predict(X).dtype == labels.dtype


def test_dataframes():
    X, y = make_data()
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    named = make_classifier(mask=["a", "c"]).fit(frame, pd.Series(y))
    assert_array_equal(named.feature_names_in_, frame.columns)
    assert same(named, make_classifier(mask=[0, 2]).fit(X, y))
    assert same(named, make_classifier(mask=[True, False, True, False]).fit(X, y))
    assert not same(named, make_classifier().fit(X, y))
    assert_array_equal(named.predict(frame), make_classifier(mask=[0, 2]).fit(X, y).predict(X))
    with pytest.raises(ValueError, match="feature names"):
        named.predict(frame[["b", "a", "c", "d"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        named.predict(X)
    with pytest.raises(ValueError, match="mask contains unknown column names: 'e'"):
        make_classifier(mask=["e"]).fit(frame, y)
    with pytest.raises(ValueError, match="mask contains column names, and X has none"):
        make_classifier(mask=["a"]).fit(X, y)


def test_partial_fit_with_a_mask_of_names():
    X, y = make_data()
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    named = make_classifier(mask=["a", "c"]).partial_fit(frame, y).partial_fit(frame, y)
    assert same(named, make_classifier(mask=[0, 2]).partial_fit(X, y).partial_fit(X, y))


def make_tempting_data():
    """One feature that is right in 89 % of the cases and robust; five that are right and not."""
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    sign = 2 * y - 1
    X = np.clip(0.5 + 0.04 * sign[:, None] + rng.normal(0, 0.015, (80, 6)), 0, 1)
    misleading = rng.random(80) < 0.15
    X[:, 0] = 0.5 + 0.35 * np.where(misleading, -sign, sign) + rng.uniform(-0.1, 0.1, 80)
    return X, y


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_training_withstands_its_threat_model(norm, per_feature):
    X, y = make_tempting_data()
    size = {"linf": 0.1, "l2": 0.16, "l1": 0.26}[norm]
    eps = size * np.array([1, 1.5, 1, 1, 1, 0.9]) if per_feature else size
    threat = {"eps": eps, "norm": norm, "bounds": (0, 1)}
    robust = make_classifier(**threat, preprocessor=StandardScaler(), max_epochs=20, lr=0.05)
    standard = clone(robust).set_params(defense=StandardTraining())
    attack = PGD(n_steps=20, **threat)
    assert robust_accuracy_score(robust.fit(X, y), X, y, attack=attack) >= 0.8
    assert robust_accuracy_score(standard.fit(X, y), X, y, attack=attack) <= 0.2
    assert standard.score(X, y) >= 0.98


def test_mask_is_heeded_in_training():
    """Where only the robust feature can be changed, the others may be trusted."""
    X, y = make_tempting_data()
    options = {"preprocessor": StandardScaler(), "max_epochs": 20, "lr": 0.05, "eps": 0.1}
    masked = make_classifier(mask=[0], **options).fit(X, y)
    attack = PGD(eps=0.1, mask=[0])
    assert robust_accuracy_score(masked, X, y, attack=attack) >= 0.98
    assert make_classifier(**options).fit(X, y).score(X, y) < 0.95


def test_adversarial_training_sees_admissible_inputs_only():
    """Whatever a defense perturbs, the module gets nothing outside of ball, box and mask."""
    X, y = make_data(n_samples=40)

    class Spy(nn.Module):
        seen = []

        def __init__(self, n_features, n_classes):
            super().__init__()
            self.linear = nn.Linear(n_features, n_classes)

        def forward(self, x):
            self.seen.append(x.detach().clone())
            return self.linear(x)

    mask = [True, True, False, True]
    make_classifier(module=Spy, eps=0.2, bounds=(0, 1), mask=mask, max_epochs=2).fit(X, y)
    seen = torch.cat(Spy.seen).double().numpy()
    assert (seen >= 0).all()
    assert (seen <= 1).all()
    assert np.isin(seen[:, 2].astype(np.float32), X[:, 2].astype(np.float32)).all()
    distance = np.abs(seen[:, None] - X).max(axis=2).min(axis=1)
    assert distance.max() <= 0.2 + 1e-6
    assert distance.max() > 0.19


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_device(device):
    X, y = make_data()
    classifier = make_classifier(device=device).fit(X, y)
    assert {p.device.type for p in classifier.module_.parameters()} == {"cpu"}
    assert same(classifier, make_classifier(device="cpu").fit(X, y))


# ------------------------------------------------------------------------------------------------
# Predictions


@pytest.mark.parametrize("preprocessor", [None, StandardScaler()], ids=["", "preprocessor"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_predictions_are_those_of_the_view(n_classes, preprocessor):
    X, y = make_data(n_classes)
    classifier = make_classifier(preprocessor=preprocessor, max_epochs=20, lr=0.02).fit(X, y)
    with torch.no_grad():
        logits = to_torch(classifier)(torch.from_numpy(X)).double().numpy()
    assert logits.shape == (len(X), n_classes)
    proba = classifier.predict_proba(X)
    assert_allclose(proba, softmax(logits, axis=1), rtol=1e-5)
    assert_allclose(proba.sum(axis=1), 1)
    assert_allclose(classifier.predict_log_proba(X), np.log(proba), rtol=1e-6)
    assert_array_equal(classifier.predict(X), classifier.classes_[logits.argmax(axis=1)])
    decision = classifier.decision_function(X)
    if n_classes == 2:
        assert_allclose(decision, logits[:, 1] - logits[:, 0], rtol=1e-5, atol=1e-6)
        assert_array_equal(classifier.predict(X), (decision > 0).astype(int))
    else:
        assert_allclose(decision, logits, rtol=1e-5, atol=1e-6)
    assert len(np.unique(classifier.predict(X))) == n_classes


def test_predictions_leave_the_module_alone():
    X, y = make_data()
    classifier = make_classifier(module=make_normalised_net).fit(X, y)
    before = state(classifier)
    classifier.predict(X)
    assert same(before, classifier)
    classifier.module_.train()
    proba = classifier.predict_proba(X)
    assert classifier.module_.training
    classifier.module_.eval()
    assert_array_equal(proba, classifier.predict_proba(X))


def test_log_proba_of_certain_predictions_is_finite():
    X, y = make_data()
    classifier = make_classifier().fit(X, y)
    with torch.no_grad():
        classifier.module_[-1].weight.mul_(1e5)
    assert np.isfinite(classifier.predict_log_proba(X)).all()
    assert classifier.predict_log_proba(X).min() < -800


# ------------------------------------------------------------------------------------------------
# What a user of scikit-learn may do: a defense of one's own


class LabelSmoothing(BaseDefense):
    def __init__(self, amount=0.1):
        self.amount = amount

    def loss(self, model, x, y, threat, generator):
        logits = model(x)
        losses = nn.functional.cross_entropy(
            logits, y, reduction="none", label_smoothing=self.amount
        )
        return losses, logits


def test_own_defense():
    X, y = make_data()
    sharp = make_classifier(defense=LabelSmoothing(0.0), max_epochs=60, lr=0.02).fit(X, y)
    assert sharp.score(X, y) > 0.85
    assert sharp.predict_proba(X).max() > 0.9
    # With all of the weight spread over both classes nothing is left to learn.
    blunt = clone(sharp).set_params(defense__amount=1.0).fit(X, y)
    assert blunt.predict_proba(X).max() < 0.6


# ------------------------------------------------------------------------------------------------
# Preparation for randomised smoothing


class NormalNoise:
    """Stands for a fitted noise distribution."""

    normal_std: object = 0.3

    def sampler(self, dtype, device):
        return lambda out, x, start, generator: out.copy_(x)


class OtherNoise(NormalNoise):
    normal_std = None


def test_fit_under_noise_sets_the_default_defense():
    classifier = make_classifier()
    assert classifier.__fit_under_noise__(NormalNoise()) is None
    assert isinstance(classifier.defense, GaussianAugmentation)
    assert classifier.defense.sigma == 0.3
    classifier, noise = make_classifier(), OtherNoise()
    assert classifier.__fit_under_noise__(noise) is None
    assert isinstance(classifier.defense, NoiseAugmentation)
    assert classifier.defense.noise is noise
    assert not hasattr(classifier, "classes_")
    # Noise that changes nothing is standard training.
    X, y = make_data()
    assert same(classifier.fit(X, y), make_classifier(defense=StandardTraining()).fit(X, y))


def test_fit_under_noise_sets_the_sigma_of_a_defense():
    noise = NormalNoise()
    noise.normal_std = np.array([0.1, 0.2, 0.3, 0.4])
    classifier = make_classifier(defense=SmoothAdv(n_noise=3))
    classifier.__fit_under_noise__(noise)
    assert isinstance(classifier.defense, SmoothAdv)
    assert classifier.defense.n_noise == 3
    assert_array_equal(classifier.defense.sigma, noise.normal_std)
    classifier.__fit_under_noise__(OtherNoise())
    assert_array_equal(classifier.defense.sigma, noise.normal_std)
    defense = TRADES()
    classifier = make_classifier(defense=defense)
    classifier.__fit_under_noise__(noise)
    assert classifier.defense is defense
    assert repr(defense) == "TRADES()"


# ------------------------------------------------------------------------------------------------
# Errors name the parameter, the need, what was given, and the cure

X_, Y_ = make_data()
WRONG = {
    "one class": (
        {},
        (X_, np.zeros(len(X_), int)),
        r"RobustClassifier needs samples of at least two classes in y .*one class only: \[0\]",
    ),
    "outside bounds": (
        {"bounds": (0, 0.5)},
        (X_, Y_),
        r"X must lie within bounds: feature 0 has values from .*\[0, 0\.5\].*widen them, or scale",
    ),
    "eps length": ({"eps": [0.1, 0.2]}, (X_, Y_), "eps has 2 values, but X has 4 features: give"),
    "mask length": (
        {"mask": [True, False]},
        (X_, Y_),
        "mask has 2 booleans, but X has 4 features: give",
    ),
    "mask index": ({"mask": [4]}, (X_, Y_), "mask contains the feature index 4, but X has 4"),
    "bounds length": ({"bounds": ([0, 0], 1)}, (X_, Y_), "bounds has 2 values, but X has 4"),
    "bounds crossed": ({"bounds": (1, 0)}, (X_, Y_), "bounds must have low <= high"),
    "input_shape": (
        {"input_shape": (1, 3, 3)},
        (X_, Y_),
        r"input_shape must hold as many values as a sample has: \(1, 3, 3\) holds 9, and a sample "
        r"has 4\.",
    ),
    "input_shape after": (
        {"input_shape": (2, 2), "preprocessor": PCA(3)},
        (X_, Y_),
        r"\(2, 2\) holds 4, and a sample has 3 after the preprocessor\.",
    ),
    "cnn without images": (
        {"module": "cnn", "module__hidden": 4},
        (X_, Y_),
        r"CNN needs input_shape=\(channels, height, width\).*got \(4,\)\. Set input_shape",
    ),
    "too many logits": (
        {"module": OwnNet, "module__n_classes": 3},
        (X_, Y_),
        r"module \(OwnNet\) must give 2 logits per sample.*got an output of shape \(2, 3\)",
    ),
    "one logit for three classes": (
        {"module": SingleLogit},
        make_data(3),
        r"module \(SingleLogit\) must give 3 logits per sample",
    ),
    "wrong inputs": (
        {"module": make_net(5, 2)},
        (X_, Y_),
        r"module \(Sequential\) does not take inputs of shape \(4,\).*module__",
    ),
    "instance with parameters": (
        {"module": make_net(4, 2), "module__hidden": (3,)},
        (X_, Y_),
        "module is an instance of Sequential.*got module__hidden. Give the class instead",
    ),
    "unknown name": (
        {"module": "resnet"},
        (X_, Y_),
        "'module' parameter of RobustClassifier must be .*'resnet'",
    ),
    "unknown activation": (
        {"module__activation": "sigmoid"},
        (X_, Y_),
        "activation must be one of .*relu.*'sigmoid'",
    ),
    "class_weight": (
        {"class_weight": {0: 1, 7: 2}},
        (X_, Y_),
        r"class_weight contains labels that are not in y: \[7\]\. The classes are \[0, 1\]",
    ),
    "class_weight of strings": (
        {"class_weight": {"spam": 2}},
        (X_, Y_),
        r"class_weight contains labels that are not in y: \['spam'\]",
    ),
    "NaN": ({}, (np.where(X_ > 0.5, np.nan, X_), Y_), "Input X contains NaN"),
    "infinity": ({}, (np.where(X_ > 0.5, np.inf, X_), Y_), "Input X contains infinity"),
    "empty": ({}, (X_[:0], Y_[:0]), r"Found array with 0 sample\(s\)"),
    "lengths": ({}, (X_, Y_[:-1]), "inconsistent numbers of samples"),
    "regression": ({}, (X_, X_[:, 0]), "Unknown label type"),
    "negative weight": ({}, (X_, Y_, -np.ones(len(X_))), "Negative values"),
    "no weight": ({}, (X_, Y_, np.zeros(len(X_))), "weight"),
    "weights of one class": (
        {},
        (X_, Y_, Y_ == 0),
        r"at least two classes in y \(with a positive sample_weight\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_of_fit(case):
    parameters, data, message = WRONG[case]
    classifier = make_classifier(**parameters)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        classifier.fit(*data)
    with pytest.raises(NotFittedError):
        classifier.predict(X_)


def test_a_factory_must_return_a_module():
    with pytest.raises(TypeError, match=r"must return a torch\.nn\.Module; .* returned a str"):
        make_classifier(module=lambda: "net").fit(X_, Y_)


def test_errors_of_partial_fit():
    classifier = make_classifier()
    with pytest.raises(ValueError, match=r"at least two classes"):
        classifier.partial_fit(X_, np.zeros(len(X_)))
    with pytest.raises(ValueError, match=r"y contains labels.*\[1\].*classes= in partial_fit"):
        classifier.partial_fit(X_, Y_, classes=[0, 2])
    classifier.partial_fit(X_, Y_)
    with pytest.raises(
        ValueError, match=r"unknown at the first fit: \[2\].*The classes are \[0, 1"
    ):
        classifier.partial_fit(X_, np.where(Y_ == 1, 2, 0))
    with pytest.raises(ValueError, match="X has 3 features, but RobustClassifier is expecting 4"):
        classifier.partial_fit(X_[:, :3], Y_)
    with pytest.raises(ValueError, match="weight"):
        classifier.partial_fit(X_, Y_, sample_weight=np.zeros(len(X_)))


@pytest.mark.parametrize(
    "method", ["predict", "predict_proba", "predict_log_proba", "decision_function"]
)
def test_errors_of_the_predict_family(method):
    with pytest.raises(NotFittedError, match="This RobustClassifier instance is not fitted yet"):
        getattr(RobustClassifier(), method)(X_)
    predict = getattr(make_classifier(max_epochs=1).fit(X_, Y_), method)
    with pytest.raises(ValueError, match="X has 3 features, but RobustClassifier is expecting 4"):
        predict(X_[:, :3])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        predict(X_ * np.nan)
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
        predict(X_[:0])
    with pytest.raises(ValueError, match="Expected 2D array"):
        predict(X_[0])


def test_images_of_another_shape_at_predict():
    """``n_features_in_`` counts the channels only, and cannot tell."""
    _, images, y = make_images()
    classifier = make_classifier(module="cnn", module__channels=(2,), module__hidden=4)
    classifier.fit(images, y)
    with pytest.raises(ValueError, match=re.escape("(1, 8, 8)")):
        classifier.predict(images[:, :, :6, :6])


@pytest.mark.parametrize("name", ["net_", "module_", "history_", "classes_"])
def test_no_results_before_fit(name):
    with pytest.raises(AttributeError):
        getattr(RobustClassifier(), name)
    with pytest.raises(NotFittedError):
        to_torch(RobustClassifier())


class RecordsEps(StandardTraining):
    """Training that writes down the threat model of each batch."""

    seen: list = []

    def loss(self, model, x, y, threat, generator):
        self.seen.append(threat.eps)
        return super().loss(model, x, y, threat, generator)


@pytest.mark.parametrize("eps", [0.4, np.array([0.4, 0.0, 0.2, 0.1])])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_eps_grows_over_the_first_part_of_the_training(share, eps):
    X, y = make_classification(64, 4, n_informative=3, n_redundant=0, random_state=0)
    RecordsEps.seen.clear()
    clf = RobustClassifier(
        defense=RecordsEps(), eps=eps, eps_warmup=share, max_epochs=5, batch_size=16, random_state=0
    ).fit(X, y)
    n_batches, n_warmup = 20, round(20 * share)
    factors = [min(1.0, step / n_warmup) if n_warmup else 1.0 for step in range(n_batches)]
    np.testing.assert_allclose(
        [np.broadcast_to(seen, (4,)) for seen in RecordsEps.seen],
        [np.broadcast_to(eps * factor, (4,)) for factor in factors],
    )
    RecordsEps.seen.clear()
    clf.partial_fit(X, y)
    np.testing.assert_array_equal(RecordsEps.seen, [eps] * 4)
