"""Procedures that turn votes into certificates."""

from numbers import Real
from typing import NamedTuple

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

# Values of SmoothedCertificate.reason.
CERTIFIED, NO_MAJORITY = "certified", "no majority"
OUT_OF_REACH, UNDECIDED = "out of reach", "undecided"

# Least number of votes before the top class is selected, or a radius is tested.
_LEAST_VOTES = 24


class Settings(NamedTuple):
    """Parameters of :class:`SmoothedClassifier` that the procedures need.

    ``runner_up`` says whether each class gets a bound of its own.
    """

    n_selection: int
    n_samples: int
    alpha: float
    runner_up: bool


class Outcome(NamedTuple):
    """Result of a procedure, one value for each row; see :class:`SmoothedCertificate`.

    ``top`` is the index of the top class.
    """

    top: np.ndarray
    radius: np.ndarray
    p_lower: np.ndarray
    n_samples: np.ndarray
    reason: np.ndarray


def check_radius(radius):
    """Return the radius as a float; raise a ValueError if it is not a valid radius."""
    if not (isinstance(radius, Real) and np.isfinite(radius) and float(radius) >= 0):
        raise ValueError(
            "radius must be None or a number that is not negative, in the norm of the certificate; "
            f"got {radius!r}."
        )
    return float(radius)


def check_n_samples(noise, settings, radius=None, norm_factor=1.0):
    """Raise a ValueError if ``n_samples`` votes cannot certify anything, even if all agree.

    ``radius`` is in the norm of the noise; ``norm_factor`` converts it for the message.
    """
    if noise.n_points_ is not None:
        return
    _, n_samples, alpha, runner_up = settings
    needed = _least_samples(noise, radius, alpha / 2 if runner_up else alpha)
    wanted = "anything" if radius is None else f"radius={radius * norm_factor:g}"
    if needed is None:
        raise ValueError(
            f"{wanted} is more than {type(noise).__name__} with sigma={noise.sigma_:g} can "
            "certify, with any number of votes. Take a larger sigma, or a smaller radius."
        )
    if n_samples < needed:
        raise ValueError(
            f"n_samples={n_samples} of SmoothedClassifier cannot certify {wanted} at "
            f"alpha={alpha:g}, even if all votes agree. Set n_samples to {needed} or more, or take "
            "a larger alpha."
        )


def _least_samples(noise, radius, alpha):
    """Return the least number of votes that can certify a radius; None if no number can."""
    threshold = noise.threshold(0.0 if radius is None else radius)
    if threshold >= 1:
        return None
    if radius is None:
        return trials_needed(threshold, alpha)
    return ThresholdTest.least_n_max(threshold, alpha)


def certify_votes(vote_counter, noise, radius, settings):
    """Certify by the procedure for this noise and this radius.

    Returns
    -------
    outcome : Outcome

    test : str
        Name of the statistical test.
    """
    if noise.n_points_ is not None:
        return certify_by_enumeration(vote_counter, noise, radius), "exact"
    if radius is None:
        return certify_largest_radius(vote_counter, noise, settings), "Clopper-Pearson"
    outcome = certify_one_radius(vote_counter, noise, radius, settings)
    return outcome, "confidence sequence" if settings.runner_up else "betting"


def select_classes(vote_counter, n_selection, n_first):
    """Select the top class of each row by ``n_selection`` votes.

    If the first ``n_first`` votes agree, no more votes are counted.

    Returns
    -------
    top : int64 ndarray
        Class indices.

    n_top, n : int64 ndarrays
        Number of votes for the top class, and number of votes among which it was selected.

    n_used : int64 ndarray
        Number of votes that were counted.
    """
    rows = np.arange(len(vote_counter.x))
    counts = vote_counter.count(rows, 0, n_first)
    n_used = np.full(len(rows), n_first)
    divided = rows[counts.max(axis=1) < n_first]
    if n_first < n_selection and len(divided):
        # Start again at the first vote, so that these are the votes that `predict` counts.
        counts[divided] = vote_counter.count(divided, 0, n_selection)
        n_used[divided] += n_selection
    top = counts.argmax(axis=1)
    return top, counts[rows, top], counts.sum(axis=1), n_used


def certify_largest_radius(vote_counter, noise, settings):
    """Certify the largest possible radius, by a fixed number of votes."""
    n_selection, n_samples, alpha, runner_up = settings
    rows = np.arange(len(vote_counter.x))
    top, *_ = select_classes(vote_counter, n_selection, n_selection)
    counts = vote_counter.count(rows, n_selection, n_selection + n_samples)
    if runner_up:
        p_lower, rival_upper = fixed_bounds(counts, top, n_samples, alpha)
        radius = noise.radius(p_lower, rival_upper)
    else:
        p_lower = clopper_pearson_lower(counts[rows, top], n_samples, alpha)
        rival_upper = 1 - p_lower
        radius = noise.radius(p_lower)
    certified = (p_lower > rival_upper) & (radius >= 0)
    n_used = np.full(len(rows), n_selection + n_samples)
    reason = np.where(certified, CERTIFIED, NO_MAJORITY)
    return Outcome(top, np.where(certified, radius, 0.0), p_lower, n_used, reason)


def fixed_bounds(counts, top, n, alpha):
    """Return a lower bound for the top class, and one upper bound for all other classes.

    Each of the two gets half of alpha.
    """
    rows = np.arange(len(counts))
    p_lower = clopper_pearson_lower(counts[rows, top], n, alpha / 2)
    # All other classes share alpha / 2. The runner-up has the largest of their bounds.
    runner_up = _most_votes_of_others(counts, top)
    rival_upper = clopper_pearson_upper(runner_up, n, alpha / 2 / (counts.shape[1] - 1))
    return p_lower, np.minimum(rival_upper, 1 - p_lower)


def _most_votes_of_others(counts, top):
    others = counts.copy()
    others[np.arange(len(counts)), top] = -1
    return others.max(axis=1)


def certify_one_radius(vote_counter, noise, radius, settings):
    """Certify one radius, by as many votes as each row needs for a decision."""
    n_selection, n_samples, alpha, runner_up = settings
    threshold = noise.threshold(radius)
    # Select an easy class by no more votes than its certificate takes.
    n_first = min(n_selection, max(_LEAST_VOTES, trials_needed(threshold, alpha)))
    top, n_top, n_guess, n_selected = select_classes(vote_counter, n_selection, n_first)
    if runner_up:
        test: ThresholdTest | RunnerUpTest = RunnerUpTest(noise, radius, alpha, n_samples, top)
    else:
        test = ThresholdTest(threshold, alpha, n_samples, (n_top, n_guess))
    decision, p_lower, n_used = _run_test(test, vote_counter, top, n_selection)
    certified = decision > 0
    p_lower[~certified] = 0.0
    reason = np.where(certified, CERTIFIED, np.where(n_used < n_samples, OUT_OF_REACH, UNDECIDED))
    return Outcome(top, np.where(certified, radius, 0.0), p_lower, n_selected + n_used, reason)


def _run_test(test, vote_counter, top, start):
    """Count votes, from number ``start``, until the test has decided about each row.

    Returns
    -------
    decision, p_lower, n_used : ndarrays
    """
    n_rows = len(top)
    decision, n_used = np.zeros(n_rows, dtype=np.int64), np.zeros(n_rows, dtype=np.int64)
    p_lower = np.zeros(n_rows)
    counts = np.zeros((n_rows, vote_counter.n_classes), dtype=np.int64)
    active, n = np.arange(n_rows), 0
    for look in test.looks():
        counts[active] += vote_counter.count(active, start + n, start + look)
        n = look
        decided, proved = test.decide(counts[active, top[active]], n, counts[active])
        n_used[active], decision[active], p_lower[active] = n, decided, proved
        undecided = decided == 0
        active, test = active[undecided], test.take(undecided)
        if len(active) == 0:
            break
    return decision, p_lower, n_used


class RunnerUpTest:
    """Sequential test of a radius, by bounds for the top class and for all other classes.

    It spends alpha as :class:`~skrobust.smoothing._confidence.ThresholdTest` does. It uses
    confidence sequences in place of bets, because every class can become the runner-up.

    Parameters
    ----------
    noise : Noise
        Fitted distribution.

    radius : float
        Radius to certify, in the norm of the noise.

    alpha, n_max
        As in ThresholdTest.

    top : int ndarray of shape (n_rows,)
        Indices of the top classes.
    """

    def __init__(self, noise, radius, alpha, n_max, top):
        self.noise, self.radius, self.alpha, self.n_max, self.top = noise, radius, alpha, n_max, top

    def take(self, rows):
        return RunnerUpTest(self.noise, self.radius, self.alpha, self.n_max, self.top[rows])

    def looks(self):
        return growing_looks(min(self.n_max, _LEAST_VOTES), self.n_max)

    def decide(self, successes, n, counts):
        """Decide after ``n`` votes; returns what ``ThresholdTest.decide`` returns."""
        share = EARLY * self.alpha / 2
        runner_up = _most_votes_of_others(counts, self.top)
        p_lower, p_upper = confidence_sequence(successes, n, share)
        rival_lower, rival_upper = confidence_sequence(runner_up, n, share / (counts.shape[1] - 1))
        above = self._reaches(p_lower, np.minimum(rival_upper, 1 - p_lower))
        if n >= self.n_max:
            at_end = fixed_bounds(counts, self.top, n, (1 - EARLY) * self.alpha)
            p_lower = np.where(above, p_lower, at_end[0])
            return np.where(above | self._reaches(*at_end), 1, -1), p_lower
        possible = self._reaches(p_upper, np.minimum(rival_lower, 1 - p_upper))
        return np.where(above, 1, np.where(possible, 0, -1)), p_lower

    def _reaches(self, p, rival):
        """Return whether these probabilities of the top class and of a rival give the radius."""
        return (p > rival) & (self.noise.radius(p, rival) >= self.radius)


def certify_by_enumeration(vote_counter, noise, radius):
    """Certify exactly, by the votes of all noisy points of a finite distribution."""
    rows = np.arange(len(vote_counter.x))
    n = noise.n_points_
    counts = vote_counter.count(rows, 0, n)
    top, largest = counts.argmax(axis=1), noise.radius_of_votes(counts)
    reason = np.full(len(rows), CERTIFIED, dtype=object)
    if radius is not None:
        # Radii are multiples of the grid step up to rounding errors.
        too_small = largest * (1 + 1e-9) < radius
        reason[too_small] = OUT_OF_REACH
        largest = np.where(too_small, 0.0, radius)
    return Outcome(top, largest, counts[rows, top] / n, np.full(len(rows), n), reason.astype(str))
