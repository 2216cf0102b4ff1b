"""Time of the attacks over that of the bare passes that they make, and over that of the peers.

A pass is bare where the parameters are frozen and nothing is computed but the network's outputs and
the gradient with respect to the input. Rounds are interleaved.
"""

import subprocess
import sys
from functools import partial

import torch

from skrobust.attacks import APGD, DDN, FAB, FMN, PGD, CarliniWagner, Square

from ._tools import mnist, ratio, reference_cnn, table, threads
from .peers import PEERS, absent, available, run_peer

N_POINTS, ROUNDS = 256, 5

# attack of the peers, norm, ours, eps (None: the closest point)
RUNS = [
    ("PGD", "linf", PGD(n_steps=40), 0.3),
    ("PGD", "l2", PGD(n_steps=40), 2.0),
    ("PGD", "l1", PGD(n_steps=40), 10.0),
    ("APGD-ce", "linf", APGD(n_steps=40), 0.3),
    ("APGD-ce", "l2", APGD(n_steps=40), 2.0),
    ("APGD-ce", "l1", APGD(n_steps=40), 10.0),
    ("FAB", "linf", FAB(n_steps=20, n_target_classes=None), None),
    ("FAB", "l2", FAB(n_steps=20, n_target_classes=None), None),
    ("FAB", "l1", FAB(n_steps=20, n_target_classes=None), None),
    ("Square", "linf", Square(n_queries=400), 0.3),
    ("Square", "l2", Square(n_queries=400), 2.0),
    ("CarliniWagner", "l2", CarliniWagner(n_steps=20, n_restarts=2), None),
    ("DDN", "l2", DDN(n_steps=20, n_restarts=2), None),
    ("FMN", "linf", FMN(n_steps=20, n_restarts=2), None),
    ("FMN", "l2", FMN(n_steps=20, n_restarts=2), None),
    ("FMN", "l1", FMN(n_steps=20, n_restarts=2), None),
    ("FMN", "l0", FMN(n_steps=20, n_restarts=2), None),
]
# One raises an error. ART copies every batch to NumPy and back: it takes minutes, and was not the
# fastest but for PGD in l1.
LEFT_OUT = {"art"}
CRASH = {("torchattacks", "FAB", "l1")}


class Counted(torch.nn.Module):
    """Counts the points that go forward, and those that come back."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.n_forward = self.n_backward = 0

    def forward(self, x):
        self.n_forward += len(x)
        if x.requires_grad:
            x.register_hook(self._back)
        return self.module(x)

    def _back(self, grad):
        self.n_backward += len(grad)


def bare_passes(module, x, n_forward, n_backward):
    """So many passes over all points, of which some go back to the input."""
    for i in range(n_forward):
        n_now = (i + 1) * n_backward // n_forward - i * n_backward // n_forward
        if not n_now:
            with torch.no_grad():
                module(x)
            continue
        z = x.detach().requires_grad_()
        logits = module(z)
        direction = torch.ones_like(logits)
        for k in range(n_now):
            torch.autograd.grad(logits, z, direction, retain_graph=k + 1 < n_now)


def row_of(attack, norm, ours, eps, module, X, y):
    ours.set_params(norm=norm, bounds=(0, 1), eps=eps, random_state=0)
    counted = Counted(module).eval()
    ours.perturb(counted, X, y)
    # To the point on which all of them have the same number of passes.
    n_forward, n_backward = (round(n / len(X)) for n in (counted.n_forward, counted.n_backward))
    x = torch.from_numpy(X)
    cells = [attack, norm, n_forward, n_backward]
    for n_threads in (1, 2):
        with threads(n_threads):
            quotient, *_ = ratio(
                lambda: ours.perturb(module, X, y),
                lambda: bare_passes(module, x, n_forward, n_backward),
                rounds=ROUNDS,
            )
        cells.append(f"{quotient:.2f}")
    steps = ours.n_queries if attack == "Square" else ours.n_steps * ours.n_restarts
    quotients = {}
    for library in PEERS.get((attack, norm), ()):
        if library in LEFT_OUT or library not in available() or (library, attack, norm) in CRASH:
            continue
        peer = partial(run_peer, library, attack, norm, module, X, y, eps=eps, n_steps=steps)
        with threads(1):
            quotients[library], *_ = ratio(lambda: ours.perturb(module, X, y), peer, rounds=2)
    fastest = max(quotients, key=quotients.get, default=None)
    return [*cells, f"{quotients[fastest]:.2f} ({fastest})" if fastest else ""]


MEMORY = """
from pathlib import Path
from benchmarks._tools import mnist, reference_cnn
from skrobust.attacks import *

def peak():
    # Not ru_maxrss: it begins with what the parent process holds.
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024

X, y = mnist("test", {n_points})
module, attack = reference_cnn().eval(), {attack}
attack.set_params(bounds=(0, 1), random_state=0).perturb(module, X[:32], y[:32])
before = peak()
attack.perturb(module, X, y)
print(peak() - before)
"""


def memory():
    """Peak memory of attacks by the number of images, in MiB, above that for 32 images."""
    rows = []
    for attack in [
        "PGD(eps=0.3, n_steps=2)",
        'APGD(eps=10, norm="l1", n_steps=10)',
        'FAB(norm="l1", n_steps=2)',
        'FMN(norm="l1", n_steps=2, n_restarts=2)',
        "CarliniWagner(n_steps=2, n_restarts=2)",
        "Square(eps=0.3, n_queries=50)",
        'HopSkipJump(norm="l2", max_queries=150)',
    ]:
        cells = []
        for n_points in (512, 2048, 8192):
            code = MEMORY.format(n_points=n_points, attack=attack)
            peak = subprocess.check_output([sys.executable, "-W", "ignore", "-c", code])
            cells.append(f"{float(peak):.0f}")
        rows.append([attack, *cells])
    return table(["attack", "512 images", "2,048 images", "8,192 images"], rows)


def main():
    X, y = mnist("test", N_POINTS + 20)
    module = reference_cnn().eval().requires_grad_(False)
    # Those that are wrong from the start would be dropped.
    with torch.no_grad():
        right = (module(torch.from_numpy(X)).argmax(1).numpy() == y).nonzero()[0][:N_POINTS]
    X, y = X[right], y[right]
    header = ["attack", "norm", "forward", "back", "1 thread", "2 threads"]
    header.append("fastest peer, 1 thread")
    rows = []
    for run in RUNS:
        rows.append(row_of(*run, module, X, y))
        print(rows[-1], flush=True)
    return (
        f"{N_POINTS} points of the reference target in one batch: passes a point, time over that "
        "of the bare passes, and over that of the fastest peer at the same number of steps. "
        + " ".join(absent())
        + f"\n\n{table(header, rows)}\n\nPeak memory above that for 32 images, in MiB; 8,192 "
        f"images take 24.5 themselves.\n\n{memory()}\n"
    )


if __name__ == "__main__":
    print(main())
