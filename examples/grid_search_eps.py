"""Choose a defense, and the eps to train with, by a grid search.

There are two eps. One is what the classifier has to withstand: it is part of the problem and stays
fixed in the scorer. The other is what it is trained with: a hyper-parameter, and the best
value is often not the same. One scorer measures several radii at a time, and ``refit`` says which
of them decides.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.defenses import TRADES, AdversarialTraining, StandardTraining
from skrobust.metrics import make_robust_scorer, robust_accuracy_curve


def main(quick=False):
    """Tell the story; ``quick`` searches a smaller grid."""
    X, y = load_digits(return_X_y=True)
    X = X / 16
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

    # A list of eps makes the scorer return a dict: robust_accuracy_0, which is the accuracy,
    # robust_accuracy_0.05 and robust_accuracy_0.1.
    radii = [0, 0.05, 0.1]
    attack = PGD(bounds=(0, 1), n_steps=20, n_restarts=2)
    scorer = make_robust_scorer(attack, eps=radii)
    print(f"The scores: {', '.join(scorer.names)}\n")

    n_steps = 2 if quick else 5
    train_eps = [0.1] if quick else [0.05, 0.1, 0.15]
    grid = [
        {"defense": [StandardTraining()]},  # it has no use for eps
        {"defense": [AdversarialTraining(n_steps=n_steps)], "eps": train_eps},
        {"defense": [TRADES(n_steps=n_steps)], "defense__beta": [1.0, 6.0], "eps": train_eps},
    ]
    search = GridSearchCV(
        RobustClassifier(bounds=(0, 1), max_epochs=5 if quick else 15, random_state=0),
        grid,
        scoring=scorer,
        refit="robust_accuracy_0.1",
        cv=2 if quick else 3,
    ).fit(X_train, y_train)

    # cv_results_ has a column for each score: the price of robustness, candidate by candidate.
    header = "".join(f"{f'at {radius:g}':>9}" for radius in radii)
    print(f"{'defense':<24}{'eps':>6}{header}")
    columns = [search.cv_results_[f"mean_test_{name}"] for name in scorer.names]
    for i in np.argsort(columns[-1])[::-1]:
        params = search.cv_results_["params"][i]
        name = type(params["defense"]).__name__
        if "defense__beta" in params:
            name += f"(beta={params['defense__beta']:g})"
        scores = "".join(f"{column[i]:9.3f}" for column in columns)
        print(f"{name:<24}{params.get('eps', '-'):>6}{scores}")

    # The search is a classifier: it is attacked as it is, on data that it has not seen.
    curve = robust_accuracy_curve(search, X_test, y_test, eps=radii, bounds=(0, 1))
    print(f"{'the best, on test data':<30}{''.join(f'{score:9.3f}' for score in curve)}")
    print(f"\nChosen: {search.best_params_}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Which defense, and which eps?")
    parser.add_argument("--quick", action="store_true", help="search a smaller grid")
    main(parser.parse_args().quick)
