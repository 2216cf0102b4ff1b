"""The displays."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skrobust.attacks import FGSM, PGD
from skrobust.inspection import AdversarialExamplesDisplay, RobustnessCurveDisplay
from skrobust.metrics import robust_accuracy_curve


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True, as_frame=True)
    y = np.array(["setosa", "versicolor", "virginica"])[y]
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y), X, y


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X, y = X[:400] / 16, y[:400]
    return LogisticRegression(max_iter=1000).fit(X, y), X, y


# Robustness curves


def test_curve_shows_the_scores(pyplot, iris):
    clf, X, y = iris
    eps = [0.4, 0.0, 0.2]
    display = RobustnessCurveDisplay.from_estimator(clf, X, y, eps=eps)
    np.testing.assert_array_equal(display.scores, robust_accuracy_curve(clf, X, y, eps=eps))
    np.testing.assert_array_equal(display.line_.get_xdata(), [0.0, 0.2, 0.4])
    np.testing.assert_array_equal(display.line_.get_ydata(), np.sort(display.scores)[::-1])
    assert display.line_.get_ydata()[0] == clf.score(X, y)
    assert display.ax_.get_xlabel() == "eps (linf, in units of X)"
    assert display.ax_.get_ylabel() == "Robust accuracy"
    assert display.figure_ is display.ax_.figure
    assert display.estimator_name == "Pipeline"


def test_curve_hands_the_threat_model_on(pyplot, iris):
    clf, X, y = iris
    eps, weight = [0.2, 0.5], np.arange(len(y)) + 1.0
    threat = {"norm": "l2", "bounds": (0, 10), "mask": ["petal length (cm)"]}
    display = RobustnessCurveDisplay.from_estimator(
        clf, X, y, eps=eps, attack=PGD(n_steps=5), sample_weight=weight, **threat
    )
    expected = robust_accuracy_curve(
        clf, X, y, eps=eps, attack=PGD(n_steps=5), sample_weight=weight, **threat
    )
    np.testing.assert_array_equal(display.scores, expected)
    assert display.norm == "l2"


def test_curve_names_the_norm_of_its_attack(pyplot, iris):
    display = RobustnessCurveDisplay.from_estimator(*iris, eps=[0.1], attack=FGSM(norm="l1"))
    assert display.ax_.get_xlabel() == "eps (l1, in units of X)"


@pytest.mark.parametrize("name", [None, "mine"])
def test_curves_share_axes_and_legend(pyplot, iris, name):
    _, ax = pyplot.subplots()
    for _ in range(2):
        display = RobustnessCurveDisplay.from_estimator(
            *iris, eps=[0, 0.1], name=name, ax=ax, color="red", linestyle="--"
        )
    assert display.ax_ is ax
    assert len(ax.lines) == 2
    assert display.line_.get_color() == "red"
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [name or "Pipeline"] * 2


def test_curve_can_be_plotted_again(pyplot):
    display = RobustnessCurveDisplay(eps=[0, 1], scores=[1, 0])
    assert display.plot().ax_.get_legend() is None
    assert display.ax_.get_xlabel() == "eps (in units of X)"
    first = display.ax_
    assert display.plot(name="again").ax_ is not first
    assert display.ax_.get_legend() is not None
    assert display.plot(label="by label").line_.get_label() == "by label"


@pytest.mark.parametrize(
    ("eps", "expected"),
    [
        ([[0, 0, 0], [0.5, 3, 0], [1, 6, 0]], [0, 0.5, 1]),
        ([[0, 0], [0, 0]], [0, 0]),
        ([[0, 1], [2, 1]], [0.5, 1]),
    ],
)
def test_curve_over_budgets_per_feature(pyplot, eps, expected):
    display = RobustnessCurveDisplay(eps=eps, scores=np.linspace(1, 0, len(eps))).plot()
    np.testing.assert_allclose(display.line_.get_xdata(), expected)
    assert display.ax_.get_xlabel() == "eps (share of the largest)"


@pytest.mark.parametrize(("eps", "scores"), [([0, 1], [1]), (0.1, 1.0), ([0, 1], [[1, 0]])])
def test_curve_needs_a_score_for_each_eps(pyplot, eps, scores):
    with pytest.raises(ValueError, match="one score for each eps"):
        RobustnessCurveDisplay(eps=eps, scores=scores).plot()


# Adversarial examples


def test_images(pyplot, digits):
    clf, X, y = digits
    attack = PGD(eps=0.1, bounds=(0, 1))
    display = AdversarialExamplesDisplay.from_estimator(
        clf, X, y, attack=attack, image_shape=(8, 8), n_samples=5
    )
    assert attack.random_state is None  # it is the user's, and as it was
    assert display.axes_.shape == (3, 5)
    np.testing.assert_array_equal(display.X, X[:5])
    X_adv = PGD(eps=0.1, bounds=(0, 1), random_state=0).perturb(clf, X[:5], y[:5])
    np.testing.assert_array_equal(display.X_adv, X_adv)
    shown = [[ax.images[0].get_array() for ax in row] for row in display.axes_]
    np.testing.assert_array_equal(shown[0], X[:5].reshape(5, 8, 8))
    np.testing.assert_array_equal(shown[1], X_adv.reshape(5, 8, 8))
    np.testing.assert_array_equal(shown[2], (X_adv - X[:5]).reshape(5, 8, 8))
    for row, predicted in zip(display.axes_, (X[:5], X_adv), strict=False):
        predicted = clf.predict(predicted)
        assert [ax.get_title() for ax in row] == [str(label) for label in predicted]
        wrong = [ax.title.get_color() == "tab:red" for ax in row]
        np.testing.assert_array_equal(wrong, predicted != y[:5])
    assert [ax.get_ylabel() for ax in display.axes_[:, 0]] == ["clean", "adversarial", "difference"]
    # The colours of the differences have one scale, with white in the middle.
    limits = {ax.images[0].get_clim() for ax in display.axes_[2]}
    ((low, high),) = limits
    assert -low == high == pytest.approx(0.1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (8, 8, 1), (4, 16), (3, 4, 4), (4, 4, 3)])
def test_shapes_of_images(pyplot, shape):
    rng = np.random.default_rng(0)
    X = 300 * rng.random((2, np.prod(shape)))
    display = AdversarialExamplesDisplay(
        X=X, X_adv=X + 20 * rng.random(X.shape), y_pred=[0, 1], y_pred_adv=[1, 1], image_shape=shape
    ).plot(cmap="viridis")
    size = {(1, 8, 8): (8, 8), (8, 8, 1): (8, 8), (4, 16): (4, 16)}.get(shape, (4, 4))
    for ax in display.axes_.flat:
        assert ax.images[0].get_size() == size
    display.figure_.canvas.draw()


def test_images_that_are_images_already(pyplot):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    X = np.random.default_rng(0).random((4, 3, 4, 4), dtype=np.float32)
    display = AdversarialExamplesDisplay.from_estimator(module, X, attack=FGSM(eps=0.5))
    assert display.axes_.shape == (3, 4)
    with torch.no_grad():
        logits = module(torch.from_numpy(X))
    np.testing.assert_array_equal(display.y_pred, logits.argmax(1))
    assert {ax.title.get_color() for ax in display.axes_[0]} == {"black"}


def test_nothing_changed(pyplot):
    for shape in (None, (1, 2)):
        display = AdversarialExamplesDisplay(
            X=np.full((1, 2), 7),
            X_adv=np.full((1, 2), 7),
            y_pred=[0],
            y_pred_adv=[0],
            image_shape=shape,
        ).plot()
        display.figure_.canvas.draw()


def test_bars_of_a_data_frame(pyplot, iris):
    clf, X, y = iris
    eps = np.array([0.5, 0.0, 1.0, 0.2])
    mask = ["sepal length (cm)", "petal length (cm)", "sepal width (cm)"]
    display = AdversarialExamplesDisplay.from_estimator(
        clf, X.iloc[60:], y[60:], attack=FGSM(eps=eps, mask=mask), n_samples=3
    )
    assert display.axes_.shape == (1, 3)
    first = display.axes_[0, 0]
    # Of the three columns in the mask, one has no budget.
    names = [label.get_text() for label in first.get_yticklabels()]
    assert set(names) == {"sepal length (cm)", "petal length (cm)"}
    widths = [bar.get_width() for bar in first.patches]
    np.testing.assert_allclose(np.abs(widths), 1)
    change = (display.X_adv - display.X).iloc[0]
    np.testing.assert_array_equal(np.sign(widths), np.sign(change[names]))
    assert [ax.get_title() for ax in display.axes_[0]] == [
        f"{a}\n→ {b}" for a, b in zip(display.y_pred, display.y_pred_adv, strict=True)
    ]
    assert display.axes_[0, 1].get_xlabel() == "change (in units of eps)"


def test_bars_of_an_array(pyplot, iris):
    _, X, y = iris
    plain = LogisticRegression(max_iter=1000).fit(X.to_numpy(), y)
    display = AdversarialExamplesDisplay.from_estimator(
        plain, X.to_numpy().tolist(), attack=FGSM(eps=0.3), n_samples=2, max_features=3
    )
    names = [label.get_text() for label in display.axes_[0, 0].get_yticklabels()]
    assert len(names) == 3
    assert all(name.startswith("feature ") for name in names)
    assert display.axes_[0, 0].get_xlabel() == "change (in units of X; 3 of 4 features)"
    display = AdversarialExamplesDisplay.from_estimator(
        plain, X.to_numpy(), attack=FGSM(eps=0.3), feature_names=list("abcd")
    )
    names = [label.get_text() for label in display.axes_[0, 0].get_yticklabels()]
    assert set(names) == set("abcd")


def test_bars_are_ordered_by_size(pyplot):
    display = AdversarialExamplesDisplay(
        X=np.zeros((2, 3)),
        X_adv=[[0, 1, -3], [1, 1, -3]],
        y_pred=["a", "b"],
        y_pred_adv=["b", "b"],
        feature_names=["x", "y", "z"],
    ).plot()
    names = [label.get_text() for label in display.axes_[0, 0].get_yticklabels()]
    assert names == ["z", "y", "x"]
    titles = [(ax.get_title(), ax.title.get_color()) for ax in display.axes_[0]]
    assert titles == [("a → b", "tab:red"), ("b → b", "black")]


def test_examples_take_the_place_of_axes(pyplot, digits):
    clf, X, y = digits
    figure, (left, right) = pyplot.subplots(1, 2)
    display = AdversarialExamplesDisplay.from_estimator(
        clf, X, y, attack=FGSM(eps=0.1), image_shape=(8, 8), n_samples=2, ax=right
    )
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not right.axison
    assert left.axison
    assert len(pyplot.get_fignums()) == 1
    place = right.get_position()
    for ax in display.axes_.flat:
        assert ax.get_subplotspec().get_topmost_subplotspec() == right.get_subplotspec()
        assert ax.get_position().x0 >= place.x0 - 1e-9


def _display(**changes):
    given = {
        "X": np.zeros((1, 12)),
        "X_adv": np.zeros((1, 12)),
        "y_pred": [0],
        "y_pred_adv": [0],
    }
    return AdversarialExamplesDisplay(**given | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X_adv": np.zeros((1, 11))}, r"of one shape .* got \(1, 12\) and \(1, 11\)"),
        ({"X": np.zeros(12), "X_adv": np.zeros(12)}, "of one shape"),
        ({"image_shape": (3, 5)}, r"\(3, 5\) holds 15, and a sample has 12"),
        ({"image_shape": (2, 3, 2)}, "1 or 3 channels"),
        ({"image_shape": (12,)}, r"image_shape must be \(height, width\)"),
    ],
)
def test_examples_errors(pyplot, changes, message):
    with pytest.raises(ValueError, match=message):
        _display(**changes).plot()


def test_examples_errors_of_arguments(pyplot, digits):
    clf, X, y = digits
    with pytest.raises(ValueError, match="n_samples must be at least 1; got 0"):
        AdversarialExamplesDisplay.from_estimator(clf, X, y, attack=PGD(), n_samples=0)
    for attack in (None, "pgd", PGD):
        with pytest.raises(TypeError, match="attack must be"):
            AdversarialExamplesDisplay.from_estimator(clf, X, y, attack=attack)
    without_place = pyplot.figure().add_axes([0, 0, 1, 1])
    with pytest.raises(ValueError, match="ax must have a place in a grid"):
        _display().plot(without_place)


# matplotlib is optional


@pytest.mark.parametrize("display", [RobustnessCurveDisplay, AdversarialExamplesDisplay])
def test_without_matplotlib(monkeypatch, iris, display):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    message = rf"{display.__name__} needs matplotlib.*pip install skrobust\[plot\]"
    given = {"eps": "never read"} if display is RobustnessCurveDisplay else {"attack": "never read"}
    with pytest.raises(ImportError, match=message):
        display.from_estimator(*iris, **given)


def test_matplotlib_is_imported_where_it_is_used():
    code = "import sys, skrobust.inspection; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
