"""Attacks on the reference target, whose figures are in shared/models/README.md."""

import numpy as np

from skrobust.attacks import (
    DDN,
    FAB,
    FGSM,
    FMN,
    PGD,
    CarliniWagner,
    DeepFool,
    HopSkipJump,
    SigmaZero,
)

from ._tools import mnist, reference_cnn, table
from .peers import judge

N_POINTS, N_NEAREST = 1000, 100

AT_ONE_EPS = {
    "FGSM linf 0.3": FGSM(eps=0.3),
    "PGD-40 linf 0.3, step 0.01": PGD(eps=0.3, step_size=0.01),
    "PGD-40 linf 0.3": PGD(eps=0.3),
    "PGD-40 linf 0.3, margin": PGD(eps=0.3, loss="margin"),
    "PGD-50 x 5 linf 0.3": PGD(eps=0.3, n_steps=50, n_restarts=5),
    "PGD-40 l2 2.0, step 0.2": PGD(eps=2.0, norm="l2", step_size=0.2),
    "PGD-40 l2 2.0": PGD(eps=2.0, norm="l2"),
    "PGD-40 l1 10": PGD(eps=10.0, norm="l1"),
}
NEAREST = {
    "linf": [DeepFool(norm="linf"), FAB(), FMN(), HopSkipJump()],
    "l2": [DeepFool(), FAB(norm="l2"), FMN(norm="l2"), DDN(), CarliniWagner()]
    + [CarliniWagner(n_restarts=20), HopSkipJump(norm="l2")],
    "l1": [FAB(norm="l1"), FMN(norm="l1")],
    "l0": [FMN(norm="l0"), SigmaZero()],
}


def at_one_eps(module, X, y):
    rows = []
    for name, attack in AT_ONE_EPS.items():
        attack.set_params(bounds=(0, 1), random_state=0)
        withstood = ~attack.run(module, X, y, stop_on_success=True).success
        rows.append([name, f"{100 * np.mean(withstood):.1f} %"])
    return table(["attack", "robust accuracy"], rows)


def nearest(module, X, y):
    rows = []
    for norm, attacks in NEAREST.items():
        for attack in attacks:
            shown = repr(attack)
            attack.set_params(bounds=(0, 1), random_state=0)
            found = judge(module, X, y, attack.perturb(module, X, y), norm, minimal=True)
            rows.append([norm, shown, f"{found['median_norm']:.4g}"])
            rows[-1].append(f"{100 * found['success_rate']:.0f} %")
    return table(["norm", "attack", "median norm", "found"], rows)


def main():
    X, y = mnist("test", N_POINTS)
    module = reference_cnn().eval()
    few = module, X[:N_NEAREST], y[:N_NEAREST]
    return (
        f"First {N_POINTS:,} test images of MNIST.\n\n{at_one_eps(module, X, y)}\n\n"
        f"The closest adversarial points of the first {N_NEAREST}, with the default settings but "
        f"for what is shown.\n\n{nearest(*few)}\n"
    )
