"""Robust accuracy and its scorers: closed forms, bounds, cost, and model selection."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, cross_validate
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skrobust import RobustClassifier
from skrobust.attacks import FGSM, PGD
from skrobust.defenses import StandardTraining
from skrobust.metrics import make_robust_scorer, robust_accuracy_curve, robust_accuracy_score
from skrobust.metrics._scores import resolve_attack

DUALS = {"linf": 1, "l2": 2, "l1": np.inf}


def make_data(n_classes=2, n_samples=120):
    X, y = make_classification(
        n_samples, 6, n_informative=4, n_redundant=0, n_classes=n_classes, random_state=n_classes
    )
    return 10.0 ** np.arange(-2, 4) * X, y


def make_pipe(C=1.0):
    return make_pipeline(StandardScaler(), LogisticRegression(C=C))


def make_mlp(X, y):
    return MLPClassifier((10,), solver="lbfgs", max_iter=500, tol=1e-2, random_state=0).fit(X, y)


class CountingNet(nn.Module):
    """Counts the calls, and the rows in them."""

    def __init__(self, n_classes=3):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, n_classes))
        self.n_calls = self.n_rows = 0

    def forward(self, x):
        self.n_calls += 1
        self.n_rows += len(x)
        return self.layers(x)

    def spent(self):
        spent = self.n_calls, self.n_rows
        self.n_calls = self.n_rows = 0
        return spent


def exact_withstood(pipeline, X, y, eps, norm, mask=None):
    """Whether a linear binary pipeline withstands all of the ball: the signed distance decides."""
    scaler, linear = pipeline[0], pipeline[-1]
    weight = linear.coef_[0] / scaler.scale_ * eps
    if mask is not None:
        weight = weight * mask
    margin = np.where(y == linear.classes_[1], 1, -1) * pipeline.decision_function(X)
    return margin > np.linalg.norm(weight, DUALS[norm])


# ------------------------------------------------------------------------------------------------
# robust_accuracy_score


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm", DUALS)
@pytest.mark.parametrize("attack", [None, PGD(n_steps=30), FGSM()], ids=["None", "PGD", "FGSM"])
def test_score_is_exact_on_a_linear_pipeline(attack, norm, masked):
    X, y = make_data()
    pipeline = make_pipe().fit(X, y)
    mask = np.array([True, True, False, True, True, False]) if masked else None
    size = {"linf": 0.2, "l2": 0.3, "l1": 0.4}[norm]
    eps = size * X.std(axis=0) * np.array([1, 2, 0, 1, 1, 1])
    weight = np.random.default_rng(0).random(len(y))
    expected = exact_withstood(pipeline, X, y, eps, norm, mask)
    assert 0.2 < expected.mean() < pipeline.score(X, y) - 0.05
    threat = {"eps": eps, "norm": norm, "mask": mask}
    assert robust_accuracy_score(pipeline, X, y, attack=attack, **threat) == expected.mean()
    weighted = robust_accuracy_score(pipeline, X, y, attack=attack, sample_weight=weight, **threat)
    assert_allclose(weighted, np.average(expected, weights=weight))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_score_is_at_most_the_accuracy(n_classes):
    X, y = make_data(n_classes)
    X = StandardScaler().fit_transform(X)
    mlp = make_mlp(X, y)
    accuracy = mlp.score(X, y)
    score = robust_accuracy_score(mlp, X, y, eps=0.2)
    assert 0 < score < accuracy
    assert isinstance(score, float)
    assert robust_accuracy_score(mlp, X, y, eps=0.0) == accuracy
    wrong = (y + 1) % n_classes
    assert robust_accuracy_score(mlp, X, wrong, eps=0.2) <= mlp.score(X, wrong)
    assert robust_accuracy_score(mlp, X, y, eps=50.0) == 0


def test_score_counts_clean_errors_as_errors():
    """Also those that the attack turns into correct predictions, or never looks at."""
    X, y = make_data()
    pipeline = make_pipe().fit(X, y)
    predicted = pipeline.predict(X)
    eps = 0.1 * X.std(axis=0)
    both = robust_accuracy_score(pipeline, X, y, eps=eps)
    held = exact_withstood(pipeline, X, predicted, eps, "linf")
    assert both == (held & (predicted == y)).mean()


def test_what_is_given_replaces_the_parameters_of_the_attack():
    X, y = make_data()
    pipeline = make_pipe().fit(X, y)
    std = X.std(axis=0)
    attack = PGD(eps=0.1 * std, n_steps=30, random_state=3)
    before = copy.deepcopy(attack.get_params())
    own = robust_accuracy_score(pipeline, X, y, attack=attack)
    larger = robust_accuracy_score(pipeline, X, y, attack=attack, eps=0.3 * std)
    assert own == exact_withstood(pipeline, X, y, 0.1 * std, "linf").mean()
    assert larger == exact_withstood(pipeline, X, y, 0.3 * std, "linf").mean()
    assert larger < own
    l1 = robust_accuracy_score(pipeline, X, y, attack=attack, norm="l1")
    assert l1 == exact_withstood(pipeline, X, y, 0.1 * std, "l1").mean()
    tight = (X.min(axis=0), X.max(axis=0))
    assert robust_accuracy_score(pipeline, X, y, attack=attack, eps=std, bounds=tight) >= larger - 1
    assert robust_accuracy_score(pipeline, X, y, attack=attack, eps=std, mask=[]) == (
        pipeline.score(X, y)
    )
    assert repr(before) == repr(attack.get_params())


def test_bounds_and_mask_matter():
    X, y = make_data()
    low, high = np.quantile(X, [0.2, 0.8], axis=0)
    X = np.clip(X, low, high)
    pipeline = make_pipe().fit(X, y)
    eps = 0.4 * X.std(axis=0)
    free = robust_accuracy_score(pipeline, X, y, eps=eps)
    boxed = robust_accuracy_score(pipeline, X, y, eps=eps, bounds=(low, high))
    some = robust_accuracy_score(pipeline, X, y, eps=eps, mask=[0, 1])
    accuracy = pipeline.score(X, y)
    assert free < boxed < accuracy
    assert free < some < accuracy


def test_random_state_of_the_score():
    """A weak attack whose result depends on its start."""
    X, y = make_data(3)
    X = StandardScaler().fit_transform(X)
    mlp = make_mlp(X, y)
    weak = PGD(n_steps=1, step_size=1e-9)

    def score(attack=weak, **kwargs):
        weight = 1 + np.random.default_rng(0).random(len(y))
        return robust_accuracy_score(
            mlp, X, y, attack=attack, eps=1.0, sample_weight=weight, **kwargs
        )

    assert score() == score() == score(random_state=0)
    assert score() != score(random_state=1)
    assert score(clone(weak).set_params(random_state=1)) == score(random_state=1)
    assert score(clone(weak).set_params(random_state=1), random_state=5) == score(random_state=1)


def test_score_takes_what_users_have():
    X, y = make_data()
    frame = pd.DataFrame(X, columns=list("abcdef"))
    names = np.array(["ham", "spam"])[y]
    pipeline = make_pipe().fit(frame, names)
    eps = 0.2 * X.std(axis=0)
    expected = exact_withstood(pipeline, frame, names, eps, "linf").mean()
    assert robust_accuracy_score(pipeline, frame, pd.Series(names), eps=eps) == expected
    assert robust_accuracy_score(pipeline, frame, names.tolist(), eps=pd.Series(eps)) == expected
    assert robust_accuracy_score(pipeline, frame, names, eps=eps.tolist()) == expected
    some = robust_accuracy_score(pipeline, frame, names, eps=eps, mask=["a", "f"])
    assert (
        some
        == exact_withstood(pipeline, frame, names, eps, "linf", np.array([1, 0, 0, 0, 0, 1])).mean()
    )
    curve = robust_accuracy_curve(pipeline, frame, names, eps=[0 * eps, eps], mask=["a", "f"])
    assert_array_equal(curve, [pipeline.score(frame, names), some])


def test_score_of_modules_and_robust_classifiers():
    X, y = make_data(3)
    X = StandardScaler().fit_transform(X)
    net = CountingNet().eval()
    score = robust_accuracy_score(net, X.astype(np.float32), y, eps=0.1)
    with torch.no_grad():
        accuracy = (net(torch.tensor(X, dtype=torch.float32)).argmax(1).numpy() == y).mean()
    assert 0 < score < accuracy
    classifier = RobustClassifier(
        max_epochs=5, defense=StandardTraining(), module__hidden=(8,), random_state=0
    ).fit(X, y)
    score = robust_accuracy_score(classifier, X, y, eps=0.3)
    assert score < classifier.score(X, y)


def test_errors_of_the_score():
    X, y = make_data()
    pipeline = make_pipe().fit(X, y)
    with pytest.raises(ValueError, match=r"eps is needed where no attack is given.*eps=None"):
        robust_accuracy_score(pipeline, X, y)
    for wrong in ("pgd", PGD, pipeline):
        with pytest.raises(
            TypeError, match=r"attack must be None or an attack of skrobust\.attacks"
        ):
            robust_accuracy_score(pipeline, X, y, attack=wrong, eps=0.1)
    with pytest.raises(ValueError, match="'eps' parameter of AutoAttack must be"):
        robust_accuracy_score(pipeline, X, y, eps=-0.1)
    with pytest.raises(ValueError, match="'norm' parameter of AutoAttack must be"):
        robust_accuracy_score(pipeline, X, y, eps=0.1, norm="l3")
    with pytest.raises(ValueError, match="X must lie within bounds"):
        robust_accuracy_score(pipeline, X, y, eps=0.1, bounds=(0, 1))
    with pytest.raises(ValueError, match="y must have one label per sample"):
        robust_accuracy_score(pipeline, X, y[:-1], eps=0.1)
    with pytest.raises(NotFittedError):
        robust_accuracy_score(make_pipe(), X, y, eps=0.1)
    forest = RandomForestClassifier(3, random_state=0).fit(X, y)
    assert robust_accuracy_score(forest, X, y, eps=0.1) <= forest.score(X, y)


@pytest.mark.parametrize(
    "weight", [np.ones(3), np.zeros(120), np.full(120, np.nan)], ids=["length", "zero", "NaN"]
)
def test_wrong_sample_weights(weight):
    X, y = make_data()
    pipeline = make_pipe().fit(X, y)
    with pytest.raises(ValueError, match=r"(?i)sample_?.?weight"):
        robust_accuracy_score(pipeline, X, y, eps=0.1, sample_weight=weight)
    with pytest.raises(ValueError, match=r"(?i)sample_?.?weight"):
        robust_accuracy_curve(pipeline, X, y, eps=[0.1, 0.2], sample_weight=weight)


# ------------------------------------------------------------------------------------------------
# robust_accuracy_curve


@pytest.mark.parametrize("norm", DUALS)
def test_curve_is_exact_on_a_linear_pipeline(norm):
    X, y = make_data()
    pipeline = make_pipe().fit(X, y)
    rows = np.array([0.2, 0.0, 0.05, 0.4])[:, None] * X.std(axis=0)
    weight = np.random.default_rng(0).random(len(y))
    curve = robust_accuracy_curve(pipeline, X, y, eps=rows, norm=norm, sample_weight=weight)
    expected = [
        np.average(exact_withstood(pipeline, X, y, row, norm), weights=weight) for row in rows
    ]
    assert_allclose(curve, expected)
    assert curve[3] < curve[0] < curve[2] < curve[1]


every_strength = pytest.mark.parametrize(
    "attack",
    [None, PGD(n_steps=3), PGD(n_steps=1, step_size=1e-9), FGSM()],
    ids=["None", "PGD(n_steps=3)", "random", "FGSM"],
)


@every_strength
def test_curve_never_rises(attack):
    X, y = make_data(3)
    X = StandardScaler().fit_transform(X)
    mlp = make_mlp(X, y)
    grid = np.linspace(0, 1.5, 9)
    curve = robust_accuracy_curve(mlp, X, y, eps=grid, attack=attack)
    assert curve.shape == (9,)
    assert curve[0] == mlp.score(X, y)
    assert (np.diff(curve) <= 0).all()
    assert curve[-1] < curve[0] - 0.05
    order = np.random.default_rng(0).permutation(9)
    shuffled = robust_accuracy_curve(mlp, X, y, eps=grid[order], attack=attack)
    assert_array_equal(shuffled, curve[order])
    assert_array_equal(robust_accuracy_curve(mlp, X, y, eps=grid.tolist(), attack=attack), curve)


@every_strength
def test_curve_is_the_bisection_of_its_scores(attack):
    """Sample by sample; weak attacks, too, which may succeed at a smaller eps only."""
    X, y = make_data(3)
    X = StandardScaler().fit_transform(X)
    mlp = make_mlp(X, y)
    grid = np.linspace(0, 1.5, 9)
    curve = robust_accuracy_curve(mlp, X, y, eps=grid, attack=attack)
    runs = [resolve_attack(attack, eps=eps).run(mlp, X, y, stop_on_success=True) for eps in grid]
    falls = np.array([run.success for run in runs])
    fallen_at = []
    for sample in falls.T:
        low, high = 0, len(grid)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if sample[middle] else (middle + 1, high)
        fallen_at.append(low)
    assert_allclose(curve, [np.mean(np.array(fallen_at) > i) for i in range(len(grid))])
    if attack is None:  # strong enough that nothing but the cost is different
        assert_allclose(curve, 1 - falls.mean(axis=1))


def test_curve_of_equal_eps_and_of_one():
    X, y = make_data()
    pipeline = make_pipe().fit(X, y)
    std = X.std(axis=0)
    twice = robust_accuracy_curve(pipeline, X, y, eps=[0.2 * std, 0.2 * std])
    assert twice[0] == twice[1]
    assert_array_equal(robust_accuracy_curve(pipeline, X, y, eps=[0.2 * std]), twice[:1])


def test_curve_costs_less_than_its_scores():
    X, y = make_data(3)
    X = StandardScaler().fit_transform(X).astype(np.float32)
    net = CountingNet().eval()
    y = net(torch.from_numpy(X)).argmax(1).numpy()
    grid = np.r_[np.linspace(0.02, 0.4, 8), 3.0]
    net.spent()
    alone = [robust_accuracy_score(net, X, y, eps=eps) for eps in grid]
    calls_alone, rows_alone = net.spent()
    curve = robust_accuracy_curve(net, X, y, eps=grid)
    calls, rows = net.spent()
    assert 0 < alone[4] < alone[0]
    assert (curve <= alone).all()
    assert alone[-1] == 0
    assert calls <= calls_alone
    assert rows < 0.9 * rows_alone


def test_errors_of_the_curve():
    X, y = make_data()
    pipeline = make_pipe().fit(X, y)
    with pytest.raises(ValueError, match="For a single eps use robust_accuracy_score"):
        robust_accuracy_curve(pipeline, X, y, eps=0.1)
    with pytest.raises(ValueError, match="at least one radius"):
        robust_accuracy_curve(pipeline, X, y, eps=[])
    with pytest.raises(ValueError, match="eps must be a list of numbers"):
        robust_accuracy_curve(pipeline, X, y, eps=[[1, 2], [3]])
    with pytest.raises(ValueError, match="eps must grow in all features together"):
        robust_accuracy_curve(pipeline, X, y, eps=[[1, 2, 0, 0, 0, 0], [2, 1, 0, 0, 0, 0]])
    with pytest.raises(
        ValueError, match=r"'eps' parameter of AutoAttack|eps must be finite and not neg"
    ):
        robust_accuracy_curve(pipeline, X, y, eps=[-0.1, 0.1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        robust_accuracy_curve(pipeline, X, y[:-1], eps=[0.1])
    with pytest.raises(TypeError, match="attack must be None or an attack"):
        robust_accuracy_curve(pipeline, X, y, eps=[0.1], attack="pgd")


# ------------------------------------------------------------------------------------------------
# make_robust_scorer


def make_scaled_data(n_classes=2):
    X, y = make_data(n_classes)
    return StandardScaler().fit_transform(X), y


def test_scorer_gives_a_float_or_a_dict():
    X, y = make_scaled_data()
    classifier = LogisticRegression().fit(X, y)
    one = make_robust_scorer(eps=0.1)(classifier, X, y)
    assert one == robust_accuracy_score(classifier, X, y, eps=0.1)
    assert isinstance(one, float)
    many = make_robust_scorer(eps=[0.1, 0, 0.25])(classifier, X, y)
    assert list(many) == ["robust_accuracy_0.1", "robust_accuracy_0", "robust_accuracy_0.25"]
    assert (
        list(many.values()) == robust_accuracy_curve(classifier, X, y, eps=[0.1, 0, 0.25]).tolist()
    )
    assert many["robust_accuracy_0"] == classifier.score(X, y)
    assert all(isinstance(score, float) for score in many.values())
    assert make_robust_scorer(eps=(0.1, 0, 0.25))(classifier, X, y) == many
    per_feature = make_robust_scorer(eps=np.full(6, 0.1))(classifier, X, y)
    assert per_feature == one


def test_scorer_passes_everything_on():
    X, y = make_scaled_data()
    classifier = LogisticRegression().fit(X, y)
    weight = np.random.default_rng(0).random(len(y))
    threat = {
        "eps": 0.3,
        "norm": "l2",
        "bounds": (-5, 5),
        "mask": [0, 1, 2],
        "attack": PGD(n_steps=7),
        "random_state": 4,
    }
    expected = robust_accuracy_score(classifier, X, y, sample_weight=weight, **threat)
    scorer = make_robust_scorer(**threat)
    assert scorer(classifier, X, y, sample_weight=weight) == expected
    assert scorer(classifier, X, y, weight) == expected
    assert scorer(classifier, X, y) != expected
    assert make_robust_scorer(PGD(eps=0.2))(classifier, X, y) == robust_accuracy_score(
        classifier, X, y, eps=0.2
    )


def test_scorer_attacks_at_its_own_eps():
    X, y = make_scaled_data()
    options = {"max_epochs": 3, "module__hidden": (8,), "random_state": 0}
    small, large = (RobustClassifier(eps=eps, **options).fit(X, y) for eps in (0.0, 0.9))
    scorer = make_robust_scorer(eps=0.2)
    for classifier in (small, large):
        assert scorer(classifier, X, y) == robust_accuracy_score(classifier, X, y, eps=0.2)


def test_scorer_gives_the_same_again():
    X, y = make_scaled_data(3)
    mlp = make_mlp(X, y)
    attack = PGD(n_steps=1, step_size=1e-9)  # all depends on the random start
    scorer = make_robust_scorer(attack, eps=1.0)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    weight = np.random.default_rng(0).random(len(y))
    assert scorer(mlp, X, y, weight) == scorer(mlp, X, y, weight)
    assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    other = make_robust_scorer(attack, eps=1.0, random_state=1)
    assert scorer(mlp, X, y, weight) != other(mlp, X, y, weight)


@pytest.mark.parametrize(
    "scorer",
    [
        make_robust_scorer(eps=0.2),
        make_robust_scorer(eps=[0, 0.2]),
        make_robust_scorer(PGD(n_steps=3), eps=0.2, norm="l2"),
        make_robust_scorer(eps=0.2).set_score_request(sample_weight=True),
    ],
)
def test_scorer_is_picklable(scorer):
    X, y = make_scaled_data()
    classifier = LogisticRegression().fit(X, y)
    for copied in (pickle.loads(pickle.dumps(scorer)), copy.deepcopy(scorer)):
        assert copied(classifier, X, y) == scorer(classifier, X, y)
        assert repr(copied) == repr(scorer)


def test_scorer_repr():
    assert repr(make_robust_scorer(eps=0.2)) == "make_robust_scorer(eps=0.2, random_state=0)"
    scorer = make_robust_scorer(PGD(n_steps=3), eps=[0, 0.1], norm="l2")
    scorer.set_score_request(sample_weight=True)
    assert repr(scorer) == (
        "make_robust_scorer(attack=PGD(n_steps=3), eps=[0, 0.1], norm='l2', random_state=0)"
    )


def test_errors_of_the_scorer():
    with pytest.raises(ValueError, match="eps is needed where no attack is given"):
        make_robust_scorer()
    for wrong in ("pgd", PGD):
        with pytest.raises(TypeError, match="attack must be None or an attack"):
            make_robust_scorer(wrong, eps=0.1)
        with pytest.raises(TypeError, match="attack must be None or an attack"):
            make_robust_scorer(wrong, eps=[0.1, 0.2])
    with pytest.raises(ValueError, match=r"eps must be .*(got \[\]|at least one radius)"):
        make_robust_scorer(eps=[])


def test_scorer_keys_do_not_collide():
    """Two eps that look the same when printed are two scores, or an error, and never one."""
    X, y = make_scaled_data()
    classifier = LogisticRegression().fit(X, y)
    eps = [0.1, 0.1 + 1e-9]
    try:
        scores = make_robust_scorer(eps=eps)(classifier, X, y)
    except ValueError as error:
        assert "eps" in str(error)  # noqa: PT017
    else:
        assert len(scores) == 2


def test_scorer_in_cross_validation():
    X, y = make_scaled_data()
    scorer = make_robust_scorer(eps=0.2)
    values = cross_val_score(LogisticRegression(), X, y, scoring=scorer, cv=3)
    clean = cross_val_score(LogisticRegression(), X, y, cv=3)
    assert (values < clean).all()
    assert (values > 0).all()
    assert check_scoring(LogisticRegression(), scorer) is scorer
    several = cross_validate(
        LogisticRegression(), X, y, scoring={"clean": "accuracy", "robust": scorer}, cv=3
    )
    assert_array_equal(several["test_robust"], values)
    several = cross_validate(
        LogisticRegression(), X, y, scoring=make_robust_scorer(eps=[0, 0.2]), cv=3
    )
    assert_array_equal(several["test_robust_accuracy_0"], clean)
    assert_array_equal(several["test_robust_accuracy_0.2"], values)


GRID = {"logisticregression__C": [1e-3, 1e-1, 10.0]}


def test_scorer_in_a_search():
    X, y = make_data()
    scorer = make_robust_scorer(eps=0.2 * X.std(axis=0))
    search = GridSearchCV(make_pipe(), GRID, scoring=scorer, cv=3).fit(X, y)
    robust = search.cv_results_["mean_test_score"]
    assert len(np.unique(robust)) > 1
    assert search.best_score_ == robust.max()
    assert search.score(X, y) == scorer(search.best_estimator_, X, y)
    both = GridSearchCV(
        make_pipe(), GRID, scoring={"clean": "accuracy", "robust": scorer}, refit="robust", cv=3
    ).fit(X, y)
    assert_array_equal(both.cv_results_["mean_test_robust"], robust)
    assert (both.cv_results_["mean_test_robust"] < both.cv_results_["mean_test_clean"]).all()
    assert both.best_params_ == search.best_params_


def test_scorer_that_gives_a_dict_in_a_search_with_workers():
    X, y = make_scaled_data()
    scorer = make_robust_scorer(eps=[0, 0.2])
    searches = [
        GridSearchCV(
            make_pipe(), GRID, scoring=scorer, refit="robust_accuracy_0.2", cv=2, n_jobs=n_jobs
        ).fit(X, y)
        for n_jobs in (1, 2)
    ]
    for name in ("robust_accuracy_0", "robust_accuracy_0.2"):
        one, two = (search.cv_results_[f"mean_test_{name}"] for search in searches)
        assert_array_equal(one, two)
    best = searches[0].cv_results_["mean_test_robust_accuracy_0.2"].argmax()
    assert searches[0].best_index_ == best
    with pytest.raises(ValueError, match="refit"):
        GridSearchCV(make_pipe(), GRID, scoring=scorer, cv=2).fit(X, y)


def test_search_over_robust_classifiers():
    X, y = make_scaled_data()
    X, y = X[:60], y[:60]
    classifier = RobustClassifier(max_epochs=4, module__hidden=(8,), lr=0.02, random_state=0)
    search = GridSearchCV(
        classifier,
        {"eps": [0.0, 0.3]},
        scoring=make_robust_scorer(PGD(n_steps=5), eps=0.3),
        cv=2,
    ).fit(X, y)
    again = GridSearchCV(**search.get_params(deep=False)).fit(X, y)
    assert_array_equal(search.cv_results_["mean_test_score"], again.cv_results_["mean_test_score"])
    assert search.cv_results_["mean_test_score"].min() > 0


@pytest.mark.parametrize("eps", [0.2, [0.0, 0.2]])
def test_metadata_routing(eps):
    X, y = make_scaled_data()
    weight = np.random.default_rng(0).random(len(y)) ** 4
    refit = True if np.ndim(eps) == 0 else "robust_accuracy_0.2"
    name = "score" if np.ndim(eps) == 0 else refit

    def search(scorer, **params):
        estimator = LogisticRegression().set_fit_request(sample_weight=False)
        found = GridSearchCV(estimator, {"C": [0.1, 1.0]}, scoring=scorer, cv=2, refit=refit)
        return found.fit(X, y, **params).cv_results_[f"mean_test_{name}"]

    with sklearn.config_context(enable_metadata_routing=True):
        plain = search(make_robust_scorer(eps=eps))
        routed = make_robust_scorer(eps=eps).set_score_request(sample_weight=True)
        weighted = search(routed, sample_weight=weight)
        renamed = make_robust_scorer(eps=eps).set_score_request(sample_weight="importance")
        aliased = search(renamed, importance=weight)
        with pytest.raises(ValueError, match=r"sample_weight.*not explicitly set"):
            search(make_robust_scorer(eps=eps), sample_weight=weight)
    assert_array_equal(weighted, aliased)
    assert (weighted != plain).all()
    by_hand = [
        [
            robust_accuracy_score(
                LogisticRegression(C=C).fit(X[train], y[train]),
                X[test],
                y[test],
                eps=0.2,
                sample_weight=weight[test],
            )
            for train, test in StratifiedKFold(2).split(X, y)
        ]
        for C in (0.1, 1.0)
    ]
    assert_allclose(weighted, np.mean(by_hand, axis=1))


def test_metadata_routing_through_dict_of_scorers():
    X, y = make_scaled_data()
    weight = np.random.default_rng(0).random(len(y)) ** 4
    scorers = {
        "weighted": make_robust_scorer(eps=0.2).set_score_request(sample_weight=True),
        "plain": make_robust_scorer(eps=0.2).set_score_request(sample_weight=False),
    }
    with sklearn.config_context(enable_metadata_routing=True):
        result = cross_validate(
            LogisticRegression().set_fit_request(sample_weight=False),
            X,
            y,
            scoring=scorers,
            params={"sample_weight": weight},
            cv=2,
        )
    assert (result["test_weighted"] != result["test_plain"]).all()
