"""Strength and cost beside other libraries: the same models, points, steps and judge.

What the peers achieve is measured once for each model and kept in `peer_results/`; delete a file
to measure again. Each figure of theirs is of the best of them. `python -m benchmarks.against_peers
NAME ...` measures the peers on some of the models, which several processes can do at a time.
"""

import json
import sys
import time
from pathlib import Path

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

from ._models import EPS, fingerprint, models
from ._tools import table, threads
from .peers import MINIMUM_NORM, PEERS, absent, available, judge, measure

# attack, norms, steps (or queries) as the peers count them, options of the peers
RUNS = [
    ("FGSM", ("linf", "l2", "l1"), None, {}),
    ("PGD", ("linf", "l2", "l1"), 40, {}),
    ("APGD-ce", ("linf", "l2", "l1"), 100, {}),
    ("APGD-dlr", ("linf", "l2", "l1"), 100, {}),
    ("APGD-ce", ("l1",), 100, {"use_large_reps": True}),
    ("APGD-t", ("linf", "l2", "l1"), 100, {}),
    ("APGD-t", ("l1",), 100, {"use_large_reps": True}),
    ("Square", ("linf", "l2"), 1000, {}),
    ("FAB", ("linf", "l2", "l1"), 20, {}),
    ("FAB", ("linf", "l2", "l1"), 100, {}),
    ("DDN", ("l2",), 200, {}),
    ("FMN", ("linf", "l2", "l1", "l0"), 200, {}),
    ("SigmaZero", ("l0",), 200, {}),
    ("CarliniWagner", ("l2",), 100, {}),
    ("DeepFool", ("linf", "l2"), 50, {}),
    ("HopSkipJump", ("linf", "l2"), 5, {}),
    ("AutoAttack", ("linf", "l2"), None, {}),
]

# Where one point is much, or another seed makes more of a difference than the attacks: the figures
# are means over this number of seeds.
N_SEEDS = {"digits": 5, "spambase": 5, "mlp": 3}
SEVERAL_SEEDS = {"APGD-ce", "APGD-dlr"}


def seeds_of(name, attack):
    return range(N_SEEDS.get(name, 1) if attack in SEVERAL_SEEDS else 1)


def mean_of(records):
    """One record with the means of the figures; one with an error where any has."""
    failed = [record for record in records if "error" in record]
    if failed:
        return failed[0]
    figures = ("robust_accuracy", "median_norm", "success_rate", "seconds", "cpu_seconds")
    means = {key: sum(r[key] for r in records) / len(records) for key in figures}
    return {**records[0], **means}


def ours(attack, norm, n_steps, seed=0):
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
    return makers[attack]().set_params(norm=norm, bounds=(0, 1), random_state=seed)


def measure_ours(attack, norm, module, X, y, eps, n_steps, seed=0):
    minimal = attack in MINIMUM_NORM
    member = ours(attack, norm, n_steps, seed).set_params(eps=None if minimal else eps)
    clock, cpu = time.perf_counter(), time.process_time()
    X_adv = member.perturb(module, X, y)
    cost = {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}
    return {**judge(module, X, y, X_adv, norm, eps, minimal=minimal), **cost}


class Peers:
    """What the peers achieve on one model, from its file or measured.

    Parameters
    ----------
    name : str
        Of the model.

    mark : str
        Tells the model from others of that name: what was measured on those does not count.
    """

    def __init__(self, name, mark):
        self.path = Path(__file__).with_name("peer_results") / f"{name}.jsonl"
        self.mark = mark
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.records = {record["key"]: record for record in map(json.loads, lines)}
        if any(record["mark"] != mark for record in self.records.values()):
            self.records = {}

    def measure(self, library, attack, norm, eps, n_steps, options, model, seed=0):
        """The record of one attack of one library; None where that is not at hand."""
        module, X, y = model
        key = " ".join(map(str, (library, attack, norm, len(X), n_steps, *options)))
        if seed:
            key += f" seed {seed}"
            options = {**options, "random_state": seed}
        if key not in self.records and library not in available():
            return None
        with threads(1):
            return self.recall(
                key,
                lambda: measure(
                    library, attack, norm, module, X, y, eps=eps, n_steps=n_steps, **options
                ),
            )

    def recall(self, key, measure):
        """The record of that key, measured where there is none."""
        if key not in self.records:
            self.records[key] = {"key": key, "mark": self.mark, **measure()}
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_text("".join(json.dumps(r) + "\n" for r in self.records.values()))
        return self.records[key]


def peers_of(name, model):
    """What the peers achieve: ((attack, norm, steps, options), records) for every run."""
    peers = Peers(name, fingerprint(model[0]))
    for attack, norms, n_steps, options in RUNS:
        for norm in norms:
            run = attack, norm, EPS[name][norm], n_steps, options, model
            means = []
            for library in PEERS.get((attack, norm), ()):
                if options and library in ("art", "torchattacks"):
                    continue
                records = [peers.measure(library, *run, seed) for seed in seeds_of(name, attack)]
                if all(records):
                    means.append(mean_of(records))
            yield (attack, norm, n_steps, options), means


def rows_of(name, model):
    """One row of the table for every attack and norm that a peer has."""
    module, X, y = model
    rows, measured = [], {}
    for (attack, norm, n_steps, options), records in peers_of(name, model):
        known = [record for record in records if "error" not in record]
        if not known:
            continue
        key = attack, norm, n_steps
        if key not in measured:  # the options are the peers'
            run = attack, norm, module, X, y, EPS[name][norm], n_steps
            with threads(1):
                ours = [measure_ours(*run, seed) for seed in seeds_of(name, attack)]
            measured[key] = mean_of(ours)
        mine = measured[key]
        rows.append(_row(attack, norm, len(X), n_steps, options, mine, known))
        print(name, *rows[-1], flush=True)
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
        nearest = min(known, key=lambda record: record["median_norm"])
        cells += [
            f"{mine['median_norm']:.4g}",
            f"{nearest['median_norm']:.4g} ({nearest['library']})",
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
    parts = [
        "Robust accuracy at the eps given, median norm and share of points for which an "
        "adversarial example was found; all judged by the model's own argmax and by feasibility. "
        "The peers run with their defaults, at the same number of steps. APGD with one start is "
        "the mean of five seeds on digits and spambase, and of three on the MLP.\n"
    ]
    if absent():
        parts.append(" ".join([*absent(), "Only its kept figures are shown.\n"]))
    for name, model in models().items():
        eps = ", ".join(f"{norm} {value:g}" for norm, value in EPS[name].items())
        parts.append(f"### {name} ({eps})\n\n{table(HEADER, rows_of(name, model))}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    for name, model in models(sys.argv[1:]).items():
        for run, records in peers_of(name, model):
            print(name, run, f"{sum(r['cpu_seconds'] for r in records):.0f} s", flush=True)
