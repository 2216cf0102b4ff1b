"""The one place that imports matplotlib, which is optional."""


def import_pyplot(caller):
    """Import ``matplotlib.pyplot``, or say how to get it.

    Parameters
    ----------
    caller : object
        The display that needs it, or its class.

    Returns
    -------
    pyplot : module
    """
    name = caller.__name__ if isinstance(caller, type) else type(caller).__name__
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"{name} needs matplotlib, which is not installed. Install it by "
            "`pip install skrobust[plot]`."
        ) from error
    return pyplot
