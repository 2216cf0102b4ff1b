"""Errors of sets that are too large for the question."""


def needs_lengths(what):
    """Return the error for a question that a count of features cannot answer."""
    return ValueError(
        f"{what} needs a norm that measures lengths, 'linf', 'l2' or 'l1'; got norm='l0', which "
        "counts features."
    )


def check_bounded(feasible_set, what):
    """Raise a ValueError unless the intervals of all features are finite.

    Parameters
    ----------
    feasible_set : FeasibleSet

    what : str
        Subject of the error message.
    """
    if not feasible_set.is_bounded:
        limitless = "norm='l0'" if feasible_set.norm == "l0" else "eps=inf"
        raise ValueError(
            f"{what} with {limitless} needs finite bounds of all features that the attacker can "
            "change: give bounds=(low, high)."
        )
