"""PGD on the reference target, whose figures are in shared/models/README.md."""

import numpy as np

from skrobust.attacks import FGSM, PGD

from ._tools import mnist, reference_cnn, table


def main():
    X, y = mnist("test", 1000)
    cnn = reference_cnn()
    runs = {
        "FGSM linf 0.3": FGSM(eps=0.3, bounds=(0, 1)),
        "PGD-40 linf 0.3, step 0.01": PGD(eps=0.3, step_size=0.01, bounds=(0, 1)),
        "PGD-40 linf 0.3": PGD(eps=0.3, bounds=(0, 1)),
        "PGD-40 linf 0.3, margin": PGD(eps=0.3, bounds=(0, 1), loss="margin"),
        "PGD-50 x 5 linf 0.3": PGD(eps=0.3, bounds=(0, 1), n_steps=50, n_restarts=5),
        "PGD-40 l2 2.0, step 0.2": PGD(eps=2.0, norm="l2", step_size=0.2, bounds=(0, 1)),
        "PGD-40 l2 2.0": PGD(eps=2.0, norm="l2", bounds=(0, 1)),
        "PGD-40 l1 10": PGD(eps=10.0, norm="l1", bounds=(0, 1)),
    }
    rows = []
    for name, attack in runs.items():
        attack.set_params(random_state=0)
        withstood = ~attack.run(cnn, X, y, stop_on_success=True).success
        rows.append([name, f"{100 * np.mean(withstood):.1f} %"])
    return "First 1,000 MNIST test images.\n\n" + table(["attack", "robust accuracy"], rows) + "\n"
