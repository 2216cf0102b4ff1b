"""Images as flat rows: a convolutional network at the end of a scikit-learn pipeline.

scikit-learn wants rows of features, and a convolution wants images. With ``input_shape`` the rows
travel through pipelines, splits and grids, and become images inside of the network.
"""

import argparse

from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from skrobust import RobustClassifier
from skrobust.attacks import FGSM, PGD
from skrobust.defenses import StandardTraining
from skrobust.metrics import robust_accuracy_score


def to_unit(grey):
    """Grey levels from 0 to 16 as numbers from 0 to 1: for arrays and for tensors."""
    return grey / 16


def main(quick=False):
    """Tell the story; ``quick`` trains for a few epochs and attacks fewer images."""
    # Rows of 64 grey levels from 0 to 16.
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=100 if quick else None, stratify=y, random_state=0
    )

    # The network stands behind the scaling: what it trains against is in the units that it sees.
    robust = Pipeline(
        [
            ("unit", FunctionTransformer(to_unit)),
            (
                "cnn",
                RobustClassifier(
                    "cnn",
                    input_shape=(1, 8, 8),
                    module__channels=(16, 32),
                    module__hidden=64,
                    eps=0.1,
                    bounds=(0, 1),
                    max_epochs=5 if quick else 40,
                    random_state=0,
                ),
            ),
        ]
    )
    standard = clone(robust).set_params(cnn__defense=StandardTraining())
    for name, pipeline in (("standard", standard), ("robust", robust)):
        pipeline.fit(X_train, y_train)
        print(f"{name:<9} accuracy {pipeline.score(X_test, y_test):.3f}", flush=True)
    print(f"\nThe network: {robust['cnn'].module_}")

    # From outside, the pipeline is attacked where its user stands: in grey levels.
    grey = {"eps": 1.6, "bounds": (0, 16)}
    print("\nUnder attack, every pixel by up to 1.6 of 16 grey levels:")
    for name, pipeline in (("standard", standard), ("robust", robust)):
        X_adv = FGSM(**grey).perturb(pipeline, X_test, y_test)
        one_step = pipeline.score(X_adv, y_test)
        score = robust_accuracy_score(pipeline, X_test, y_test, **grey)
        print(f"{name:<9} one step (FGSM) {one_step:.3f}   robust accuracy (PGD) {score:.3f}")

    # But for its random starts it is the attack on the network alone, with eps=0.1 in its units.
    inside = robust_accuracy_score(robust["cnn"], to_unit(X_test), y_test, eps=0.1, bounds=(0, 1))
    print(f"robust    the network alone, in its own units: {inside:.3f}")

    # Another norm takes no more than its name.
    print("\nUnder attack, by up to 8 grey levels in the euclidean norm:")
    attack = PGD(eps=8, norm="l2", bounds=(0, 16), n_restarts=2, random_state=0)
    for name, pipeline in (("standard", standard), ("robust", robust)):
        score = robust_accuracy_score(pipeline, X_test, y_test, attack=attack)
        print(f"{name:<9} robust accuracy {score:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Images in scikit-learn pipelines.")
    parser.add_argument("--quick", action="store_true", help="train for a few epochs only")
    main(parser.parse_args().quick)
