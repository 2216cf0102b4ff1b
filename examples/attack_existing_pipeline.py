"""Attack a pipeline that is there already: nothing is trained again, nothing is rewritten.

A scaler, a projection and a classifier, fitted by scikit-learn. The attack goes through all of
them, from the raw input. For a linear model the strongest attack is known by a formula, which the
attacks are held against.
"""

import argparse

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skrobust.attacks import FGSM, PGD
from skrobust.metrics import robust_accuracy_curve


def main(quick=False):
    """Tell the story; ``quick`` looks at fewer samples."""
    X, y = load_breast_cancer(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
    if quick:
        X_test, y_test = X_test[:60], y_test[:60]
    # Raw units: a tenth of the standard deviation of each feature.
    eps = 0.1 * X_train.std(axis=0)

    linear = make_pipeline(StandardScaler(), PCA(n_components=10), LogisticRegression())
    network = make_pipeline(
        StandardScaler(), PCA(n_components=10), MLPClassifier((64,), max_iter=1000, random_state=0)
    )
    for pipeline in (linear, network):
        pipeline.fit(X_train, y_train)
    print(f"accuracy: linear {linear.score(X_test, y_test):.3f}, ", end="")
    print(f"network {network.score(X_test, y_test):.3f}\n")

    # 1. The linear one. Scaler, projection and classifier are one linear function w x + b, and the
    # attacker can move it by sum(eps |w|), whatever the sample: that is the closed form.
    scaler, pca, logistic = linear
    w = (logistic.coef_ @ pca.components_)[0] / scaler.scale_
    margin = linear.decision_function(X_test) * np.where(y_test == 1, 1, -1)
    closed_form = np.mean(margin - np.abs(w) @ eps > 0)
    print(f"linear, robust accuracy by the closed form: {closed_form:.4f}")
    for attack in (FGSM(eps=eps), PGD(eps=eps, random_state=0)):
        found = linear.score(attack.perturb(linear, X_test, y_test), y_test)
        print(f"linear, robust accuracy under {type(attack).__name__:<5}: {found:11.4f}")

    # 2. The network has no closed form; the curve is an upper bound of its robust accuracy.
    factors = np.array([0, 0.5, 1, 2, 4])
    print(f"\n{'eps / standard deviation':<26}" + "".join(f"{0.1 * f:8.2f}" for f in factors))
    for name, pipeline in (("linear", linear), ("network", network)):
        curve = robust_accuracy_curve(pipeline, X_test, y_test, eps=factors[:, None] * eps)
        print(f"{name:<26}" + "".join(f"{score:8.3f}" for score in curve))

    # 3. The attack as a transformer: it can stand wherever scikit-learn has place for one.
    # transform makes the pipeline leave its own predictions, and needs no labels.
    attack = PGD(FrozenEstimator(linear), eps=eps, random_state=0).fit(X_train, y_train)
    X_adv = attack.transform(X_test)
    agreement = np.mean(linear.predict(X_adv) == linear.predict(X_test))
    print(f"\nlinear, predictions that survive the transformer: {agreement:.3f}")
    # What was made for one model troubles another one, too: a pipeline of the attack on the
    # linear model and the network that then has to classify. Nothing in it is fitted again.
    transfer = make_pipeline(FrozenEstimator(attack), FrozenEstimator(network))
    print("network, accuracy on what was made for the linear one: ", end="")
    print(f"{transfer.fit(X_train, y_train).score(X_test, y_test):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Attack a pipeline that is there already.")
    parser.add_argument("--quick", action="store_true", help="look at fewer samples")
    main(parser.parse_args().quick)
