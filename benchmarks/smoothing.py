"""Certificates by smoothing: votes and time beside the plain method, and tabular data."""

import time
from functools import partial

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from scipy.stats import beta, norm
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OrdinalEncoder

from skrobust import SmoothedClassifier
from skrobust.metrics import certified_accuracy_score
from skrobust.smoothing import FlipNoise

from ._tools import DATA, lenet, mnist, ratio, reference_lenet, table, threads

SIGMA, ALPHA, N_SELECTION, N_SAMPLES = 0.5, 0.001, 100, 100_000
RADII = (0.25, 0.5, 1.0)
EVERY, EVERY_TIMED = 20, 1000


def plain_counts(module, x, n, batch_size=1000):
    """Votes as in the paper: a loop over batches of copies of the image with noise."""
    counts = np.zeros(10, dtype=int)
    with torch.no_grad():
        for first in range(0, n, batch_size):
            copies = x.repeat(min(batch_size, n - first), 1, 1, 1)
            votes = module(copies + torch.randn_like(copies) * SIGMA).argmax(1)
            counts += np.bincount(votes.numpy(), minlength=10)
    return counts


def plain_radius(module, x):
    """Label and radius (zero: abstained) by Algorithm 1 of Cohen et al. (2019)."""
    label = plain_counts(module, x, N_SELECTION).argmax()
    n_label = plain_counts(module, x, N_SAMPLES)[label]
    p_lower = beta.ppf(ALPHA, n_label, N_SAMPLES - n_label + 1)
    return label, SIGMA * max(0.0, norm.ppf(p_lower))


def fixed_n():
    """Time a sample for a fixed number of votes, over the fastest pass and the plain method."""
    module = reference_lenet()
    X, _ = mnist("test")
    X = X[::2500]
    n = 10_000
    clf = SmoothedClassifier(module, sigma=SIGMA, n_samples=n, random_state=0).fit(X)
    fastest = lenet()
    fastest.load_state_dict(module.state_dict())
    fastest = fastest.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    noisy = torch.randn(334, 1, 28, 28).mul_(SIGMA).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def passes():
        for _ in range(len(X) * (n + N_SELECTION) // len(noisy)):
            fastest(noisy)

    def plain():
        for x in torch.from_numpy(X):
            plain_counts(module, x, n + N_SELECTION)

    rows = []
    for n_threads in (1, 2):
        with threads(n_threads):
            to_passes, *_ = ratio(partial(clf.certify, X), passes, rounds=5)
            to_plain, _, seconds = ratio(partial(clf.certify, X), plain, rounds=3)
        microseconds = f"{seconds / len(X) / (n + N_SELECTION) * 1e6:.0f}"
        rows.append([n_threads, microseconds, f"{to_passes:.2f}", f"{to_plain:.2f}"])
    return table(["threads", "us a sample", "time / passes in channels last", "time / plain"], rows)


def one_radius():
    """Deciding one radius, beside a fixed number of votes."""
    module = reference_lenet()
    X, _ = mnist("test")
    timed, X = X[::EVERY_TIMED], X[::EVERY]
    clf = SmoothedClassifier(
        module, sigma=SIGMA, alpha=ALPHA, n_samples=N_SAMPLES, random_state=0
    ).fit(X)
    start = time.perf_counter()
    for x in torch.from_numpy(timed):
        plain_radius(module, x)
    plain_seconds = (time.perf_counter() - start) / len(timed)
    decided = []
    for radius in RADII:
        start = time.perf_counter()
        decided.append((clf.certify(X, radius=radius), (time.perf_counter() - start) / len(X)))
    parts = Parallel(n_jobs=2)(delayed(clf.certify)(part) for part in np.array_split(X, 2))
    label, fixed_radius, abstained = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("label", "radius", "abstained")
    )
    rows = []
    for radius, (certificate, seconds) in zip(RADII, decided, strict=True):
        wanted = ~abstained & (fixed_radius >= radius)
        same = wanted == ~certificate.abstained
        same &= ~wanted | (label == certificate.label)
        rows.append(
            [
                radius,
                f"{100 * wanted.mean():.1f} %",
                f"{100 * same.mean():.1f} %",
                f"{certificate.n_samples.mean():.0f}",
                f"{1e3 * seconds:.1f} ms",
                f"1/{plain_seconds / seconds:.0f}",
            ]
        )
    header = ["radius", "certified at fixed n", "same", "mean samples", "an image", "time / plain"]
    return f"Plain method: {plain_seconds:.2f} s an image.\n\n" + table(header, rows)


def spambase():
    """Smoothed forests and boosting: certified accuracy of 500 points, and its time."""
    data = pd.read_csv(DATA / "spambase.csv")
    y = data.pop("spam").to_numpy()
    X = np.log1p(data.to_numpy(np.float64))
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.3, stratify=y, random_state=0
    )
    X_test, y_test = X_test[:500], y_test[:500]
    rows = []
    for inner in (
        RandomForestClassifier(min_samples_leaf=2, random_state=0),
        HistGradientBoostingClassifier(random_state=0),
    ):
        for noise, radii in (("gaussian", (0, 0.25, 0.5, 1.0)), ("uniform", (0, 0.25, 0.5, 0.75))):
            clf = SmoothedClassifier(
                inner, sigma=0.5, scale="std", noise=noise, n_samples=1000, random_state=0
            )
            seconds = [time.perf_counter()]
            clf.fit(X_train, y_train)
            seconds.append(time.perf_counter())
            curve = certified_accuracy_score(clf, X_test, y_test, radius=radii)
            seconds.append(time.perf_counter())
            rows.append(
                [
                    type(inner).__name__,
                    f"{noise}, {clf.noise_.norm}",
                    f"{100 * clf.score(X_test, y_test):.1f}",
                    " / ".join(f"{100 * score:.1f}" for score in curve),
                    " / ".join(map(str, radii)),
                    f"{np.diff(seconds)[0]:.0f} s",
                    f"{np.diff(seconds)[1]:.0f} s",
                ]
            )
    header = ["inside", "noise", "clean %", "certified %", "at radii", "fit", "certify 500"]
    return table(header, rows)


def adult():
    """Categories that are drawn anew: certified accuracy by the number of changed columns."""
    data = pd.read_csv(DATA / "adult.csv.gz")
    y = data.pop("income").to_numpy()
    categories = [name for name in data if not pd.api.types.is_numeric_dtype(data[name])]
    data[categories] = OrdinalEncoder().fit_transform(data[categories].astype(str))
    train, test, y_train, y_test = train_test_split(
        data.fillna(-1), y, train_size=15_000, test_size=500, stratify=y, random_state=0
    )
    rows = []
    for sigma in (0.2, 0.4, 0.6):
        clf = SmoothedClassifier(
            HistGradientBoostingClassifier(random_state=0),
            noise=FlipNoise(categories),
            sigma=sigma,
            n_augment=3,
            n_samples=1000,
            random_state=0,
        )
        start = time.perf_counter()
        clf.fit(train, y_train)
        curve = certified_accuracy_score(clf, test, y_test, radius=[0, 1, 2, 3])
        seconds = time.perf_counter() - start
        rows.append([sigma, *(f"{100 * score:.1f}" for score in curve), f"{seconds:.0f} s"])
    share = np.unique(y_test, return_counts=True)[1].max() / len(y_test)
    header = ["sigma", "0", "1", "2", "3", "fit and certify"]
    return (
        f"{len(categories)} categories, {data.shape[1]} columns; the larger class has "
        f"{100 * share:.1f} %.\n\n" + table(header, rows)
    )


def main():
    return (
        "### Fixed number of votes\n\n"
        f"`certify(X)` of the LeNet with sigma {SIGMA}, beside passes of the module over a batch "
        f"that is there already, and beside the plain method.\n\n{fixed_n()}\n\n"
        "### One radius\n\n"
        f"`certify(X, radius=r)` for every {EVERY}th test image of MNIST, and what {N_SAMPLES:,} "
        f"votes certify. Time beside the plain method on every {EVERY_TIMED}th.\n\n{one_radius()}"
        f"\n\n### spambase\n\nsigma 0.5 and radii in standard deviations, 1,000 votes, alpha "
        f"{ALPHA}.\n\n{spambase()}\n\n### adult\n\nCertified accuracy in % for 500 points whose "
        f"categories an attacker changes, by the number of columns; 1,000 votes, alpha {ALPHA}.\n\n"
        f"{adult()}\n"
    )


if __name__ == "__main__":
    print(main())
