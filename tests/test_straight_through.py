"""Steps are exact forwards, to the last bit, and have the gradients of their surrogates."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix, issparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    StandardScaler,
)
from torch import nn

import skrobust.differentiable
from skrobust.attacks import PGD
from skrobust.differentiable import StraightThrough, straight_through, to_torch
from skrobust.exceptions import NotDifferentiableError
from skrobust.utils._torch import input_options

N_FEATURES = 4


def make_data():
    return make_classification(
        n_samples=200, n_features=N_FEATURES, n_informative=4, n_redundant=0, random_state=0
    )


def evaluate(view, X):
    with torch.no_grad():
        return view(torch.tensor(X)).numpy()


def assert_same_bits(actual, expected):
    """Also of zeros, which have a sign."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == np.ascontiguousarray(expected).tobytes()


def gradient_of(view, X, direction=None):
    x = torch.tensor(X, requires_grad=True)
    y = view(x)
    direction = torch.ones_like(y) if direction is None else torch.as_tensor(direction)
    return torch.autograd.grad(y, x, direction)[0].numpy()


def test_public_names():
    assert skrobust.differentiable.__all__ == ["StraightThrough", "straight_through", "to_torch"]


# StraightThrough


def floor(x):
    return x.floor()


def square(x):
    return x * x


def test_identity():
    X = np.random.default_rng(0).normal(size=(6, 3))
    assert_same_bits(evaluate(StraightThrough(torch.floor), X), np.floor(X))
    np.testing.assert_array_equal(gradient_of(StraightThrough(torch.floor), X), np.ones_like(X))


def test_value_is_not_rounded():
    """The usual formula ``surrogate + (exact - surrogate)`` would give 0 here."""
    x = torch.tensor([1e20], dtype=torch.float64, requires_grad=True)
    assert StraightThrough(lambda x: torch.full_like(x, 0.1))(x).item() == 0.1


def test_surrogate():
    X = np.random.default_rng(0).normal(size=(6, 3))
    view = StraightThrough(lambda x: x.sum(dim=1, keepdim=True) > 0, nn.Linear(3, 1).double())
    assert_same_bits(evaluate(view, X), (X.sum(axis=1, keepdims=True) > 0).astype(np.float64))
    weight = view.surrogate.weight.detach().numpy()
    np.testing.assert_array_equal(gradient_of(view, X), np.broadcast_to(weight, X.shape))


def test_second_derivative_is_that_of_the_surrogate():
    x = torch.tensor([1.5, -2.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        StraightThrough(torch.floor, square)(x).sum(), x, create_graph=True
    )
    (second,) = torch.autograd.grad(gradient.sum(), x)
    assert gradient.tolist() == [3.0, -4.0]
    assert second.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exact", [lambda x: x > 0.5, lambda x: (2 * x).int()])
def test_other_dtypes_become_that_of_the_input(exact, dtype):
    x = torch.rand(5, 2, dtype=dtype, requires_grad=True)
    y = StraightThrough(exact)(x)
    assert y.dtype == dtype
    assert torch.equal(y, exact(x.detach()).to(dtype))


def test_exact_in_another_precision():
    X = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    view = StraightThrough(lambda x: x.double().floor(), lambda x: x * x)
    assert_same_bits(evaluate(view, X), np.floor(X.astype(np.float64)))
    gradient = gradient_of(view, X)
    assert gradient.dtype == np.float32
    np.testing.assert_array_equal(gradient, 2 * X)


def test_nothing_is_computed_in_vain():
    def never(x):
        raise AssertionError

    def exact(x):
        assert not torch.is_grad_enabled()
        return x.floor()

    with torch.no_grad():
        StraightThrough(exact, never)(torch.zeros(3))
    StraightThrough(exact)(torch.zeros(3, requires_grad=True))


def test_output_shares_no_memory_with_the_input():
    x = torch.zeros(3, requires_grad=True)
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            StraightThrough(lambda x: x)(x).add_(1.0)
    assert not x.any()


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_that_of_the_modules(training):
    module = nn.Linear(3, 3).train(training)
    assert StraightThrough(torch.floor, module).training == training
    assert module.training == training
    assert not StraightThrough(torch.floor).training


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda view: pickle.loads(pickle.dumps(view))], ids=["deep", "pickle"]
)
def test_copies(copied):
    view = StraightThrough(floor, square)
    X = np.random.default_rng(0).normal(size=(6, 3))
    assert_same_bits(evaluate(copied(view), X), np.floor(X))
    np.testing.assert_array_equal(gradient_of(copied(view), X), 2 * X)
    assert to_torch(view) is view


def test_shapes_that_do_not_fit():
    x = torch.zeros(5, 3)
    with pytest.raises(ValueError, match=r"which is \(5, 1\); the identity gives \(5, 3\)"):
        StraightThrough(lambda x: x[:, :1])(x)
    with pytest.raises(ValueError, match=r"which is \(5, 1\); the surrogate gives \(5, 2\)"):
        StraightThrough(lambda x: x[:, :1], lambda x: x[:, :2])(x)


def test_wrong_types():
    with pytest.raises(TypeError, match=r"^exact of StraightThrough must be .* got 3"):
        StraightThrough(3)
    with pytest.raises(TypeError, match=r"^exact of StraightThrough must be .* got None"):
        StraightThrough(None)
    with pytest.raises(TypeError, match=r"^surrogate of StraightThrough .* got 'identity'"):
        StraightThrough(torch.floor, "identity")
    with pytest.raises(TypeError, match="exact of StraightThrough must give a tensor, got ndarray"):
        StraightThrough(lambda x: x.numpy())(torch.zeros(2))


# straight_through


class Quantizer(TransformerMixin, BaseEstimator):
    """Rounds to steps, by numpy functions that take no tensors with gradients."""

    def fit(self, X, y=None):
        self.step_ = np.ptp(np.asarray(X), axis=0) / 8
        return self

    def transform(self, X):
        return np.round(np.asarray(X) / self.step_) * self.step_


class Marked(Quantizer):
    __to_torch__ = straight_through


class Registered(Quantizer):
    pass


to_torch.register(Registered, straight_through)


class ChildOfRegistered(Registered):
    pass


@pytest.mark.parametrize("cls", [Marked, Registered, ChildOfRegistered])
def test_two_ways_of_marking(cls):
    X, y = make_data()
    quantizer = cls().fit(X)
    for estimator in (quantizer, FrozenEstimator(quantizer)):
        view = to_torch(estimator)
        assert_same_bits(evaluate(view, X), quantizer.transform(X))
        np.testing.assert_array_equal(gradient_of(view, X), np.ones_like(X))
        assert not list(view.parameters())

    pipeline = make_pipeline(StandardScaler(), cls(), LogisticRegression()).fit(X, y)
    view = to_torch(pipeline)
    margin = evaluate(view, X)[:, 1]
    np.testing.assert_allclose(margin, pipeline.decision_function(X), rtol=1e-9, atol=1e-9)
    expected = pipeline[-1].coef_ / pipeline[0].scale_
    np.testing.assert_allclose(
        gradient_of(view, X[:1], np.array([[0.0, 1.0]])), expected, rtol=1e-12
    )


def test_class_that_is_not_marked():
    X, _ = make_data()
    with pytest.raises(
        NotDifferentiableError, match=r"to_torch\.register\(Quantizer, straight_through\) is"
    ):
        to_torch(Quantizer().fit(X))
    view = straight_through(Quantizer().fit(X))
    assert_same_bits(evaluate(view, X), Quantizer().fit(X).transform(X))


@pytest.mark.parametrize(
    "convert",
    [
        csr_matrix,
        pd.DataFrame,
        np.asfortranarray,
        lambda X: X.round().astype(np.int32),
        lambda X: X > 0,
        lambda X: np.broadcast_to(X, X.shape),  # read-only
    ],
    ids=["sparse", "frame", "fortran", "int", "bool", "read-only"],
)
def test_kinds_of_output(convert):
    class Converter(Marked):
        def transform(self, X):
            return convert(super().transform(X))

    X, _ = make_data()
    converter = Converter().fit(X)
    expected = converter.transform(X)
    expected = expected.toarray() if issparse(expected) else np.asarray(expected)
    assert_same_bits(evaluate(to_torch(converter), X), expected.astype(np.float64))
    np.testing.assert_array_equal(gradient_of(to_torch(converter), X), np.ones_like(X))


def test_transformer_that_works_in_place():
    class InPlace(Marked):
        def transform(self, X):
            X += 1
            return X

    x = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    y = to_torch(InPlace().fit(x.detach().numpy()))(x)
    assert (y == 1).all()
    assert not x.any()


def test_transformer_of_data_frames():
    class ByName(Marked):
        def fit(self, X, y=None):
            self.feature_names_in_ = np.asarray(X.columns, dtype=object)
            return self

        def transform(self, X):
            return X.assign(b=X["b"].round())

    frame = pd.DataFrame(make_data()[0], columns=list("abcd"))
    transformer = ByName().fit(frame)
    X = frame.to_numpy()
    assert_same_bits(evaluate(to_torch(transformer), X), transformer.transform(frame).to_numpy())

    scaler = MinMaxScaler().set_output(transform="pandas").fit(frame)  # warns of arrays
    assert_same_bits(evaluate(straight_through(scaler), X), scaler.transform(frame).to_numpy())


def test_each_pass_of_a_random_transformer_is_a_fresh_draw():
    class Noise(Marked):
        def fit(self, X, y=None):
            self.random_state_ = np.random.RandomState(0)
            return self

        def transform(self, X):
            return X + self.random_state_.normal(size=X.shape)

    X, _ = make_data()
    noise = Noise().fit(X)
    view = to_torch(noise)
    twin = copy.deepcopy(noise)
    draws = [evaluate(view, X) for _ in range(2)]
    assert_same_bits(draws[0], twin.transform(X))
    assert_same_bits(draws[1], twin.transform(X))
    assert not np.isclose(*draws).any()
    np.testing.assert_array_equal(gradient_of(view, X), np.ones_like(X))


def test_float32_input():
    X, _ = make_data()
    quantizer = Marked().fit(X)
    X = X.astype(np.float32)
    assert_same_bits(evaluate(to_torch(quantizer), X), quantizer.transform(X.astype(np.float64)))
    gradient = gradient_of(to_torch(quantizer), X)
    assert gradient.dtype == np.float32
    assert (gradient == 1).all()


class Net(TransformerMixin, BaseEstimator):
    """A last step that shows a net in float32."""

    def fit(self, X, y=None):
        self.module_ = nn.Linear(X.shape[1], 2)
        return self

    def __to_torch__(self):
        return to_torch(self.module_)


@pytest.mark.parametrize(
    "step", [Marked(), FunctionTransformer(np.floor), Binarizer(), KBinsDiscretizer(3)]
)
def test_input_of_a_pipeline_is_taken_in_float64(step):
    """A net behind must not round what is in front of a step to float32."""
    X, y = make_data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the coming default of KBinsDiscretizer
        pipeline = make_pipeline(step, Net()).fit(X, y)
    assert input_options(to_torch(pipeline))["dtype"] == torch.float64
    logits = to_torch(pipeline)(torch.from_numpy(X))
    assert logits.dtype == torch.float32


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda view: pickle.loads(pickle.dumps(view))], ids=["deep", "pickle"]
)
def test_copies_of_views_of_transformers(copied):
    X, y = make_data()
    pipeline = make_pipeline(Marked(), Binarizer(), LogisticRegression()).fit(X, y)
    view = to_torch(pipeline)
    assert_same_bits(evaluate(copied(view), X), evaluate(view, X))
    np.testing.assert_array_equal(gradient_of(copied(view), X), gradient_of(view, X))


def test_transformer_that_changes_the_shape():
    X, _ = make_data()
    encoder = OneHotEncoder(handle_unknown="ignore").fit(X.round())
    with pytest.raises(
        NotDifferentiableError,
        match=r"^OneHotEncoder has no straight-through view: .*from \(200, 4\) to \(200, \d+\).*"
        r"@to_torch\.register\(OneHotEncoder\): StraightThrough\(exact, surrogate\)",
    ):
        straight_through(encoder)(torch.from_numpy(X))


def test_no_transformer():
    with pytest.raises(TypeError, match=r"needs a fitted transformer, got LogisticRegression\(\)"):
        straight_through(LogisticRegression())


# Discretizers


def fit_quietly(estimator, X):
    """Features that are constant, and defaults that will change, warn at fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(X)


def bins_data():
    """Features of different scales, the last one constant, and one with many equal values."""
    X = np.random.default_rng(0).normal(size=(300, 5)) * [1.0, 20.0, 0.1, 3.0, 0.0]
    X[:, 3] = np.round(np.maximum(X[:, 3], 0.0))
    return X


def around_edges(discretizer):
    """All values close to an edge, one column a feature, and others far outside."""
    columns = []
    for edges in discretizer.bin_edges_:
        edges = edges if np.isfinite(edges).all() else np.zeros(2)
        values = [np.nextafter(edges, -np.inf), edges, np.nextafter(edges, np.inf), 100 * edges]
        columns.append(np.resize(np.concatenate(values), 60))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("dtype", [None, np.float32, np.float64])
@pytest.mark.parametrize("n_bins", [2, 5, [2, 3, 9, 4, 7]], ids=str)
@pytest.mark.parametrize("encode", ["ordinal", "onehot", "onehot-dense"])
@pytest.mark.parametrize("strategy", ["uniform", "quantile", "kmeans"])
def test_bins_are_exact(strategy, encode, n_bins, dtype):
    X = bins_data()
    discretizer = KBinsDiscretizer(n_bins, encode=encode, strategy=strategy, dtype=dtype)
    fit_quietly(discretizer, X)
    X = np.concatenate([X, 3 * X, around_edges(discretizer)])
    expected = discretizer.transform(X)
    expected = expected.toarray() if issparse(expected) else expected
    view = to_torch(discretizer)
    assert_same_bits(evaluate(view, X), expected.astype(np.float64))
    assert discretizer.n_bins_[-1] == 1

    X = X.astype(np.float32)
    expected = discretizer.transform(X)
    expected = expected.toarray() if issparse(expected) else expected
    assert_same_bits(evaluate(view, X), expected.astype(np.float64))
    assert gradient_of(view, X).dtype == np.float32


def position(x, edges):
    """Number of the bin, interpolated between centers, by means of numpy."""
    centers = (edges[1:] + edges[:-1]) / 2
    first, last = np.diff(centers)[[0, -1]]
    inside = np.interp(x, centers, np.arange(len(centers)))
    return inside + np.minimum(x - centers[0], 0) / first + np.maximum(x - centers[-1], 0) / last


@pytest.mark.parametrize("strategy", ["uniform", "quantile", "kmeans"])
def test_gradients_of_ordinal_bins_are_those_of_the_interpolation(strategy):
    discretizer = KBinsDiscretizer([5, 2, 3, 4, 5], encode="ordinal", strategy=strategy)
    fit_quietly(discretizer, bins_data())
    X = np.random.default_rng(1).normal(size=(500, 5)) * [2.0, 40.0, 0.2, 6.0, 1.0]
    gradient = gradient_of(to_torch(discretizer), X)
    for j, edges in enumerate(discretizer.bin_edges_[:-1]):
        step = 1e-7 * (edges[-1] - edges[0])
        slope = position(X[:, j] + step, edges) - position(X[:, j] - step, edges)
        np.testing.assert_allclose(gradient[:, j], slope / (2 * step), rtol=1e-5)
        assert (X[:, j] > edges[-1]).any()
        assert (gradient[:, j] > 0).all()  # outside too
    assert not gradient[:, -1].any()  # a feature with one bin


def test_surrogate_is_the_number_of_the_bin_at_its_center():
    discretizer = KBinsDiscretizer(5, encode="ordinal", strategy="uniform").fit(
        np.linspace(0.0, 10.0, 20)[:, np.newaxis]
    )
    surrogate = to_torch(discretizer).surrogate
    X = np.array([[-1.0], [0.0], [1.0], [2.0], [5.0], [9.0], [12.0]])
    expected = [[-1.0], [-0.5], [0.0], [0.5], [2.0], [4.0], [5.5]]
    np.testing.assert_allclose(evaluate(surrogate, X), expected, rtol=1e-12)
    x = torch.tensor([[-3.0], [0.7], [4.1], [9.9]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(surrogate, x)


@pytest.mark.parametrize("encode", ["onehot", "onehot-dense"])
def test_surrogate_of_one_hot_bins_are_tents(encode):
    data = np.stack([np.linspace(0.0, 10.0, 20), np.linspace(0.0, 2.0, 20), np.zeros(20)], axis=1)
    discretizer = KBinsDiscretizer([5, 2, 2], encode=encode, strategy="uniform")
    view = to_torch(fit_quietly(discretizer, data))
    X = np.array([[4.5, 0.5, 0.0], [3.0, 1.0, 7.0], [10.0, -0.5, 0.0]])
    expected = [
        [0.0, 0.25, 0.75, 0.0, 0.0, 1.0, 0.0, 1.0],
        [0.0, 1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 1.0],
        [0.0, 0.0, 0.0, -0.5, 1.5, 2.0, -1.0, 1.0],
    ]
    np.testing.assert_allclose(evaluate(view.surrogate, X), expected, rtol=1e-12, atol=1e-12)
    x = torch.tensor([[4.5, 0.4, 0.0], [12.0, -3.0, 1.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(view.surrogate, x)

    # The gradients of the view are those of the surrogate, not those of the exact bin's side.
    direction = np.random.default_rng(0).normal(size=(3, 8))
    np.testing.assert_array_equal(
        gradient_of(view, X, direction), gradient_of(view.surrogate, X, direction)
    )
    gradient = gradient_of(view, X[:1], np.eye(8)[[1]])
    np.testing.assert_allclose(gradient, [[-0.5, 0.0, 0.0]])


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_binarizer(threshold):
    X, _ = make_data()
    X[:2] = threshold
    X[2] = np.nextafter(threshold, 1.0)
    binarizer = Binarizer(threshold=threshold).fit(X)
    assert_same_bits(evaluate(to_torch(binarizer), X), binarizer.transform(X))
    np.testing.assert_array_equal(gradient_of(to_torch(binarizer), X), np.ones_like(X))

    X = X.astype(np.float32)
    assert_same_bits(evaluate(to_torch(binarizer), X), binarizer.transform(X.astype(np.float64)))
    assert gradient_of(to_torch(binarizer), X).dtype == np.float32


# Roundings


@pytest.mark.parametrize(
    ("func", "kw_args"),
    [
        (np.round, None),
        (np.round, {"decimals": 1}),
        (np.round, {"decimals": 6}),
        (np.round, {"decimals": -2}),
        (np.around, {"decimals": 2}),
        (np.rint, None),
        (np.floor, None),
        (np.ceil, None),
        (np.trunc, None),
        (np.fix, None),
        (np.sign, None),
    ],
)
def test_roundings(func, kw_args):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 1)) * 10.0 ** rng.integers(-4, 6, size=(1, N_FEATURES))
    halves = np.arange(-200, 200)[:, np.newaxis] * np.array([0.5, 0.05, 0.005, 50.0])
    X = np.concatenate([X, halves])
    transformer = FunctionTransformer(func, kw_args=kw_args)
    view = to_torch(transformer)
    assert_same_bits(evaluate(view, X), transformer.transform(X))
    np.testing.assert_array_equal(gradient_of(view, X), np.ones_like(X))
    assert_same_bits(
        evaluate(pickle.loads(pickle.dumps(view)), X.astype(np.float32)),
        transformer.transform(X.astype(np.float32).astype(np.float64)),
    )


def eighths(X):
    return np.floor(8 * X) / 8


class MarkedFunction(FunctionTransformer):
    __to_torch__ = straight_through


def test_rounding_of_the_user():
    X, _ = make_data()
    with pytest.raises(NotDifferentiableError, match="subclass with __to_torch__ = straight_th"):
        to_torch(FunctionTransformer(eighths).fit(X))
    view = to_torch(MarkedFunction(eighths).fit(X))
    assert_same_bits(evaluate(view, X), eighths(X))


# Attacks


@pytest.mark.parametrize(
    "step",
    [
        KBinsDiscretizer(16, encode="ordinal", strategy="uniform"),
        KBinsDiscretizer(8, encode="onehot", strategy="uniform"),
        FunctionTransformer(np.round, kw_args={"decimals": 1}),
        Binarizer(threshold=0.2),
        Marked(),
    ],
    ids=lambda step: type(step).__name__,
)
def test_steps_do_not_stop_an_attack(step):
    X, y = make_data()
    pipeline = make_pipeline(step, LogisticRegression(max_iter=1000)).fit(X, y)
    X_adv = PGD(eps=0.8, random_state=0).perturb(pipeline, X, y)
    assert pipeline.score(X_adv, y) < 0.5 * pipeline.score(X, y)
