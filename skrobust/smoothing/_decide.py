"""From votes to certificates: for one number of votes, for one radius, and without chance."""

import numpy as np

from ._confidence import (
    EARLY,
    ThresholdTest,
    clopper_pearson_lower,
    clopper_pearson_upper,
    confidence_sequence,
    growing_looks,
    trials_needed,
)

# What happened to a sample, in the words of Certificate.reason.
CERTIFIED, NO_MAJORITY = "certified", "no majority"
OUT_OF_REACH, UNDECIDED = "out of reach", "undecided"

# Fewer votes tell too little of which class has the most.
_LEAST_LOOK = 24


def least_samples(noise, radius, alpha):
    """Least number of votes that can certify a radius; None where no number can."""
    threshold = noise.threshold(0.0 if radius is None else radius)
    if threshold >= 1:
        return None
    if radius is None:
        return trials_needed(threshold, alpha)
    return ThresholdTest.least_n_max(threshold, alpha)


def choose(votes, n_selection, n_first):
    """Choose a class for each input: that with most of ``n_selection`` votes.

    Where the first ``n_first`` of them agree, no more are asked for.

    Returns
    -------
    top : int64 ndarray
        The class.

    n_top, n : int64 ndarrays
        How many votes it got, and of how many.

    n_used : int64 ndarray
        Number of votes that were counted.
    """
    rows = np.arange(len(votes.x))
    counts = votes.count(rows, 0, n_first)
    n_used = np.full(len(rows), n_first)
    divided = rows[counts.max(axis=1) < n_first]
    if n_first < n_selection and len(divided):
        # From the beginning: these are the votes that `predict` counts.
        counts[divided] = votes.count(divided, 0, n_selection)
        n_used[divided] += n_selection
    top = counts.argmax(axis=1)
    return top, counts[rows, top], counts.sum(axis=1), n_used


def bound_radius(votes, noise, *, n_selection, n_samples, alpha, runner_up):
    """Certificates of the largest radius, for one number of votes.

    Returns
    -------
    top, radius, p_lower, n_samples, reason : ndarrays
    """
    rows = np.arange(len(votes.x))
    top, *_ = choose(votes, n_selection, n_selection)
    counts = votes.count(rows, n_selection, n_selection + n_samples)
    if runner_up:
        p_lower, rival = fixed_bounds(counts, top, n_samples, alpha)
        radius = noise.radius(p_lower, rival)
    else:
        p_lower = clopper_pearson_lower(counts[rows, top], n_samples, alpha)
        rival = 1 - p_lower
        radius = noise.radius(p_lower)
    certified = (p_lower > rival) & (radius >= 0)
    n_used = np.full(len(rows), n_selection + n_samples)
    reason = np.where(certified, CERTIFIED, NO_MAJORITY)
    return top, np.where(certified, radius, 0.0), p_lower, n_used, reason


def fixed_bounds(counts, top, n, alpha):
    """Bounds for the top class and for all others: half of alpha for it, half for all of them."""
    rows = np.arange(len(counts))
    others = counts.copy()
    others[rows, top] = -1
    p_lower = clopper_pearson_lower(counts[rows, top], n, alpha / 2)
    # The bound of the class with most votes is the highest, and holds if all do.
    rival = clopper_pearson_upper(others.max(axis=1), n, alpha / 2 / (counts.shape[1] - 1))
    return p_lower, np.minimum(rival, 1 - p_lower)


def decide_radius(votes, noise, radius, *, n_selection, n_samples, alpha, runner_up):
    """Certificates of one radius, each with as many votes as it takes to know.

    Returns
    -------
    top, radius, p_lower, n_samples, reason : ndarrays
    """
    rows = np.arange(len(votes.x))
    threshold = noise.threshold(radius)
    # An easy class is chosen with no more votes than it then takes to certify it.
    n_first = min(n_selection, max(_LEAST_LOOK, trials_needed(threshold, alpha)))
    top, n_top, n_guess, n_chosen = choose(votes, n_selection, n_first)
    if runner_up:
        test: ThresholdTest | RunnerUpTest = RunnerUpTest(noise, radius, alpha, n_samples, top)
    else:
        test = ThresholdTest(threshold, alpha, n_samples, (n_top, n_guess))
    n_used = np.zeros(len(rows), dtype=np.int64)
    p_lower = np.zeros(len(rows))
    outcome = np.zeros(len(rows), dtype=np.int64)
    counts = np.zeros((len(rows), votes.n_classes), dtype=np.int64)
    active, n = rows, 0
    for look in test.looks():
        counts[active] += votes.count(active, n_selection + n, n_selection + look)
        n = look
        known, proven = test.decide(counts[active, top[active]], n, counts[active])
        n_used[active], outcome[active], p_lower[active] = n, known, proven
        open_ = known == 0
        active, test = active[open_], test.take(open_)
        if len(active) == 0:
            break
    reason = np.where(outcome > 0, CERTIFIED, np.where(n_used < n_samples, OUT_OF_REACH, UNDECIDED))
    certified = outcome > 0
    p_lower[~certified] = 0.0
    return top, np.where(certified, radius, 0.0), p_lower, n_chosen + n_used, reason


class RunnerUpTest:
    """Sequential test of a radius by bounds for the top class and for all others.

    It spends alpha as :class:`~skrobust.smoothing._confidence.ThresholdTest` does, and has no bets
    to place: a class that is not yet known as the runner-up may still become it.
    """

    def __init__(self, noise, radius, alpha, n_max, top):
        self.noise, self.wanted, self.alpha, self.n_max, self.top = noise, radius, alpha, n_max, top

    def take(self, rows):
        return RunnerUpTest(self.noise, self.wanted, self.alpha, self.n_max, self.top[rows])

    def looks(self):
        return growing_looks(min(self.n_max, _LEAST_LOOK), self.n_max)

    def decide(self, successes, n, counts):
        """What is known after ``n`` votes, and a bound for the top class, as of ThresholdTest."""
        rows = np.arange(len(counts))
        others = counts.copy()
        others[rows, self.top] = -1
        most = others.max(axis=1)
        share = EARLY * self.alpha / 2
        p_lower, p_upper = confidence_sequence(successes, n, share)
        rival_lower, rival_upper = confidence_sequence(most, n, share / (counts.shape[1] - 1))
        above = self._reaches(p_lower, np.minimum(rival_upper, 1 - p_lower))
        if n >= self.n_max:
            at_end = fixed_bounds(counts, self.top, n, (1 - EARLY) * self.alpha)
            p_lower = np.where(above, p_lower, at_end[0])
            return np.where(above | self._reaches(*at_end), 1, -1), p_lower
        hopeful = self._reaches(p_upper, np.minimum(rival_lower, 1 - p_upper))
        return np.where(above, 1, np.where(hopeful, 0, -1)), p_lower

    def _reaches(self, p, rival):
        return (p > rival) & (self.noise.radius(p, rival) >= self.wanted)


def enumerate_points(votes, noise, radius):
    """Certificates without chance, where the noise is a list of points.

    Returns
    -------
    top, radius, p_lower, n_samples, reason : ndarrays
    """
    rows = np.arange(len(votes.x))
    n = noise.n_points_
    counts = votes.count(rows, 0, n)
    top, reached = counts.argmax(axis=1), noise.radius_of_votes(counts)
    reason = np.full(len(rows), CERTIFIED, dtype=object)
    if radius is not None:
        # Radii are multiples of a step, up to rounding.
        short = reached * (1 + 1e-9) < radius
        reason[short] = OUT_OF_REACH
        reached = np.where(short, 0.0, radius)
    return top, reached, counts[rows, top] / n, np.full(len(rows), n), reason.astype(str)
