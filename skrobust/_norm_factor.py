"""Conversion of radii between norms."""

# 1 / p for each lp norm.
_INVERSE_ORDER = {"l1": 1.0, "l2": 0.5, "linf": 0.0}


def norm_factor(own, wanted, n_features):
    """Return the factor that converts radii from one norm to another.

    A ball of radius ``r`` in the norm ``own`` contains the ball of radius ``factor * r`` in the
    norm ``wanted``, and no larger one.

    Parameters
    ----------
    own, wanted : {"linf", "l2", "l1", "l0"}
        Norm of the given radii, and norm to convert them to.

    n_features : int
        Number of features of a sample.

    Returns
    -------
    factor : float or None
        1.0 for equal norms. None if no ball of the norm ``wanted`` fits: exactly one of the norms
        is ``"l0"``.
    """
    if own == wanted:
        return 1.0
    if "l0" in (own, wanted):
        return None
    return n_features ** min(0.0, _INVERSE_ORDER[wanted] - _INVERSE_ORDER[own])
