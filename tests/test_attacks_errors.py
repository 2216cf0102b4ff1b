"""Bad inputs: every error names the parameter, what is needed, what was given, what to do."""

import numpy as np
import pandas as pd
import pytest
import torch
from _table import make_data
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError

from skrobust.attacks import FGSM, PGD
from skrobust.exceptions import NotDifferentiableError

X, Y = make_data(3)
NAMES = [f"v{i}" for i in range(6)]
FRAME = pd.DataFrame(X, columns=NAMES)
CLF = LogisticRegression().fit(X, Y)
CLF_FRAME = LogisticRegression().fit(FRAME, Y)

both = pytest.mark.parametrize("make", [FGSM, PGD])


def bad(value, row=4, column=2, X=X):
    X = X.copy()
    X[row, column] = value
    return X


# --- X ---


@both
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_x_that_is_not_finite(make, value):
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
        make().perturb(CLF, bad(value), Y)
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
        make().perturb(CLF_FRAME, pd.DataFrame(bad(value), columns=NAMES), Y)
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
        make(CLF).fit(X).transform(bad(value))


@both
def test_x_outside_of_bounds(make):
    low, high = X.min(), X.max()
    attack = make(bounds=(low, high))
    message = (
        r"X must lie within bounds: feature 2 has values from \S+ to 99, and its bounds are "
        r"\[\S+, \S+\]\. bounds are in the units of the X that is handed in"
    )
    with pytest.raises(ValueError, match=message):
        attack.perturb(CLF, bad(99), Y)
    with pytest.raises(ValueError, match=r"feature 2 \('v2'\) has values from \S+ to 99"):
        attack.perturb(CLF_FRAME, pd.DataFrame(bad(99), columns=NAMES), Y)
    with pytest.raises(ValueError, match=r"feature 5 has values from -99 to"):
        attack.perturb(CLF, bad(-99, column=5), Y)
    with pytest.raises(ValueError, match=r"\(6 features are outside\.\)"):
        make(bounds=(0, 1e-3)).perturb(CLF, X, Y)
    with pytest.raises(ValueError, match="feature 2 has values"):
        make(CLF, bounds=(low, high)).fit(X).transform(bad(99))


@both
def test_empty_x(make):
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
        make().perturb(CLF, X[:0], Y[:0])
    with pytest.raises(ValueError, match=r"Found array with 0 feature\(s\)"):
        make().perturb(CLF, X[:, :0], Y)


@both
def test_x_of_wrong_shape(make):
    with pytest.raises(ValueError, match="X has 5 features, but LogisticRegression is expecting 6"):
        make().perturb(CLF, X[:, :5], Y)
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
        make().perturb(CLF, X[0], Y[:1])
    with pytest.raises(ValueError, match=r"X has 5 features, but .* is expecting 6"):
        make(CLF).fit(X).transform(X[:, :5])


@both
def test_x_with_other_columns(make):
    with pytest.raises(ValueError, match="feature names should match"):
        make().perturb(CLF_FRAME, FRAME[NAMES[::-1]], Y)
    with pytest.raises(ValueError, match="Feature names unseen at fit time:\n- w"):
        make().perturb(CLF_FRAME, FRAME.rename(columns={"v0": "w"}), Y)


@both
def test_x_of_strings(make):
    with pytest.raises(ValueError, match="could not convert string to float"):
        make().perturb(CLF, X.astype(str).astype(object) + "x", Y)


@both
def test_sparse_x(make):
    from scipy.sparse import csr_array

    with pytest.raises(TypeError, match="Sparse data was passed"):
        make().perturb(CLF, csr_array(X), Y)


# --- the threat model ---


@both
@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"eps": -0.1}, InvalidParameterError, r"'eps' parameter of .* \[0\.0, inf\).* Got -0\.1"),
        ({"eps": np.nan}, ValueError, r"eps.* [gG]ot nan"),
        ({"eps": np.inf}, InvalidParameterError, r"'eps' parameter of .* Got inf"),
        ({"eps": "big"}, InvalidParameterError, r"'eps' parameter of .* Got 'big'"),
        ({"eps": None}, InvalidParameterError, r"'eps' parameter of .* Got None"),
        ({"eps": [0.1, -1, 1, 1, 1, 1]}, ValueError, r"eps must be .* not negative.*; got -1\."),
        ({"eps": [0.1, np.inf, 1, 1, 1, 1]}, ValueError, r"eps must be finite .*; got inf"),
        ({"eps": [0.1, 0.2]}, ValueError, "eps has 2 values, but X has 6 features: give one"),
        ({"norm": "l3"}, InvalidParameterError, r"'norm' parameter of .*'linf'.* Got 'l3'"),
        ({"norm": 2}, InvalidParameterError, r"'norm' parameter of .* Got 2"),
        ({"bounds": (3, -3)}, ValueError, "bounds must have low <= high; got low=3 and high=-3"),
        ({"bounds": ([-9] * 6, [9] * 5 + [-10])}, ValueError,
         "bounds must have low <= high; got low=-9 and high=-10 for feature 5"),
        ({"bounds": (0, np.nan)}, ValueError, "bounds must not contain NaN; use -inf and inf"),
        ({"bounds": ([-9, -9], 9)}, ValueError, "bounds has 2 values, but X has 6 features"),
        ({"bounds": (-9, [9] * 7)}, ValueError, "bounds has 7 values, but X has 6 features"),
        ({"bounds": ([-9] * 5, [9] * 6)}, ValueError, "bounds must have .* the same length"),
        ({"bounds": (1, 2, 3)}, ValueError, r"bounds must be None or a pair .*got \(1, 2, 3\)"),
        ({"bounds": 3}, InvalidParameterError, r"'bounds' parameter of .* Got 3"),
        ({"bounds": "unit"}, InvalidParameterError, r"'bounds' parameter of .* Got 'unit'"),
        ({"mask": [True, False]}, ValueError, "mask has 2 booleans, but X has 6 features: give"),
        ({"mask": [0, 6]}, ValueError, "mask contains the feature index 6, but X has 6 features"),
        ({"mask": [-7]}, ValueError, "mask contains the feature index -7, but X has 6 features"),
        ({"mask": [0.5]}, ValueError, r"mask must be None, booleans .*; got array\(\[0\.5\]\)"),
        ({"mask": ["v1"]}, ValueError, "mask contains column names, and X has none. Give X as"),
        ({"mask": "v1"}, ValueError, "mask contains column names, and X has none. Give X as"),
        ({"loss": "hinge"}, InvalidParameterError, r"'loss' parameter of .*'ce'.* Got 'hinge'"),
        ({"batch_size": 0}, InvalidParameterError, r"'batch_size' parameter of .* Got 0"),
        ({"batch_size": "all"}, InvalidParameterError, r"'batch_size' parameter of .* Got 'all'"),
        ({"random_state": "x"}, InvalidParameterError, r"'random_state' parameter of .* Got 'x'"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_parameters(make, parameters, error, message):
    with pytest.raises(error, match=message):
        make(**parameters).perturb(CLF, X, Y)
    with pytest.raises(error, match=message):
        make(CLF, **parameters).fit(X, Y).transform(X)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_steps": 0}, "'n_steps' parameter of PGD must be .* Got 0"),
        ({"n_steps": 1.5}, "'n_steps' parameter of PGD must be .* Got 1.5"),
        ({"step_size": 0}, "'step_size' parameter of PGD must be .* Got 0"),
        ({"step_size": -1.0}, "'step_size' parameter of PGD must be .* Got -1.0"),
        ({"n_restarts": 0}, "'n_restarts' parameter of PGD must be .* Got 0"),
        ({"random_start": "yes"}, "'random_start' parameter of PGD must be .* Got 'yes'"),
        ({"stop_on_success": None}, "'stop_on_success' parameter of PGD must be .* Got None"),
    ],
    ids=str,
)
def test_bad_parameters_of_pgd(parameters, message):
    with pytest.raises(InvalidParameterError, match=message):
        PGD(**parameters).perturb(CLF, X, Y)


def test_restarts_from_the_same_point():
    attack = PGD(n_restarts=3, random_start=False)
    with pytest.raises(ValueError, match=r"n_restarts must be 1 with random_start=False.*got 3\."):
        attack.perturb(CLF, X, Y)


@both
def test_unknown_column_names(make):
    message = "mask contains unknown column names: 'age', 'sex'. The columns of X are 'v0', 'v1'"
    with pytest.raises(ValueError, match=message):
        make(mask=["v1", "age", "sex"]).perturb(CLF_FRAME, FRAME, Y)


# --- labels ---


@both
def test_unknown_labels(make):
    y = Y.copy()
    y[[3, 5]] = 7, -1
    message = (
        r"y contains labels that the estimator does not know: -1, 7\. Its classes are 0, 1, 2; "
        r"give y in the same label space as at fit\."
    )
    with pytest.raises(ValueError, match=message):
        make().perturb(CLF, X, y)
    named = LogisticRegression().fit(X, np.array(["a", "b", "c"])[Y])
    with pytest.raises(ValueError, match=r"y contains labels .* know: 0, 1, 2\. Its classes are a"):
        make().perturb(named, X, Y)
    with pytest.raises(ValueError, match=r"y contains labels .* know: a\. Its classes are 0, 1"):
        make().perturb(CLF, X, np.full(len(X), "a"))
    with pytest.raises(ValueError, match=r"y contains labels .* know: nan\."):
        make().perturb(CLF, X, np.full(len(X), np.nan))
    with pytest.raises(ValueError, match=r"y_target contains labels .* know: 9\. .* give y_target"):
        make().perturb(CLF, X, y_target=9)
    module = torch.nn.Linear(6, 3)
    with pytest.raises(ValueError, match=r"y contains labels .* know: 3\. Its classes are 0, 1, 2"):
        make().perturb(module, X, Y + 1)


@both
def test_labels_of_wrong_length(make):
    message = "y must have one label per sample of X: got 10 labels for 60 samples"
    with pytest.raises(ValueError, match=message):
        make().perturb(CLF, X, Y[:10])
    with pytest.raises(ValueError, match=r"y_target must have one label per sample .* got 10"):
        make().perturb(CLF, X, y_target=Y[:10])
    with pytest.raises(ValueError, match="y should be a 1d array, got an array of shape"):
        make().perturb(CLF, X, np.eye(3)[Y])


# --- the estimator ---


@both
@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        FrozenEstimator(LogisticRegression()),
        RandomForestClassifier(),
    ],
    ids=str,
)
def test_unfitted_estimator(make, estimator):
    with pytest.raises(NotFittedError, match=r"not fitted yet"):
        make().perturb(estimator, X, Y)


@both
def test_unfitted_transformer(make):
    with pytest.raises(NotFittedError, match=f"This {make.__name__} instance is not fitted yet"):
        make(CLF).transform(X)


@both
def test_unfitted_skorch_net(make):
    import skorch

    with pytest.raises(NotFittedError, match="NeuralNetClassifier instance is not"):
        make().perturb(skorch.NeuralNetClassifier(torch.nn.Linear), X, Y)


@both
def test_estimator_without_gradients(make):
    forest = RandomForestClassifier(3, random_state=0).fit(X, Y)
    message = (
        f"{make.__name__} needs the gradients of the estimator. RandomForestClassifier has no "
        "differentiable view. Register a function .* or attack a substitute that has a view"
    )
    for estimator in (forest, FrozenEstimator(forest)):
        with pytest.raises(NotDifferentiableError, match=message):
            make().perturb(estimator, X, Y)
    with pytest.raises(NotDifferentiableError, match=r"needs the gradients .*RandomForest"):
        make().perturb(make_pipeline(StandardScaler(), forest).fit(X, Y), X, Y)
    with pytest.raises(NotDifferentiableError, match=message):
        make(RandomForestClassifier(3)).fit_transform(X, Y)


@both
def test_one_class_only(make):
    estimator = GaussianNB().fit(X, np.zeros(len(X), dtype=int))
    message = "estimator must know at least two classes; GaussianNB was fitted on one class only, "
    with pytest.raises(ValueError, match=message):
        make().perturb(estimator, X, np.zeros(len(X), dtype=int))


@both
@pytest.mark.parametrize(
    "estimator",
    [
        LinearRegression().fit(X, Y),
        make_pipeline(StandardScaler(), LinearRegression()).fit(X, Y),
        KMeans(3, n_init=1).fit(X),
    ],
    ids=str,
)
def test_what_is_no_classifier(make, estimator):
    message = f"must be a fitted classifier.*; {type(estimator).__name__} has none. Only classif"
    with pytest.raises(TypeError, match=message):
        make().perturb(estimator, X, Y)


@both
@pytest.mark.parametrize("estimator", [None, StandardScaler().fit(X), "clf"], ids=str)
def test_what_cannot_predict(make, estimator):
    message = r"estimator must be a classifier with predict, or a torch\.nn\.Module .*; got "
    with pytest.raises(TypeError, match=message):
        make().perturb(estimator, X, Y)


@both
def test_class_in_place_of_an_instance(make):
    with pytest.raises(TypeError, match=r"LogisticRegression.* is a class, not an instance"):
        make().perturb(LogisticRegression, X, Y)


@both
def test_estimator_parameter_of_a_wrong_type(make):
    with pytest.raises(InvalidParameterError, match=r"'estimator' parameter of .* Got 'clf'"):
        make("clf").fit(X, Y)


@both
def test_module_of_wrong_output(make):
    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Unflatten(1, (2, 2)))
    with pytest.raises(ValueError, match="Sequential must give logits of shape"):
        make().perturb(module, X, Y)


@both
def test_errors_leave_everything_as_it_was(make):
    module = torch.nn.Linear(6, 3).train()
    for parameters, labels in (({"eps": [1, 2]}, Y), ({}, Y + 5), ({"mask": [9]}, Y)):
        with pytest.raises(ValueError, match=r"features|labels"):
            make(**parameters).perturb(module, X, labels)
        assert module.training
        assert all(p.requires_grad for p in module.parameters())
