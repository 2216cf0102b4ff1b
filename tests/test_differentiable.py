"""Views agree with their estimators, have the right gradients, and change nothing."""

import copy
import pickle
import re
import warnings
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import sklearn.linear_model
import skorch
import torch
from scipy.sparse import csr_matrix
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.base import BaseEstimator, TransformerMixin, is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import (
    RFE,
    SelectFromModel,
    SelectKBest,
    SequentialFeatureSelector,
    VarianceThreshold,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, NuSVC
from torch import nn

from skrobust.attacks import PGD
from skrobust.differentiable import StraightThrough, to_torch
from skrobust.differentiable._registry import registered_classes, transform_to_torch
from skrobust.differentiable._svm import PairVotes
from skrobust.exceptions import NotDifferentiableError

N_FEATURES = 5


def make_data(n_classes=3):
    """Features on different scales, and classes whose names are not in order of appearance."""
    X, y = make_classification(
        n_samples=90,
        n_features=N_FEATURES,
        n_informative=4,
        n_redundant=0,
        n_classes=n_classes,
        flip_y=0.1,
        random_state=0,
    )
    X = X * [1.0, 20.0, 0.1, 3.0, 1.0] + [0.0, 5.0, -1.0, 0.0, 2.0]
    return X, np.array(["red", "blue", "green"])[y]


def evaluate(view, X):
    with torch.no_grad():
        return view(torch.as_tensor(X)).numpy()


def assert_gradients(view, X):
    x = torch.tensor(np.asarray(X[:3], dtype=np.float64), requires_grad=True)
    assert torch.autograd.gradcheck(view, x)


def mlp(**parameters):
    return MLPClassifier(
        (6,), solver="lbfgs", alpha=1.0, max_iter=500, random_state=0, **parameters
    )


def ignore_warnings(function, *args, **kwargs):
    """For deprecated estimators and short fits; it hides no warning of a view."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


class Only(NamedTuple):
    """Row of the registry for one number of classes: a net has a fixed number of outputs."""

    n_classes: int
    estimator: object


def is_net(estimator):
    return isinstance(estimator, nn.Module | skorch.NeuralNet)


def has_exact_gradients(view):
    return not any(isinstance(module, StraightThrough) for module in view.modules())


def layers(n_outputs, *last):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(N_FEATURES, 8), nn.ReLU(), nn.Linear(8, n_outputs), *last)


def net_data(n_classes):
    X, y = make_data(n_classes)
    X = StandardScaler().fit_transform(X).astype(np.float32)
    return X, np.unique(y, return_inverse=True)[1].astype(np.int64)


def fit(estimator, n_classes):
    """Return a fitted copy of a row of the registry, and its data."""
    estimator = ignore_warnings(copy.deepcopy, estimator)
    X, y = net_data(n_classes) if is_net(estimator) else make_data(n_classes)
    if isinstance(estimator, skorch.NeuralNetBinaryClassifier):
        y = y.astype(np.float32)
    if not isinstance(estimator, nn.Module):
        ignore_warnings(estimator.fit, X, y)
    return estimator, X


def power_of_last_columns(X, power):
    return X[:, 2:] ** power


# The registry: every class with a view has a row in one of these tables, and the common tests below
# fit a copy of it and check the view. Classifiers are tested with two and with three classes.

CLASSIFIERS = [
    LogisticRegression(max_iter=2000),
    LogisticRegression(fit_intercept=False, max_iter=2000),
    LogisticRegressionCV(Cs=2, cv=2, max_iter=2000),
    RidgeClassifier(),
    RidgeClassifier(fit_intercept=False),
    RidgeClassifierCV(),
    SGDClassifier(random_state=0),
    SGDClassifier(loss="log_loss", average=True, random_state=0),
    LinearSVC(max_iter=50, random_state=0),
    LinearSVC(fit_intercept=False, max_iter=50, random_state=0),
    Perceptron(random_state=0),
    LinearDiscriminantAnalysis(),
    LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    LinearDiscriminantAnalysis(solver="eigen"),
    QuadraticDiscriminantAnalysis(),
    QuadraticDiscriminantAnalysis(reg_param=0.1),
    GaussianNB(),
    mlp(),
    mlp(activation="tanh"),
    mlp(activation="logistic"),
    mlp(activation="identity"),
    MLPClassifier((4, 3), solver="lbfgs", alpha=1.0, max_iter=500, random_state=0),
    RFE(LogisticRegression(max_iter=2000), n_features_to_select=2),
    make_pipeline(RFE(RidgeClassifier(), n_features_to_select=2), GaussianNB()),
    make_pipeline(StandardScaler(), mlp()),
    make_pipeline(StandardScaler(), PCA(3), LogisticRegression()),
    make_pipeline(LinearDiscriminantAnalysis(n_components=1), LogisticRegression()),
    make_pipeline(StandardScaler(), make_pipeline("passthrough", LogisticRegression())),
    GridSearchCV(make_pipeline(StandardScaler(), RidgeClassifier()), {}, cv=2),
    RandomizedSearchCV(GaussianNB(), {"var_smoothing": [1e-9]}, n_iter=1, cv=2),
    HalvingGridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, cv=2),
    SVC(break_ties=True),
    NuSVC(nu=0.2, break_ties=True),
    Only(2, layers(2)),
    Only(3, layers(3)),
    Only(3, skorch.NeuralNetClassifier(layers(3), criterion=nn.CrossEntropyLoss, verbose=0)),
    Only(2, skorch.NeuralNetBinaryClassifier(layers(1), verbose=0)),
]
if hasattr(sklearn.linear_model, "PassiveAggressiveClassifier"):
    CLASSIFIERS.append(
        ignore_warnings(sklearn.linear_model.PassiveAggressiveClassifier, random_state=0)
    )

TRANSFORMERS = [
    StandardScaler(),
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    StandardScaler(with_mean=False, with_std=False),
    MinMaxScaler(),
    MinMaxScaler((-1, 2)),
    MinMaxScaler(clip=True),
    MaxAbsScaler(),
    RobustScaler(),
    RobustScaler(with_centering=False),
    RobustScaler(with_scaling=False),
    RobustScaler(unit_variance=True),
    Normalizer("l1"),
    Normalizer("l2"),
    Normalizer("max"),
    PolynomialFeatures(),
    PolynomialFeatures(3, include_bias=False),
    PolynomialFeatures((2, 3), interaction_only=True),
    PolynomialFeatures(0),
    PCA(),
    PCA(2, whiten=True),
    IncrementalPCA(2),
    TruncatedSVD(2, random_state=0),
    FunctionTransformer(),
    FunctionTransformer(np.arctan),
    FunctionTransformer(abs),
    FunctionTransformer(power_of_last_columns, kw_args={"power": 2}),
    VarianceThreshold(1.0),
    SelectKBest(k=2),
    SelectFromModel(RidgeClassifier()),
    SequentialFeatureSelector(RidgeClassifier(), n_features_to_select=2, cv=2),
    make_pipeline("passthrough", StandardScaler(), None),
    make_pipeline("passthrough"),
    make_union(StandardScaler(), PCA(2), "passthrough"),
    make_union(StandardScaler(), "drop"),
    FeatureUnion([("none", "drop")]),
    FeatureUnion(
        [("a", StandardScaler()), ("b", SelectKBest(k=1))], transformer_weights={"b": 10.0}
    ),
    make_pipeline(FeatureUnion([("lda", LinearDiscriminantAnalysis())]), StandardScaler()),
    make_union(ColumnTransformer([("a", RobustScaler(), [0, 2])], remainder="passthrough")),
    ColumnTransformer([("a", StandardScaler(), [3, 0]), ("b", PCA(1), [1, 2])]),
    FrozenEstimator(StandardScaler().fit(make_data()[0])),
    Binarizer(threshold=0.3),
    KBinsDiscretizer(3, encode="ordinal", strategy="uniform"),
]


def without_addresses(estimator):
    """Ids must be the same in every worker of pytest-xdist."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(estimator))


def classifier_cases():
    """Pairs of a classifier and its number of classes."""
    for row in CLASSIFIERS:
        for n_classes in (row.n_classes,) if isinstance(row, Only) else (2, 3):
            name = re.sub(r"\s+", " ", without_addresses(estimator_of(row)))
            yield pytest.param(estimator_of(row), n_classes, id=f"{name}-{n_classes}")


def estimator_of(row):
    return row.estimator if isinstance(row, Only) else row


# At import, because tests register classes of their own.
REGISTERED = [
    cls for cls in registered_classes() if not cls.__module__.split(".")[-1].startswith("test_")
]


def test_every_registered_class_has_a_row():
    classes = [type(estimator_of(row)) for row in CLASSIFIERS + TRANSFORMERS]
    # The nearest registered base class is the one whose view is built.
    nearest = [next(base for base in cls.__mro__ if base in REGISTERED) for cls in classes]
    assert set(nearest) == set(REGISTERED)


@pytest.mark.parametrize(("estimator", "n_classes"), list(classifier_cases()))
def test_classifier(estimator, n_classes):
    estimator, X = fit(estimator, n_classes)
    view = to_torch(estimator)
    logits = evaluate(view, X)

    assert logits.shape == (len(X), n_classes)
    assert logits.dtype == (np.float32 if is_net(estimator) else np.float64)
    assert bool(list(view.parameters())) == is_net(estimator)
    if isinstance(estimator, nn.Module):
        np.testing.assert_array_equal(logits, evaluate(estimator, X))
    else:
        predicted = estimator.predict(X)
        np.testing.assert_array_equal(estimator.classes_[logits.argmax(axis=1)], predicted)
    if hasattr(estimator, "decision_function"):
        scores = estimator.decision_function(X)
        if n_classes == 2:
            np.testing.assert_allclose(logits[:, 1] - logits[:, 0], scores, rtol=1e-9, atol=1e-9)
        else:
            np.testing.assert_allclose(
                logits - logits[:, :1], scores - scores[:, :1], rtol=1e-9, atol=1e-9
            )
    one_vs_rest = isinstance(estimator, SGDClassifier) and n_classes > 2
    if hasattr(estimator, "predict_proba") and not one_vs_rest:
        probabilities = estimator.predict_proba(X)
        np.testing.assert_allclose(softmax(logits, axis=1), probabilities, rtol=1e-5, atol=1e-12)
    if has_exact_gradients(view):
        assert_gradients(copy.deepcopy(view).double(), X)


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=without_addresses)
def test_transformer(transformer):
    X, y = make_data()
    transformer = copy.deepcopy(transformer).fit(X, y)
    view = to_torch(transformer)
    X = np.vstack([X, 2 * X])  # outside the training range, for views that clip
    np.testing.assert_allclose(evaluate(view, X), transformer.transform(X), rtol=1e-9, atol=1e-9)
    if evaluate(view, X).size and has_exact_gradients(view):
        assert_gradients(view, X)


def test_max_abs_scaler_clips():
    X, _ = make_data()
    scaler = MaxAbsScaler()
    if "clip" not in scaler.get_params():
        pytest.skip("MaxAbsScaler of this scikit-learn does not clip")
    scaler.set_params(clip=True).fit(X)
    np.testing.assert_allclose(evaluate(to_torch(scaler), 2 * X), scaler.transform(2 * X))


@pytest.mark.parametrize("solver", ["svd", "eigen"])
@pytest.mark.parametrize("n_components", [None, 1])
def test_discriminant_analysis_transforms_in_the_middle(solver, n_components):
    X, y = make_data()
    analysis = LinearDiscriminantAnalysis(solver=solver, n_components=n_components)
    for step in (
        analysis,
        FrozenEstimator(analysis.fit(X, y)),
        make_pipeline(MaxAbsScaler(), analysis),
    ):
        step.fit(X, y)
        np.testing.assert_allclose(
            evaluate(transform_to_torch(step), X), step.transform(X), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_normalizer_of_zeros(norm):
    x = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    output = to_torch(Normalizer(norm))(x)
    assert not output.any()
    (gradient,) = torch.autograd.grad(output.sum(), x)
    assert torch.isfinite(gradient).all()


def test_polynomial_gradients_at_zero():
    X, _ = make_data()
    view = to_torch(PolynomialFeatures(3).fit(X))
    assert_gradients(view, np.zeros((1, N_FEATURES)))
    x = torch.zeros(1, N_FEATURES, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(view(x).sum(), x)
    assert (gradient == 1).all()  # of the linear terms


COLUMNS = {
    "indices": [("a", StandardScaler(), [3, 0]), ("b", PCA(1), [1, 2])],
    "negative": [("a", StandardScaler(), [-1, 0])],
    "slice": [("a", StandardScaler(), slice(1, 4))],
    "bool": [("a", MinMaxScaler(), [True, False, True, False, False])],
    "drop": [("a", "drop", [0]), ("b", StandardScaler(), [1]), ("c", "passthrough", [0, 4])],
    "empty": [("a", StandardScaler(), []), ("b", "passthrough", [1])],
    "names": [("a", StandardScaler(), ["v3", "v0"]), ("b", "passthrough", ["v1"])],
    "name slice": [("a", StandardScaler(), slice("v1", "v3"))],
    "callable": [("a", StandardScaler(), lambda X: ["v2", "v4"])],
}


@pytest.mark.parametrize("remainder", ["drop", "passthrough", RobustScaler()], ids=str)
@pytest.mark.parametrize("columns", COLUMNS)
def test_column_transformer(columns, remainder):
    X, _ = make_data()
    frame = pd.DataFrame(X, columns=[f"v{i}" for i in range(N_FEATURES)])
    transformer = ColumnTransformer(
        COLUMNS[columns], remainder=remainder, transformer_weights={"a": 0.5}
    ).fit(frame)
    view = to_torch(transformer)
    np.testing.assert_allclose(evaluate(view, X), transformer.transform(frame), atol=1e-9)
    assert_gradients(view, X)


def test_column_transformer_that_drops_all():
    X, _ = make_data()
    assert evaluate(to_torch(ColumnTransformer([("a", "drop", [0])]).fit(X)), X).shape == (90, 0)


def test_sparse_coefficients():
    X, y = make_data()
    estimator = SGDClassifier(random_state=0).fit(X, y).sparsify()
    np.testing.assert_allclose(evaluate(to_torch(estimator), X), estimator.decision_function(X))


@pytest.mark.parametrize("estimator", [GaussianNB(), QuadraticDiscriminantAnalysis()])
def test_features_far_from_zero(estimator):
    X, y = make_data()
    X = X + 1e6
    logits = evaluate(to_torch(estimator.fit(X, y)), X)
    np.testing.assert_allclose(
        log_softmax(logits, axis=1), estimator.predict_log_proba(X), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("make", [LogisticRegression, mlp, GaussianNB, SVC])
def test_float32_input_to_float64_view(make):
    X, y = make_data()
    view = to_torch(make_pipeline(StandardScaler(), make()).fit(X, y))
    x = torch.tensor(X, dtype=torch.float32, requires_grad=True)
    logits = view(x)
    assert logits.dtype == torch.float64
    np.testing.assert_allclose(logits.detach(), evaluate(view, X), rtol=1e-3, atol=1e-3)
    assert torch.autograd.grad(logits.sum(), x)[0].dtype == torch.float32


def test_view_shares_no_memory_with_estimator():
    X, y = make_data()
    estimator = SGDClassifier(random_state=0).fit(X, y)
    view = to_torch(estimator)
    before = evaluate(view, X)
    estimator.coef_ *= 2
    np.testing.assert_array_equal(evaluate(view, X), before)


@pytest.mark.parametrize("make", [mlp, SVC])
def test_view_survives_copies_and_is_its_own_view(make):
    X, y = make_data()
    view = to_torch(make_pipeline(StandardScaler(), make()).fit(X, y))
    for other in (pickle.loads(pickle.dumps(view)), copy.deepcopy(view)):
        np.testing.assert_array_equal(evaluate(other, X), evaluate(view, X))
    assert to_torch(view) is view
    assert not view.training


# Support vector machines

MACHINES = [
    SVC(kernel="linear"),
    SVC(),
    SVC(gamma="auto", C=10.0),
    SVC(kernel="poly"),
    SVC(kernel="poly", degree=2, gamma=0.1, coef0=1.0),
    SVC(kernel="sigmoid", coef0=0.1),
    SVC(class_weight="balanced", decision_function_shape="ovo"),
    SVC(break_ties=True),
    NuSVC(nu=0.2),
    NuSVC(kernel="linear"),
    NuSVC(nu=0.2, kernel="poly", break_ties=True),
    NuSVC(nu=0.2, kernel="sigmoid"),
]


def machine_data(n_classes):
    """Training points, and many others around them, some with ties between the votes."""
    X, y = make_classification(
        n_samples=150,
        n_features=N_FEATURES,
        n_informative=5,
        n_redundant=0,
        n_classes=n_classes,
        flip_y=0.3,
        random_state=0,
    )
    names = np.array(["red", "blue", "green", "white"])
    return X, names[y], np.random.default_rng(0).normal(scale=2.0, size=(1000, N_FEATURES))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3, 4])
@pytest.mark.parametrize("machine", MACHINES, ids=repr)
def test_support_vector_machine(machine, n_classes, sparse):
    X, y, Z = machine_data(n_classes)
    machine = copy.deepcopy(machine).fit(csr_matrix(X) if sparse else X, y)
    view = to_torch(machine)
    logits = evaluate(view, Z)
    predicted = machine.predict(Z)
    machine.set_params(decision_function_shape="ovr")
    scores = machine.decision_function(Z)

    assert logits.shape == (len(Z), n_classes)
    assert logits.dtype == np.float64
    assert not list(view.parameters())
    np.testing.assert_array_equal(machine.classes_[logits.argmax(axis=1)], predicted)
    close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9 * np.abs(scores).max())
    if n_classes == 2:
        assert not logits[:, 0].any()
        close(logits[:, 1], scores)
        return
    # Where the class with the highest score is not the one predicted, the two are exchanged.
    tied = machine.classes_[scores.argmax(axis=1)] != predicted
    assert tied.any() != machine.break_ties
    close(logits[~tied], scores[~tied])
    close(np.sort(logits[tied]), np.sort(scores[tied]))
    assert ((logits[tied] != scores[tied]).sum(axis=1) >= 2).all()
    assert (np.isclose(logits[tied], scores[tied]).sum(axis=1) == n_classes - 2).all()


@pytest.mark.parametrize("machine", MACHINES, ids=repr)
def test_gradients_of_support_vector_machine_of_two_classes(machine):
    X, y, Z = machine_data(2)
    assert_gradients(to_torch(copy.deepcopy(machine).fit(X, y)), Z)


@pytest.mark.parametrize("n_classes", [3, 4])
@pytest.mark.parametrize("machine", MACHINES, ids=repr)
def test_gradients_of_support_vector_machine_of_several_classes(machine, n_classes):
    """The gradients come from votes that grow with the scores of the pairs."""
    X, y, Z = machine_data(n_classes)
    machine = copy.deepcopy(machine).fit(X, y)
    weights = np.random.default_rng(1).normal(size=n_classes)
    x = torch.tensor(Z[:20], requires_grad=True)
    output = to_torch(machine)(x) @ torch.from_numpy(weights)
    (gradient,) = torch.autograd.grad(output.sum(), x)

    machine.set_params(decision_function_shape="ovo", break_ties=False)

    def soft_votes(Z):
        soft = np.arcsinh(10 * machine.decision_function(Z)) / 2
        pairs = combinations(range(n_classes), 2)
        return sum((weights[i] - weights[j]) * soft[:, p] for p, (i, j) in enumerate(pairs))

    step = 1e-5 * np.eye(N_FEATURES)
    expected = [(soft_votes(Z[:20] + h) - soft_votes(Z[:20] - h)) / 2e-5 for h in step]
    expected = np.transpose(expected)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_votes_do_not_stop_an_attack(kernel):
    X, y, _ = machine_data(4)
    pipeline = make_pipeline(StandardScaler(), SVC(kernel=kernel)).fit(X, y)
    X_adv = PGD(eps=0.5, random_state=0).perturb(pipeline, X, y)
    assert pipeline.score(X_adv, y) < 0.6 * pipeline.score(X, y)


def test_pairs_without_a_winner():
    """A score of zero is a vote for the first class of the pair, and in predict for the second."""
    votes = PairVotes(3, break_ties=False)
    assert votes(torch.tensor([[0.0, 0.0, 0.0]], dtype=torch.float64)).argmax() == 2
    x = torch.tensor([[0.0, 2.0, -3.0]], dtype=torch.float64)  # predict: 1 vote each
    assert votes(x).argmax() == 0


def test_gaussian_kernel_far_from_zero():
    X, y, _ = machine_data(2)
    machine = SVC().fit(X + 1e6, y)
    expected = machine.decision_function(X + 1e6)
    np.testing.assert_allclose(evaluate(to_torch(machine), X + 1e6)[:, 1], expected, rtol=1e-6)


@pytest.mark.parametrize("kernel", ["precomputed", lambda A, B: A @ B.T])
def test_kernel_without_view(kernel):
    X, y, _ = machine_data(2)
    machine = SVC(kernel=kernel).fit(X @ X.T, y)
    with pytest.raises(NotDifferentiableError, match=r"only for the kernels 'linear', .*kernel="):
        to_torch(machine)


# Nets


class Functional(nn.Module):
    """A net whose last activation is inside its forward, hidden from the view."""

    def __init__(self, activation, n_outputs):
        super().__init__()
        self.linear = nn.Linear(N_FEATURES, n_outputs)
        self.activation = activation

    def forward(self, x):
        return self.activation(self.linear(x))


def row_softmax(x):
    return torch.softmax(x, dim=1)


def flat(x):
    return x.squeeze(1)


def flat_sigmoid(x):
    return torch.sigmoid(x).squeeze(1)


def double_probability(x):
    return torch.stack([1 - torch.sigmoid(x), torch.sigmoid(x)], dim=1)


def fit_net(cls, module, n_classes, **parameters):
    X, y = net_data(n_classes)
    torch.manual_seed(0)
    binary = issubclass(cls, skorch.NeuralNetBinaryClassifier)
    net = cls(module, max_epochs=2, lr=0.1, train_split=None, verbose=0, **parameters)
    return net.fit(X, y.astype(np.float32) if binary else y)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda k: layers(k), {"criterion": nn.CrossEntropyLoss}),
        (lambda k: layers(k), {"criterion": nn.CrossEntropyLoss(label_smoothing=0.1)}),
        (lambda k: layers(k, nn.Softmax(dim=-1)), {}),
        (lambda k: Functional(row_softmax, k), {}),
        (lambda k: Functional(row_softmax, k), {"predict_nonlinearity": None}),
        (
            lambda k: layers(k),
            {"criterion": nn.MultiMarginLoss, "predict_nonlinearity": row_softmax},
        ),
        (
            lambda k: layers(k),
            {"criterion": nn.MultiMarginLoss, "predict_nonlinearity": nn.Softmax(dim=1)},
        ),
    ],
)
def test_skorch_classifier(make, parameters, n_classes):
    net = fit_net(skorch.NeuralNetClassifier, make(n_classes), n_classes, **parameters)
    X, _ = net_data(n_classes)
    logits = evaluate(to_torch(net), X)
    assert logits.shape == (len(X), n_classes)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits.argmax(axis=1), net.predict(X))
    np.testing.assert_allclose(softmax(logits, axis=1), net.predict_proba(X), rtol=1e-5)


def test_skorch_classifier_of_unknown_criterion_gives_logits():
    net = fit_net(skorch.NeuralNetClassifier, layers(3), 3, criterion=nn.MultiMarginLoss)
    X, _ = net_data(3)
    np.testing.assert_array_equal(evaluate(to_torch(net), X), net.predict_proba(X))


def test_skorch_classifier_of_log_probabilities():
    X, _ = net_data(3)
    module = layers(3, nn.LogSoftmax(dim=1))
    net = skorch.NeuralNetClassifier(module, verbose=0).initialize()
    np.testing.assert_array_equal(evaluate(to_torch(net), X), net.predict_proba(X))


@pytest.mark.parametrize("threshold", [0.5, 0.4, 0.7])
@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: layers(1), {}),
        (lambda: layers(1, nn.Flatten(0)), {}),
        (lambda: layers(1, nn.Sigmoid()), {"criterion": nn.BCELoss}),
        (lambda: Functional(torch.sigmoid, 1), {"criterion": nn.BCELoss}),
        (lambda: Functional(flat_sigmoid, 1), {"criterion": nn.BCELoss}),
        (lambda: layers(1), {"predict_nonlinearity": double_probability}),
    ],
)
def test_skorch_binary_classifier(make, parameters, threshold):
    net = fit_net(skorch.NeuralNetBinaryClassifier, make(), 2, threshold=threshold, **parameters)
    X, _ = net_data(2)
    logits = evaluate(to_torch(net), X)
    probabilities = net.predict_proba(X)[:, 1]
    assert logits.shape == (len(X), 2)
    assert len(np.unique(net.predict(X))) == 2 or threshold != 0.5
    np.testing.assert_array_equal(logits.argmax(axis=1), net.predict(X))
    margins = logits[:, 1] - logits[:, 0] + logit(threshold)
    np.testing.assert_allclose(expit(margins), probabilities, rtol=1e-5)


def test_skorch_single_logit_of_a_classifier():
    X, y = net_data(2)
    net = skorch.NeuralNetClassifier(
        Functional(flat, 1), criterion=nn.BCEWithLogitsLoss, train_split=None, verbose=0
    )
    net.fit(X, y.astype(np.float32))
    logits = evaluate(to_torch(net), X)
    np.testing.assert_array_equal(logits.argmax(axis=1), net.predict(X))
    np.testing.assert_allclose(softmax(logits, axis=1), net.predict_proba(X), rtol=1e-5)


def test_nets_do_not_saturate():
    """If the layers before a softmax are known, confident predictions keep their gradients."""
    x = torch.full((1, N_FEATURES), 1e3)
    for module, n_classes in [(layers(3, nn.Softmax(dim=1)), 3), (layers(1, nn.Sigmoid()), 2)]:
        torch.testing.assert_close(to_torch(module)(x)[:, -1], module[:-1](x)[:, -1])
        assert to_torch(module)(x).shape == (1, n_classes)
    net = fit_net(skorch.NeuralNetClassifier, layers(3, nn.Softmax(dim=1)), 3)
    torch.testing.assert_close(to_torch(net)(x), net.module_[:-1](x))


@pytest.mark.parametrize("activation", [row_softmax, torch.sigmoid])
def test_saturated_probabilities_give_finite_logits_and_gradients(activation):
    criterion, cls, n_outputs = {
        row_softmax: (nn.NLLLoss, skorch.NeuralNetClassifier, 3),
        torch.sigmoid: (nn.BCELoss, skorch.NeuralNetBinaryClassifier, 1),
    }[activation]
    net = cls(Functional(activation, n_outputs), criterion=criterion, verbose=0).initialize()
    x = torch.linspace(-1e6, 1e6, 4 * N_FEATURES).reshape(4, N_FEATURES).requires_grad_()
    logits = to_torch(net)(x)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert torch.isfinite(logits).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("shape", [(-1, 1), (-1,)])
def test_module_with_one_logit(shape):
    module = nn.Sequential(nn.Linear(N_FEATURES, 1), nn.Unflatten(0, (-1,)))
    x = torch.randn(7, N_FEATURES)

    class OneLogit(nn.Module):
        def forward(self, x):
            return module(x).reshape(shape)

    torch.testing.assert_close(to_torch(OneLogit())(x)[:, 1], module(x)[:, 0])
    assert not to_torch(OneLogit())(x)[:, 0].any()


def test_module_with_tuple_of_outputs():
    class Two(nn.Module):
        def forward(self, x):
            return x[:, :3], x

    assert to_torch(Two())(torch.randn(4, N_FEATURES)).shape == (4, 3)


def test_module_with_wrong_output():
    view = to_torch(nn.Sequential(nn.Linear(N_FEATURES, 4), nn.Unflatten(1, (2, 2))))
    with pytest.raises(ValueError, match=r"logits of shape .* got \(3, 2, 2\)"):
        view(torch.randn(3, N_FEATURES))


@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_a_module_changes(training):
    module = nn.Sequential(
        nn.Linear(N_FEATURES, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3), nn.Softmax(1)
    ).train(training)
    module[1].eval()  # a mode of its own
    module[0].weight.requires_grad_(False)
    state = copy.deepcopy(module.state_dict())
    modes = [m.training for m in module.modules()]
    frozen = [p.requires_grad for p in module.parameters()]

    view = to_torch(module)
    x = torch.randn(4, N_FEATURES, dtype=torch.float64, requires_grad=True)
    torch.autograd.grad(view(x).sum(), x)

    assert view.training == training
    assert {id(p) for p in view.parameters()} == {id(p) for p in module.parameters()}
    assert [m.training for m in module.modules()] == modes
    assert [p.requires_grad for p in module.parameters()] == frozen
    assert all(p.grad is None for p in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize("training", [True, False])
def test_view_of_a_pipeline_is_in_the_mode_of_its_net(training):
    net = fit_net(skorch.NeuralNetClassifier, layers(3), 3, criterion=nn.CrossEntropyLoss)
    net.module_.train(training)
    scaler = StandardScaler().fit(net_data(3)[0])
    assert to_torch(Pipeline([("scaler", scaler), ("net", net)])).training == training
    assert net.module_.training == training


def test_building_a_view_runs_no_module():
    class Untouchable(nn.Module):
        def forward(self, x):
            raise AssertionError

    to_torch(Untouchable())


def test_net_computes_in_its_own_precision():
    X = net_data(3)[0].astype(np.float64) + 1e8  # float32 cannot represent the differences
    scaler = StandardScaler().fit(X)
    net = fit_net(skorch.NeuralNetClassifier, layers(3), 3, criterion=nn.CrossEntropyLoss)
    pipeline = Pipeline([("scaler", scaler), ("net", net)])
    logits = evaluate(to_torch(pipeline), X)
    assert X.dtype == np.float64
    assert logits.dtype == np.float32
    expected = evaluate(to_torch(net), scaler.transform(X))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert evaluate(to_torch(copy.deepcopy(net.module_).double()), X).dtype == np.float64


def test_scaler_follows_the_device_of_the_net():
    X, _ = net_data(2)
    net = nn.Linear(N_FEATURES, 2, device="meta")
    pipeline = Pipeline([("scaler", StandardScaler().fit(X)), ("net", _Wrapper(net))])
    view = to_torch(pipeline)
    assert view[0].scale.device.type == "meta"
    assert view(torch.zeros(3, N_FEATURES, device="meta")).shape == (3, 2)


class _Wrapper(BaseEstimator):
    """A fitted estimator whose view is a module."""

    def __init__(self, module):
        self.module = module

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def __to_torch__(self):
        return to_torch(self.module)


# Registry and composition


class Halver(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.factor_ = 0.5
        return self

    def transform(self, X):
        return X * self.factor_


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


class HalverWithHook(Halver):
    def __to_torch__(self):
        return Times(self.factor_)


class ScalerWithHook(StandardScaler):
    def __to_torch__(self):
        return Times(2.0)


def test_hook():
    X, _ = make_data()
    halver = HalverWithHook().fit(X)
    for estimator in (halver, FrozenEstimator(halver), make_pipeline(halver)):
        np.testing.assert_array_equal(evaluate(to_torch(estimator), X), X / 2)
    # The method has priority over a registered base class.
    np.testing.assert_array_equal(evaluate(to_torch(ScalerWithHook().fit(X)), X), X * 2)


def test_register():
    class Registered(Halver):
        pass

    class Child(Registered):
        pass

    X, _ = make_data()
    with pytest.raises(NotDifferentiableError, match="Child"):
        to_torch(Child().fit(X))

    @to_torch.register(Registered)
    def build(estimator):
        return Times(estimator.factor_)

    assert build(Halver().fit(X)).factor == 0.5  # the decorator returns the function
    for estimator in (Registered(), Child(), make_pipeline(Child(), StandardScaler())):
        estimator.fit(X)
        np.testing.assert_allclose(evaluate(to_torch(estimator), X), estimator.transform(X))

    @to_torch.register
    def _(estimator: Child):
        return Times(3.0)

    assert {Registered, Child} < set(registered_classes())
    assert to_torch(Child().fit(X)).factor == 3.0
    assert to_torch(Registered().fit(X)).factor == 0.5


def test_deep_nesting():
    X, y = make_data()
    features = make_union(
        StandardScaler(),
        make_pipeline(RobustScaler(), ColumnTransformer([("poly", PolynomialFeatures(), [0, 2])])),
    )
    inner = make_pipeline(features, VarianceThreshold(), LogisticRegression(max_iter=2000))
    search = GridSearchCV(inner, {"logisticregression__C": [0.1, 1.0]}, cv=2).fit(X, y)
    outer = make_pipeline("passthrough", FrozenEstimator(FrozenEstimator(search)))
    outer.fit(X, y)
    view = to_torch(outer)
    np.testing.assert_allclose(
        log_softmax(evaluate(view, X), axis=1), outer.predict_log_proba(X), rtol=1e-9, atol=1e-9
    )
    assert_gradients(view, X)


# Errors


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        StandardScaler(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        GridSearchCV(LogisticRegression(), {}),
        FrozenEstimator(LogisticRegression()),
        skorch.NeuralNetClassifier(nn.Linear, verbose=0),
        HalverWithHook(),
        RandomForestClassifier(),
        FunctionTransformer(lambda X: X[:, :1]),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_not_fitted(estimator):
    with pytest.raises(NotFittedError):
        to_torch(estimator)


def test_no_view():
    X, y = make_data()
    forest = RandomForestClassifier(2, random_state=0).fit(X, y)
    with pytest.raises(
        NotDifferentiableError,
        match=r"^RandomForestClassifier has no differentiable view\. .*"
        r"@to_torch\.register\(RandomForestClassifier\).*__to_torch__\(\).*a substitute that has",
    ):
        to_torch(forest)
    with pytest.raises(NotDifferentiableError, match=r"^object has no differentiable view"):
        to_torch(object())


def test_no_view_names_the_step():
    X, y = make_data()
    pipeline = Pipeline(
        [
            ("scale", StandardScaler()),
            ("both", FeatureUnion([("ok", PCA(1)), ("bad", Halver())])),
            ("clf", GaussianNB()),
        ]
    ).fit(X, y)
    with pytest.raises(
        NotDifferentiableError,
        match=r"^Step 'both' of Pipeline: Step 'bad' of FeatureUnion: Halver has no",
    ):
        to_torch(pipeline)

    encoder = ColumnTransformer([("onehot", OneHotEncoder(handle_unknown="ignore"), [0])]).fit(X)
    with pytest.raises(
        NotDifferentiableError, match=r"^Step 'onehot' of ColumnTransformer: OneHot"
    ):
        to_torch(encoder)


def test_classifier_as_transformer():
    X, y = make_data()
    search = GridSearchCV(LinearDiscriminantAnalysis(), {}, cv=2)
    pipeline = make_pipeline(search, GaussianNB()).fit(X, y)
    assert is_classifier(search)
    with pytest.raises(
        NotDifferentiableError, match=r"'gridsearchcv' of Pipeline: .* used as a transformer"
    ):
        to_torch(pipeline)


def round_down(X):
    return np.floor(X)


def log_of_array(X):
    return np.log1p(X)


def standardize(X):
    return X / X.std(axis=0)  # torch divides by n - 1


def threshold(X):
    return X > 0.5


def detach(X):
    return np.asarray(X.detach()) if isinstance(X, torch.Tensor) else X


def in_place(X):
    X += 1
    return X


def sum_rows(X):
    return X.sum(1, keepdim=True) if isinstance(X, torch.Tensor) else X.sum(axis=1)


@pytest.mark.parametrize(
    ("func", "reason"),
    [
        (round_down, "raised RuntimeError"),
        (log_of_array, "raised RuntimeError"),
        (np.cbrt, "raised RuntimeError"),
        (in_place, "raised RuntimeError"),
        (standardize, "gives other values for a tensor"),
        (sum_rows, "gives other values for a tensor"),
        (threshold, "loses the gradients"),
        (detach, "loses the gradients"),
    ],
)
def test_function_that_is_not_differentiable(func, reason):
    X, _ = make_data()
    pipeline = make_pipeline(FunctionTransformer(func), StandardScaler())
    pipeline.steps[0][1].fit(X)
    pipeline.steps[1][1].fit(X)
    with pytest.raises(NotDifferentiableError, match=rf"func={func.__name__}\).*{reason}"):
        to_torch(pipeline)


@pytest.mark.parametrize(
    "func", [np.abs, np.exp, np.log, np.log1p, np.sqrt, np.tanh, np.square, np.fabs, expit, logit]
)
def test_numpy_functions_become_torch_functions(func):
    transformer = FunctionTransformer(func)  # needs no fit, as in scikit-learn
    X = np.random.default_rng(0).uniform(0.1, 0.9, size=(5, 2))
    np.testing.assert_allclose(evaluate(to_torch(transformer), X), transformer.transform(X))
    assert_gradients(to_torch(transformer), X)


def test_several_labels():
    X, _ = make_data()
    Y = np.random.default_rng(0).integers(0, 2, size=(len(X), 3))
    for estimator in (mlp(), RidgeClassifier()):
        ignore_warnings(lambda e=estimator: e.fit(X, Y))
        with pytest.raises(NotDifferentiableError, match="only for one label per sample"):
            to_torch(estimator)


def test_search_without_refit():
    X, y = make_data()
    search = GridSearchCV(GaussianNB(), {}, cv=2, refit=False).fit(X, y)
    with pytest.raises(NotDifferentiableError, match="Set refit=True"):
        to_torch(search)


def test_skorch_net_that_cannot_be_seen():
    class Own(skorch.NeuralNetClassifier):
        def infer(self, x, **fit_params):
            return super().infer(2 * x, **fit_params)

    with pytest.raises(NotDifferentiableError, match=r"^Own has no .* infer\(\) of its own"):
        to_torch(Own(layers(3), verbose=0).initialize())
    net = skorch.NeuralNetBinaryClassifier(layers(1), threshold=1.0, verbose=0).initialize()
    with pytest.raises(NotDifferentiableError, match=r"threshold=1\.0 predicts one class only"):
        to_torch(net)


def test_misuse():
    with pytest.raises(TypeError, match="needs a fitted StandardScaler, got the class itself"):
        to_torch(StandardScaler)

    class Wrong:
        def __to_torch__(self):
            return torch.exp

    with pytest.raises(TypeError, match=r"view of Wrong must be a torch\.nn\.Module"):
        to_torch(Wrong())
