"""How sure a count of votes makes us: confidence bounds for one n, and tests for any.

The votes for a class under noise are independent and 1 with an unknown probability p. All functions
take arrays of counts and work on them element by element.
"""

from copy import copy

import numpy as np
from scipy.special import betainc, betaincc, betaincinv, betaln, xlog1py, xlogy

# Jeffreys' prior: no opinion about p.
_A, _B = 0.5, 0.5

# How a sequential test spends its alpha: this share at any time, and the rest at the end. The more
# of it is spent early, the fewer votes the easy cases take, and the more of the hard ones are lost
# that the test at the end would have found.
EARLY = 0.6

# When a sequential test gives up: where it is this sure that p is below what the test at the end
# would find with this probability. Stricter rules cost many votes and win next to nothing.
_FUTILITY, _POWER = 0.05, 0.99

# A prior with less mass than this on the side of its test says nothing that counts there.
_LEAST_MASS = 1e-9

# Looks of a sequential test: each has this share more votes than the last. Looking is cheap, and
# votes beyond those that a decision needs are lost: on average half of this share.
_GROWTH = 0.12


def clopper_pearson_lower(successes, n, alpha):
    """Lower confidence bound of a probability after a fixed number of trials.

    Parameters
    ----------
    successes : int array
        Number of successes.

    n : int or int array
        Number of trials, chosen before any was seen.

    alpha : float or array
        Probability that the bound is too high, at most.

    Returns
    -------
    lower : ndarray
        The bound of Clopper and Pearson [1]_: exact for the binomial distribution. An array of the
        broadcast shape.

    References
    ----------
    .. [1] C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in
       the case of the binomial", Biometrika 26, 1934.
    """
    successes, n = np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    lower = betaincinv(np.maximum(successes, 1), n - successes + 1, alpha)
    return np.where(successes > 0, lower, 0.0)


def clopper_pearson_upper(successes, n, alpha):
    """Upper confidence bound after a fixed number of trials: see the lower one."""
    return 1.0 - clopper_pearson_lower(np.asarray(n) - np.asarray(successes), n, alpha)


def confidence_sequence(successes, n, alpha):
    """Confidence interval of a probability that holds at all numbers of trials at the same time.

    Parameters
    ----------
    successes, n : int arrays
        Successes and trials so far.

    alpha : float
        Probability that the interval ever misses p, over all n from 0 to infinity.

    Returns
    -------
    lower, upper : ndarrays

    Notes
    -----
    Were p the probability, the likelihood of the votes mixed over Jeffreys' prior, divided by their
    likelihood under p, would be a martingale that starts at 1: by Ville's inequality it ever
    reaches 1 / alpha with a probability of at most alpha [1]_. The interval holds the p for which
    it has not. One can stop when it suits, and look at every vote.

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
        np.where(n > 0, _last_excluded(excluded, np.full(s.shape, end), centre), end)
        for end in (0.0, 1.0)
    )


def _last_excluded(excluded, outside, inside):
    """Bisection between a point that may be excluded and one that is not; rounds outward."""
    hopeless = ~excluded(outside)  # nothing is excluded, not even the end
    end = outside
    for _ in range(60):
        middle = (outside + inside) / 2
        out = excluded(middle)
        outside, inside = np.where(out, middle, outside), np.where(out, inside, middle)
    return np.where(hopeless, end, outside)


def trials_needed(p, alpha):
    """Least number of trials, all of them successes, after which a lower bound exceeds ``p``."""
    return int(np.floor(np.log(alpha) / np.log(p))) + 1


class ThresholdTest:
    """Sequential test whether a probability is above a threshold, that stops when it knows.

    Parameters
    ----------
    p0 : float
        Threshold, in (0, 1).

    alpha : float
        Probability of "above" where it is not, at most, whenever one stops.

    n_max : int
        Number of trials after which the test ends.

    guess : pair of int arrays (successes, n)
        Trials seen before the test, independent of those to come. They choose what the test bets
        on: a good guess makes it short, and a bad one does not make it wrong.

    Notes
    -----
    The null hypothesis is p <= p0. Who bets that p is p' > p0 multiplies his wealth by p' / p0
    after a success and by (1 - p') / (1 - p0) after a failure; under the null it is a non-negative
    supermartingale, for every mixture over p' > p0, too. Here the mixture is a beta distribution
    cut off below p0, with the parameters that Bayes' rule gives from the guess. By Ville's
    inequality the wealth ever reaches 1 / (0.6 alpha) with a probability of at most 0.6 alpha [1]_,
    [2]_. The rest of alpha is kept for the end: after ``n_max`` trials the exact binomial test at
    0.4 alpha decides. It finds what a martingale, which must hold at all times, is too weak for.
    By the union bound both together err with a probability of at most alpha, whatever the rule of
    stopping.

    The other way round, a test by betting on p' < p1 stops for futility. There p1 is the p at which
    the test at the end says "above" with a probability of 99 %. Where p is p1 or more, it gives up
    with a probability of at most 5 %. That costs certificates, and never makes one wrong.

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
        self.needed = _critical_count(p0, (1 - EARLY) * alpha, n_max)
        self.first_look = min(n_max, trials_needed(p0, EARLY * alpha))
        self.wealth_needed = -np.log(EARLY * alpha)
        self.above = _Bets(a, b, p0, betaincc)
        p1 = betaincinv(self.needed, n_max - self.needed + 1, _POWER)
        self.below = _Bets(a, b, p1, betainc)

    @staticmethod
    def least_n_max(p0, alpha):
        """The least ``n_max`` with which the test can ever say "above"."""
        return trials_needed(p0, (1 - EARLY) * alpha)

    def take(self, rows):
        """The test of some of the probabilities."""
        part = copy(self)
        part.above, part.below = self.above.take(rows), self.below.take(rows)
        return part

    def decide(self, successes, n, counts=None):
        """What is known after ``n`` trials.

        Parameters
        ----------
        successes : int array
            Successes so far.

        n : int
            Trials so far.

        counts : ignored
            Votes of all classes, for tests that look at them.

        Returns
        -------
        known : int array
            1 for "above", -1 for "hopeless", 0 for neither yet.

        proven : float
            The lower bound where it is "above": the threshold.
        """
        successes = np.asarray(successes)
        above = self.above.log_wealth(successes, n) >= self.wealth_needed
        if n >= self.n_max:
            return np.where(above | (successes >= self.needed), 1, -1), self.p0
        below = self.below.log_wealth(successes, n) >= -np.log(_FUTILITY)
        return np.where(above, 1, np.where(below, -1, 0)), self.p0

    def looks(self):
        """Numbers of trials at which to decide: growing steps, from the first that can tell."""
        return growing_looks(self.first_look, self.n_max)


def growing_looks(n, n_max):
    """Numbers of trials from ``n`` to ``n_max`` in growing steps."""
    while n < n_max:
        yield n
        n += max(8, int(n * _GROWTH))
    yield n_max


class _Bets:
    """Bets on one side of a threshold, mixed by a beta distribution that is cut off there."""

    def __init__(self, a, b, p, mass):
        self.p, self.mass = p, mass
        vain = mass(a, b, p) < _LEAST_MASS
        self.a, self.b = np.where(vain, _A, a), np.where(vain, _B, b)

    def take(self, rows):
        part = copy(self)
        part.a, part.b = self.a[rows], self.b[rows]
        return part

    def log_wealth(self, successes, n):
        failures = n - successes
        a, b = self.a + successes, self.b + failures
        with np.errstate(divide="ignore"):  # the logarithm of no mass at all is right
            gained = np.log(self.mass(a, b, self.p)) - np.log(self.mass(self.a, self.b, self.p))
        gained += betaln(a, b) - betaln(self.a, self.b)
        return gained - xlogy(successes, self.p) - xlog1py(failures, -self.p)


def _critical_count(p0, alpha, n):
    """Least number of successes in n trials that has a probability of at most alpha under p0."""
    low, high = 0, n + 1  # P(at least n + 1) = 0
    while high - low > 1:
        middle = (low + high) // 2
        if betainc(middle, n - middle + 1, p0) <= alpha:
            high = middle
        else:
            low = middle
    return high
