"""Attack a classifier, defend it, and choose the best defense: the tour of skrobust.

Two data sets, each with a threat model in the units of its own features:

- digits: every pixel, from 0 to 1, may change by 0.1;
- breast cancer: every feature may change by a quarter of its standard deviation. The features run
  from thousandths to thousands, and yet nobody scales them for the attack.

On each: a scikit-learn pipeline, the network of RobustClassifier without a defense and with one,
and the best of a GridSearchCV over defenses and the eps that they train with. All are judged on
data that none of them has seen.

Run it by ``make demo``, or ``python examples/demo.py [--quick] [--output demo.png]``.
"""

import argparse
from pathlib import Path
from time import perf_counter

import matplotlib
import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import GridSearchCV, ParameterGrid, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.defenses import TRADES, AdversarialTraining, StandardTraining
from skrobust.inspection import AdversarialExamplesDisplay, RobustnessCurveDisplay
from skrobust.metrics import make_robust_scorer, robust_accuracy_curve, robust_accuracy_score

OUTPUT = Path(__file__).resolve().parent.parent / "demo.png"

PIPELINE, STANDARD = "scikit-learn pipeline", "network, no defense"
DEFENDED, CHOSEN = "network, adversarial training", "network, chosen by grid search"
STYLES = {
    PIPELINE: {"color": "tab:gray"},
    STANDARD: {"color": "tab:red"},
    DEFENDED: {"color": "tab:orange"},
    CHOSEN: {"color": "tab:blue"},
}


def main(quick=False, output=OUTPUT):
    """Run the demo; ``quick`` makes everything small."""
    log = Log()
    digits = make_digits()
    cancer = make_breast_cancer()
    for problem in (digits, cancer):
        problem.train(log, quick)
    rows = []
    for problem in (digits, cancer):
        log(f"{problem.name}: attacking all models on {len(problem.X_test)} test samples")
        rows += problem.evaluate()
    log("Drawing the robustness curves and adversarial examples")
    draw(digits, cancer, output, n_radii=4 if quick else 9)
    print_table(rows)
    print(f"\nThe picture is in {output}. All of it took {log.seconds():.0f} seconds.")


def make_digits():
    """Images as flat rows of 64 pixels."""
    X, y = load_digits(return_X_y=True)
    return Problem("digits", X / 16, y, eps=0.1, bounds=(0, 1), unit="grey levels, white is 1")


def make_breast_cancer():
    """Measurements in their own units; eps counts standard deviations."""
    X, y = load_breast_cancer(return_X_y=True)
    return Problem("breast cancer", X, y, eps=0.25, unit="standard deviations", per_feature=True)


class Problem:
    """A data set, its threat model, and the models."""

    def __init__(self, name, X, y, *, eps, unit, bounds=None, per_feature=False):
        self.name, self.eps, self.unit, self.bounds = name, eps, unit, bounds
        self.X_train, self.X_test, self.y_train, self.y_test = train_test_split(
            X, y, stratify=y, random_state=0
        )
        # eps may be one number, or one for each feature; always in the units of X.
        self.step = self.X_train.std(axis=0) if per_feature else 1.0
        self.preprocessor = StandardScaler() if per_feature else None

    def threat(self, factor=1.0):
        """The threat model at ``factor`` times eps, as every attack and classifier takes it."""
        return {"eps": factor * self.eps * self.step, "bounds": self.bounds}

    def train(self, log, quick):
        """Train the models on the training set."""
        X, y = self.X_train, self.y_train

        log(f"{self.name}: training a scikit-learn pipeline")
        # A scaler in front is good practice, and an open door: it magnifies what hardly varies.
        pipeline = make_pipeline(
            StandardScaler(), MLPClassifier((128, 128), max_iter=500, random_state=0)
        ).fit(X, y)

        # The preprocessor becomes the first layer of the network: eps stays in the units of X.
        defended = RobustClassifier(
            defense=AdversarialTraining(),
            preprocessor=self.preprocessor,
            max_epochs=10 if quick else "auto",
            random_state=0,
            **self.threat(),
        )
        log(f"{self.name}: training a network without and with adversarial training")
        standard = clone(defended).set_params(defense=StandardTraining()).fit(X, y)
        defended.fit(X, y)

        search = self.make_search(defended, quick)
        n_fits = search.cv * len(ParameterGrid(search.param_grid))
        log(f"{self.name}: GridSearchCV over defenses and eps, {n_fits} short trainings")
        search.fit(X, y)
        self.print_search(search)

        log(f"{self.name}: training the best of them to the end")
        chosen = clone(search.best_estimator_).set_params(max_epochs=defended.max_epochs).fit(X, y)
        self.models = {PIPELINE: pipeline, STANDARD: standard, DEFENDED: defended, CHOSEN: chosen}

    def make_search(self, classifier, quick):
        """Search over defenses, their parameters, and the eps to train with."""
        factors = [1.0] if quick else [1.0, 1.5]
        # To train with another eps than that to withstand is fair; the scorer has its own.
        eps = [self.threat(factor)["eps"] for factor in factors]
        n_steps = 2 if quick else 5
        return GridSearchCV(
            clone(classifier).set_params(max_epochs=4 if quick else 20),
            [
                {"defense": [AdversarialTraining(n_steps=n_steps)], "eps": eps},
                {"defense": [TRADES(n_steps=n_steps)], "defense__beta": [1.0, 6.0], "eps": eps},
            ],
            scoring={"clean": "accuracy", "robust": make_robust_scorer(PGD(**self.threat()))},
            refit="robust",
            cv=2 if quick else 3,
            n_jobs=1 if quick else 2,
        )

    def print_search(self, search):
        """Print what cross-validation found, the best first."""
        results = search.cv_results_
        for i in np.argsort(results["rank_test_robust"], kind="stable"):
            params = results["params"][i]
            defense = clone(params["defense"])
            if "defense__beta" in params:
                defense.set_params(beta=params["defense__beta"])
            factor = np.max(params["eps"]) / np.max(self.threat()["eps"])
            clean, robust = (results[f"mean_test_{name}"][i] for name in ("clean", "robust"))
            print(
                f"            {describe(defense):<22} eps={factor * self.eps:<6.4g} "
                f"accuracy {clean:6.1%}   robust {robust:6.1%}"
                f"{'   <- best' if i == search.best_index_ else ''}"
            )

    def evaluate(self):
        """Rows of the table: accuracy, and robust accuracy under 5 runs of PGD."""
        return [
            (
                self.name,
                name,
                model.score(self.X_test, self.y_test),
                robust_accuracy_score(model, self.X_test, self.y_test, **self.threat()),
            )
            for name, model in self.models.items()
        ]


def describe(defense):
    """Name a defense in a few letters."""
    if isinstance(defense, TRADES):
        return f"TRADES(beta={defense.beta:g})"
    return type(defense).__name__


def print_table(rows):
    """Clean and robust accuracy beside each other."""
    print(f"\n{'data':<15}{'model':<33}{'accuracy':>9}{'robust accuracy':>18}\n{'-' * 75}")
    last = rows[0][0]
    for data, model, clean, robust in rows:
        if data != last:
            print()
        last = data
        print(f"{data:<15}{model:<33}{clean:>9.1%}{robust:>18.1%}")


def draw(digits, cancer, output, n_radii):
    """One picture: curves on top, digits and their adversarial versions below."""
    matplotlib.use("agg")  # a file is wanted, and there may be no screen
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(12, 8.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.2, 1], hspace=0.03)
    left, right = top.subplots(1, 2, sharey=True)
    draw_curves(left, digits, n_radii)
    draw_curves(right, cancer, n_radii)
    left.get_legend().remove()  # that on the right is the same
    right.set_ylabel(None)
    parts = bottom.subfigures(1, 2, wspace=0.04)
    for part, name in zip(parts, (PIPELINE, CHOSEN), strict=True):
        part.suptitle(f"{name}, attacked at eps = {digits.eps:g} (red: fooled)")
        AdversarialExamplesDisplay.from_estimator(
            digits.models[name],
            digits.X_test,
            digits.y_test,
            attack=PGD(**digits.threat()),
            image_shape=(8, 8),
            ax=part.subplots(),
        )
    figure.savefig(output, dpi=120)
    pyplot.close(figure)


def draw_curves(ax, problem, n_radii):
    """Robust accuracy of all models of a problem over eps."""
    factors = np.linspace(0, 2, n_radii)
    radii = [np.asarray(problem.threat(factor)["eps"]) for factor in factors]
    for name, model in problem.models.items():
        scores = robust_accuracy_curve(
            model, problem.X_test, problem.y_test, eps=radii, bounds=problem.bounds
        )
        RobustnessCurveDisplay(eps=factors * problem.eps, scores=scores, estimator_name=name).plot(
            ax, **STYLES[name]
        )
    ax.axvline(problem.eps, color="black", linewidth=0.8, linestyle=":")
    ax.set(title=problem.name, xlabel=f"eps ({problem.unit})")
    ax.grid(alpha=0.3)


class Log:
    """Lines of progress with the time since the start."""

    def __init__(self):
        self.start = perf_counter()

    def seconds(self):
        """Time since the start."""
        return perf_counter() - self.start

    def __call__(self, message):
        """Print a line."""
        print(f"[{self.seconds():5.1f} s]   {message}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The tour of skrobust.")
    parser.add_argument("--quick", action="store_true", help="everything small, for tests")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where to write the picture")
    arguments = parser.parse_args()
    main(arguments.quick, arguments.output)
