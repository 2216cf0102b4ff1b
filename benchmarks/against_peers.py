"""Strength and cost beside other libraries: the same models, points, steps and judge.

What the peers achieve is measured once and kept in `peers.json`; delete that to measure again. Each
figure of theirs is of the best of them.
"""

import json
import time
from pathlib import Path

import numpy as np

from skrobust.attacks import (
    APGD,
    DDN,
    FAB,
    FGSM,
    FMN,
    PGD,
    AutoAttack,
    CarliniWagner,
    DeepFool,
    HopSkipJump,
    SigmaZero,
    Square,
)

from ._models import EPS, models
from ._tools import table
from .peers import MINIMUM_NORM, PEERS, absent, available, judge, measure

# attack, norms, points, steps (or queries) as the peers count them, options of the peers
RUNS = [
    ("FGSM", ("linf", "l2", "l1"), 1000, None, {}),
    ("PGD", ("linf", "l2", "l1"), 1000, 40, {}),
    ("APGD-ce", ("linf", "l2", "l1"), 1000, 100, {}),
    ("APGD-dlr", ("linf", "l2", "l1"), 1000, 100, {}),
    ("APGD-ce", ("l1",), 1000, 100, {"use_large_reps": True}),
    ("APGD-t", ("linf", "l2", "l1"), 200, 100, {}),
    ("APGD-t", ("l1",), 200, 100, {"use_large_reps": True}),
    ("Square", ("linf", "l2"), 200, 1000, {}),
    ("FAB", ("linf", "l2", "l1"), 200, 20, {}),
    ("FAB", ("linf", "l2", "l1"), 200, 100, {}),
    ("DDN", ("l2",), 500, 200, {}),
    ("FMN", ("linf", "l2", "l1", "l0"), 500, 200, {}),
    ("SigmaZero", ("l0",), 500, 200, {}),
    ("CarliniWagner", ("l2",), 200, 100, {}),
    ("DeepFool", ("linf", "l2"), 200, 50, {}),
    ("HopSkipJump", ("linf", "l2"), 50, 5, {}),
    ("AutoAttack", ("linf", "l2"), 100, None, {}),
]
# The normally trained CNN falls at once: fewer points tell as much.
FEWER = {("cnn", 1000): 500, ("cnn", 500): 200}


def ours(attack, norm, n_steps):
    """Our attack of that name, with the same steps or queries; else the defaults."""
    steps = {} if n_steps is None else {"n_steps": n_steps}
    makers = {
        "FGSM": lambda: FGSM(),
        "PGD": lambda: PGD(**steps),
        "APGD-ce": lambda: APGD(**steps),
        "APGD-dlr": lambda: APGD(loss="dlr", **steps),
        "APGD-t": lambda: APGD(loss="dlr", n_target_classes=9, **steps),
        "Square": lambda: Square(n_queries=n_steps),
        "FAB": lambda: FAB(**steps),
        # So many steps in all, in the runs of the defaults.
        "DDN": lambda: DDN(n_restarts=n_steps // 25),
        "FMN": lambda: FMN(n_restarts=n_steps // 25),
        "SigmaZero": lambda: SigmaZero(n_restarts=n_steps // 25),
        "CarliniWagner": lambda: CarliniWagner(n_restarts=n_steps // 50),
        "DeepFool": lambda: DeepFool(**steps),
        # About the queries that the peers make in five steps.
        "HopSkipJump": lambda: HopSkipJump(max_queries=1000),
        "AutoAttack": lambda: AutoAttack(),
    }
    return makers[attack]().set_params(norm=norm, bounds=(0, 1), random_state=0)


def measure_ours(attack, norm, module, X, y, eps, n_steps):
    minimal = attack in MINIMUM_NORM
    member = ours(attack, norm, n_steps).set_params(eps=None if minimal else eps)
    clock, cpu = time.perf_counter(), time.process_time()
    X_adv = member.perturb(module, X, y)
    cost = {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}
    return {**judge(module, X, y, X_adv, norm, eps, minimal=minimal), **cost}


class Peers:
    """What the peers achieve, from the cache or measured."""

    def __init__(self):
        self.path = Path(__file__).with_name("peers.json")
        records = json.loads(self.path.read_text()) if self.path.exists() else []
        self.records = {record["key"]: record for record in records}

    def measure(self, name, library, attack, norm, model, n, n_steps, options):
        key = f"{name}|{library}|{attack}|{norm}|{n}|{n_steps}|{options}"
        if key not in self.records and library not in available():
            return {}
        module, X, y = model
        return self.recall(
            name, key,
            lambda: measure(
                library, attack, norm, module, X[:n], y[:n],
                eps=EPS[name][norm], n_steps=n_steps, **options,
            ),
        )  # fmt: skip

    def recall(self, name, key, measure):
        """The record of that key, measured where there is none."""
        if key not in self.records:
            self.records[key] = {"model": name, "key": key, **measure()}
            self.path.write_text(json.dumps(list(self.records.values()), indent=1))
        return self.records[key]


def rows_of(name, model, peers, runs=RUNS):
    """One row of the table for every attack and norm that a peer has."""
    module, X, y = model
    rows = []
    for attack, norms, n, n_steps, options in runs:
        n = min(FEWER.get((name, n), n), len(X))
        for norm in norms:
            known = [
                peers.measure(name, library, attack, norm, model, n, n_steps, options)
                for library in PEERS.get((attack, norm), ())
                if not (options and library in ("art", "torchattacks"))
            ]
            known = [record for record in known if "robust_accuracy" in record]
            if not known:
                continue
            mine = measure_ours(attack, norm, module, X[:n], y[:n], EPS[name][norm], n_steps)
            rows.append(_row(attack, norm, n, n_steps, options, mine, known))
    return rows


def _row(attack, norm, n, n_steps, options, mine, known):
    strongest = min(known, key=lambda record: record["robust_accuracy"])
    cells = [
        attack + ("".join(f", {key}" for key in options) if options else ""),
        norm,
        n,
        "" if n_steps is None else n_steps,
        f"{100 * mine['robust_accuracy']:.1f}",
        f"{100 * strongest['robust_accuracy']:.1f} ({strongest['library']})",
    ]
    if attack in MINIMUM_NORM:
        medians = [
            (np.inf if record.get("median_norm") is None else record["median_norm"], record)
            for record in known
        ]
        median, nearest = min(medians, key=lambda pair: pair[0])
        cells += [
            f"{mine['median_norm']:.4g}",
            f"{median:.4g} ({nearest['library']})",
            f"{100 * mine['success_rate']:.0f}",
            f"{100 * max(record['success_rate'] for record in known):.0f}",
        ]
    else:
        cells += ["", "", "", ""]
    fastest = min(known, key=lambda record: record["cpu_seconds"])
    cells += [
        f"{mine['cpu_seconds']:.1f}",
        f"{fastest['cpu_seconds']:.1f} ({fastest['library']})",
    ]
    return cells


HEADER = [
    "attack",
    "norm",
    "points",
    "steps",
    "robust, %",
    "best peer",
    "median norm",
    "best peer",
    "found, %",
    "best peer",
    "CPU, s",
    "fastest peer",
]


def main():
    peers = Peers()
    parts = [
        "Robust accuracy at the eps given, median norm and share of points for which an "
        "adversarial example was found; all judged by the model's own argmax and by feasibility. "
        "The peers run with their defaults, at the same number of steps.\n"
    ]
    if absent():
        parts.append(" ".join([*absent(), "Only its kept figures are shown.\n"]))
    for name, model in models().items():
        eps = ", ".join(f"{norm} {value:g}" for norm, value in EPS[name].items())
        parts.append(f"### {name} ({eps})\n\n{table(HEADER, rows_of(name, model, peers))}\n")
    return "\n".join(parts)
