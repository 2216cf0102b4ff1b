"""AutoAttack on the reference target: verdicts and cost of "fast" and "standard"."""

import time
from statistics import median

from skrobust.attacks import AutoAttack

from . import _models
from ._tools import mnist, reference_cnn, table, threads
from .peers import absent, available, measure

N_POINTS, SEEDS = 1000, (0, 1, 2)
N_TIMED, ROUNDS = 200, 3
EPS = {norm: _models.EPS["reference"][norm] for norm in ("linf", "l2", "l1")}
TIMED_PEER = "torchattacks"


def attacked(version, norm, module, X, y, seed=0):
    """Which points stand, and the CPU seconds that it took."""
    attack = AutoAttack(eps=EPS[norm], norm=norm, bounds=(0, 1), version=version, random_state=seed)
    start = time.process_time()
    fallen = attack.run(module, X, y).success
    return ~fallen, time.process_time() - start


def verdicts(module, X, y):
    rows = []
    for norm, eps in EPS.items():
        for seed in SEEDS:
            (standard, _), (fast, _) = (
                attacked(version, norm, module, X, y, seed) for version in ("standard", "fast")
            )
            shares = [
                f"{100 * part.mean():.1f}"
                for part in (
                    standard,
                    fast,
                    standard == fast,
                    fast & ~standard,
                    standard & ~fast,
                )
            ]
            firsts = " / ".join(f"{100 * standard[:n].mean():.1f}" for n in (100, 200))
            rows.append([f"{norm} {eps:g}", seed, *shares, firsts])
            print(rows[-1], flush=True)
    header = ["threat", "seed", "standard leaves, %", "fast leaves, %", "same verdict, %"]
    header += ["only standard finds, %", "only fast finds, %", "standard on first 100 / 200, %"]
    return table(header, rows)


def seconds(module, X, y):
    rows = []
    for norm, eps in EPS.items():
        ours = {"standard": [], "fast": []}
        peer = []
        for _ in range(ROUNDS):
            for version, times in ours.items():
                times.append(attacked(version, norm, module, X, y)[1])
            if norm != "l1" and TIMED_PEER in available():
                record = measure(TIMED_PEER, "AutoAttack", norm, module, X, y, eps=eps)
                peer.append(record["cpu_seconds"])
        standard, fast = (median(times) for times in ours.values())
        cells = [f"{median(peer):.1f}", f"{fast / median(peer):.2f}"] if peer else ["", ""]
        rows.append([f"{norm} {eps:g}", f"{standard:.1f}", f"{fast:.1f}", *cells])
        print(rows[-1], flush=True)
    header = ["threat", "standard, s", "fast, s", f"{TIMED_PEER} standard, s", "fast / that"]
    return table(header, rows)


def main():
    X, y = mnist("test", N_POINTS)
    module = reference_cnn().eval()
    with threads(1):
        return (
            f"First {N_POINTS:,} test images of MNIST.\n\n{verdicts(module, X, y)}\n\n"
            f"CPU seconds for the first {N_TIMED}, medians of {ROUNDS} interleaved rounds. "
            f"{' '.join(absent())}\n\n{seconds(module, X[:N_TIMED], y[:N_TIMED])}\n"
        )


if __name__ == "__main__":
    print(main())
