"""Confidence bounds of a probability: for a fixed number of votes, and for sequential tests.

The votes for a class under noise are independent Bernoulli trials with an unknown probability p of
success. All functions take arrays of counts and work on them element by element.
"""

from copy import copy

import numpy as np
from scipy.special import betainc, betaincc, betaincinv, betaln, xlog1py, xlogy

# Jeffreys' prior of p.
_A, _B = 0.5, 0.5

# Share of alpha that a sequential test spends on its looks. The test at the end spends the rest.
# With a larger share, easy cases need fewer votes, but the test at the end certifies fewer of the
# hard cases.
EARLY = 0.6

# A sequential test stops for futility if it is confident (at level _FUTILITY) that p is below the
# value at which the test at the end would succeed with probability _POWER. A stricter rule takes
# many more votes, and certifies hardly any more samples.
_FUTILITY, _POWER = 0.05, 0.99

# A prior with less mass than this on the alternative is replaced by Jeffreys' prior.
_LEAST_MASS = 1e-9

# Each look of a sequential test has this share more votes than the look before. A look is cheap.
# The votes beyond those that a decision needs are wasted: half of this share on average.
_GROWTH = 0.12


def clopper_pearson_lower(successes, n, alpha):
    """Return a lower confidence bound of a probability after a fixed number of trials.

    Parameters
    ----------
    successes : int array
        Number of successes.

    n : int or int array
        Number of trials, fixed in advance.

    alpha : float or array
        Largest probability that the bound is above p.

    Returns
    -------
    lower : ndarray
        The bound of Clopper and Pearson [1]_, which is exact for the binomial distribution. An
        array of the broadcast shape.

    References
    ----------
    .. [1] C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in
       the case of the binomial", Biometrika 26, 1934.
    """
    successes, n = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    lower = betaincinv(np.maximum(successes, 1), n - successes + 1, alpha)
    return np.where(successes > 0, lower, 0.0)


def clopper_pearson_upper(successes, n, alpha):
    """Return an upper confidence bound; see :func:`clopper_pearson_lower`."""
    return 1.0 - clopper_pearson_lower(np.asarray(n) - np.asarray(successes), n, alpha)


def confidence_sequence(successes, n, alpha):
    """Return a confidence interval that holds for all numbers of trials at the same time.

    Parameters
    ----------
    successes, n : int arrays
        Successes and trials so far.

    alpha : float
        Largest probability that the interval misses p for any n from 0 to infinity.

    Returns
    -------
    lower, upper : ndarrays

    Notes
    -----
    Divide the likelihood of the votes, averaged over Jeffreys' prior, by their likelihood under p.
    If p is the true probability, this ratio is a martingale that starts at 1. By Ville's inequality
    it ever reaches 1 / alpha with a probability of at most alpha [1]_. The interval contains every
    p whose ratio is below 1 / alpha. It therefore allows a look after every vote, and stopping at
    any time [2]_.

    References
    ----------
    .. [1] H. Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of
       Mathematical Statistics 41, 1970.
    .. [2] I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting",
       JRSS B 86, 2024.
    """
    s, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    f = n - s
    mixed = betaln(_A + s, _B + f) - betaln(_A, _B)

    def excluded(p):
        return mixed - xlogy(s, p) - xlog1py(f, -p) >= -np.log(alpha)

    centre = s / np.maximum(n, 1)
    return tuple(
        np.where(n > 0, _bisect_limit(excluded, np.full(s.shape, end), centre), end)
        for end in (0.0, 1.0)
    )


def _bisect_limit(excluded, outside, inside):
    """Return the last excluded point on the way from ``outside`` to ``inside``, by bisection.

    ``inside`` is not excluded. If ``outside`` is not excluded either, return ``outside``.
    """
    nothing_excluded = ~excluded(outside)
    end = outside
    for _ in range(60):
        middle = (outside + inside) / 2
        out = excluded(middle)
        outside, inside = np.where(out, middle, outside), np.where(out, inside, middle)
    return np.where(nothing_excluded, end, outside)


def trials_needed(p, alpha):
    """Return the least number of trials for a lower bound above ``p``, if all are successes."""
    return int(np.floor(np.log(alpha) / np.log(p))) + 1


class ThresholdTest:
    """Sequential test of whether a probability is above a threshold.

    Parameters
    ----------
    p0 : float
        Threshold, in (0, 1).

    alpha : float
        Largest probability of the decision "above" where p is not above, for any time of stopping.

    n_max : int
        Number of trials after which the test ends.

    guess : pair of int arrays (successes, n)
        Trials from before the test, independent of the trials of the test. They set the prior of
        the bets: a good guess makes the test short, and a bad guess does not make it wrong.

    Notes
    -----
    The null hypothesis is p <= p0. A bet on p' > p0 multiplies the wealth of the player by p' / p0
    after a success and by (1 - p') / (1 - p0) after a failure. Under the null hypothesis the wealth
    is a non-negative supermartingale, also for a mixture of bets over p' > p0. Here the mixture is
    a beta distribution, truncated below p0, with the parameters that Bayes' rule gives from the
    guess. By Ville's inequality the wealth ever reaches 1 / (0.6 alpha) with a probability of at
    most 0.6 alpha [1]_, [2]_.

    The rest of alpha is spent at the end: after ``n_max`` trials the exact binomial test at level
    0.4 alpha decides. It is stronger than the martingale, which has to hold at all times. By the
    union bound, both together are wrong with a probability of at most alpha, for every stopping
    rule.

    A second test, with bets on p' < p1, stops for futility. There p1 is the probability at which
    the test at the end decides "above" with a probability of 99 %. If p is p1 or more, the test
    stops with a probability of at most 5 %. This loses some certificates, and never makes one
    wrong.

    References
    ----------
    .. [1] J. Ville, "Étude critique de la notion de collectif", 1939.
    .. [2] I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting",
       JRSS B 86, 2024.
    """

    def __init__(self, p0, alpha, n_max, guess):
        successes, n = (np.asarray(part, dtype=np.float64) for part in guess)
        a, b = _A + successes, _B + n - successes
        self.p0, self.n_max = p0, n_max
        self.critical_count = _critical_count(p0, (1 - EARLY) * alpha, n_max)
        self.first_look = min(n_max, trials_needed(p0, EARLY * alpha))
        self.wealth_needed = -np.log(EARLY * alpha)
        self.above = _Bets(a, b, p0, betaincc)
        p1 = betaincinv(self.critical_count, n_max - self.critical_count + 1, _POWER)
        self.below = _Bets(a, b, p1, betainc)

    @staticmethod
    def least_n_max(p0, alpha):
        """Return the least ``n_max`` with which the test can decide "above"."""
        return trials_needed(p0, (1 - EARLY) * alpha)

    def take(self, rows):
        """Return the test for some of the probabilities."""
        part = copy(self)
        part.above, part.below = self.above.take(rows), self.below.take(rows)
        return part

    def looks(self):
        """Return the numbers of trials at which to decide, from the first that can succeed."""
        return growing_looks(self.first_look, self.n_max)

    def decide(self, successes, n, counts=None):
        """Decide after ``n`` trials.

        Parameters
        ----------
        successes : int array
            Successes so far.

        n : int
            Trials so far.

        counts : ignored
            Votes of all classes, for tests that use them.

        Returns
        -------
        decision : int array
            1 for "above", -1 for "give up", 0 to continue.

        p_lower : float
            Lower bound of the probability where the decision is "above": the threshold.
        """
        successes = np.asarray(successes)
        above = self.above.log_wealth(successes, n) >= self.wealth_needed
        if n >= self.n_max:
            return np.where(above | (successes >= self.critical_count), 1, -1), self.p0
        below = self.below.log_wealth(successes, n) >= -np.log(_FUTILITY)
        return np.where(above, 1, np.where(below, -1, 0)), self.p0


def growing_looks(n, n_max):
    """Yield numbers of trials from ``n`` to ``n_max``, in growing steps."""
    while n < n_max:
        yield n
        n += max(8, int(n * _GROWTH))
    yield n_max


class _Bets:
    """Bets on one side of a threshold, mixed by a beta distribution that is truncated there.

    ``mass(a, b, p)`` is the mass of the beta distribution on this side.
    """

    def __init__(self, a, b, p, mass):
        self.p, self.mass = p, mass
        negligible = mass(a, b, p) < _LEAST_MASS
        self.a, self.b = np.where(negligible, _A, a), np.where(negligible, _B, b)

    def take(self, rows):
        part = copy(self)
        part.a, part.b = self.a[rows], self.b[rows]
        return part

    def log_wealth(self, successes, n):
        failures = n - successes
        a, b = self.a + successes, self.b + failures
        with np.errstate(divide="ignore"):  # without any mass the wealth is 0, its logarithm -inf
            gained = np.log(self.mass(a, b, self.p)) - np.log(self.mass(self.a, self.b, self.p))
        gained += betaln(a, b) - betaln(self.a, self.b)
        return gained - xlogy(successes, self.p) - xlog1py(failures, -self.p)


def _critical_count(p0, alpha, n):
    """Return the least number of successes in ``n`` trials with probability <= alpha under p0."""
    low, high = 0, n + 1  # P(at least n + 1) = 0
    while high - low > 1:
        middle = (low + high) // 2
        if betainc(middle, n - middle + 1, p0) <= alpha:
            high = middle
        else:
            low = middle
    return high
