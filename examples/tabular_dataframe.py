"""Tabular data: a DataFrame, labels that are words, and an attacker who cannot change everything.

Wine is told apart by thirteen measurements, in units from tenths to thousands. Someone who wants a
wine to pass for another can add acid or sugar, but can hardly change its colour. How much
does that attacker achieve, and what does training against exactly that attacker help?
"""

import argparse

from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.metrics import robust_accuracy_score

# What the attacker can change, by the names of the columns.
CHANGEABLE = ["alcohol", "malic_acid", "ash", "alcalinity_of_ash", "magnesium", "proline"]


def main(quick=False):
    """Tell the story; ``quick`` trains for a few epochs only."""
    wine = load_wine(as_frame=True)
    X, y = wine.data, wine.target.map(dict(enumerate(wine.target_names)))
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.4, stratify=y, random_state=0
    )
    print(f"{len(X)} wines of {', '.join(y.unique())}")

    # The threat model is in the units of the table: one budget for each column, here half of its
    # standard deviation, and the range that the column can have at all.
    eps = 0.5 * X_train.std().to_numpy()
    bounds = (0.0, 2 * X.max().to_numpy())
    for name in ("alcohol", "magnesium", "proline"):
        print(f"  {name:<10} may change by {eps[X.columns.get_loc(name)]:.2f}")

    # A pipeline is attacked from its raw input, through its scaler.
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X_train, y_train)
    everything = {"eps": eps, "bounds": bounds}
    only_some = {**everything, "mask": CHANGEABLE}
    print(f"\nLogistic regression, accuracy {pipeline.score(X_test, y_test):.3f}")
    for who, threat in (("all columns", everything), ("six columns", only_some)):
        score = robust_accuracy_score(pipeline, X_test, y_test, **threat)
        print(f"  robust accuracy, {who}: {score:.3f}")

    # What an attack returns is a DataFrame again, in which the other columns are as they were.
    attack = PGD(**only_some, random_state=0)
    X_adv = attack.perturb(pipeline, X_test, y_test)
    changed = [name for name in X if not X_adv[name].equals(X_test[name])]
    print(f"  columns that were changed: {', '.join(changed)}")
    fooled = pipeline.predict(X_adv) != y_test
    fooled &= pipeline.predict(X_test) == y_test
    if fooled.any():
        row = X_test.index[fooled][0]
        before, after = (
            pipeline.predict(X_test.loc[[row]])[0],
            pipeline.predict(X_adv.loc[[row]])[0],
        )
        print(f"  wine {row}, {before}, passes for {after}:")
        for name in changed:
            print(f"    {name:<18}{X_test.loc[row, name]:>9.2f} ->{X_adv.loc[row, name]:>9.2f}")

    # The same threat model trains the defense. The scaler is a layer of the network, so that eps,
    # bounds and mask mean the same as before.
    robust = RobustClassifier(
        preprocessor=StandardScaler(),
        module__hidden=(32,),
        max_epochs=100 if quick else 400,
        random_state=0,
        **only_some,
    ).fit(X_train, y_train)
    score = robust_accuracy_score(robust, X_test, y_test, **only_some)
    print(f"\nRobustClassifier, accuracy {robust.score(X_test, y_test):.3f}")
    print(f"  robust accuracy, six columns: {score:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Attacks on a table.")
    parser.add_argument("--quick", action="store_true", help="train for a few epochs only")
    main(parser.parse_args().quick)
