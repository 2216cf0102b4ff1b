"""The norms, and how they bound each other."""

from math import inf

ORDERS = {"linf": inf, "l2": 2, "l1": 1, "l0": 0}
NORMS = tuple(ORDERS)
LP_NORMS = ("linf", "l2", "l1")


def norm_factor(own, wanted, n_features):
    """Return the factor that converts certified radii from one norm to another.

    Parameters
    ----------
    own, wanted : {"linf", "l2", "l1", "l0"}
        Norm of the radii, and the norm to convert them to.

    n_features : int
        Number of features of a sample.

    Returns
    -------
    factor : float or None
        A ball of radius ``factor * r`` in ``wanted`` lies inside the ball of radius ``r`` in
        ``own``, and no larger one does. None where a radius in one norm says nothing about the
        other: exactly one of them is l0.

    Examples
    --------
    >>> from skrobust.threat import norm_factor
    >>> norm_factor("l2", "linf", 16)
    0.25
    """
    if own == wanted:
        return 1.0
    if "l0" in (own, wanted):
        return None
    # A norm of higher order is at most that of lower order, and at least this power of it.
    return float(n_features) ** min(0.0, 1 / ORDERS[wanted] - 1 / ORDERS[own])
