"""The one place that imports matplotlib, which is optional."""

import numpy as np


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


def draw_curve(display, x, scores, labels, style, *, ax=None, name=None):
    """Plot a curve of accuracies for a display, and give it its attributes.

    Parameters
    ----------
    display : object
        Has ``estimator_name``.

    x, scores : ndarrays of shape (n_points,)
        In any order.

    labels : tuple of str
        Of both axes.

    style : dict
        For :meth:`matplotlib.axes.Axes.plot`.

    ax, name
        As for its ``plot``.

    Returns
    -------
    display : object
        The display itself.
    """
    pyplot = import_pyplot(display)
    if ax is None:
        _, ax = pyplot.subplots()
    name = display.estimator_name if name is None else name
    order = np.argsort(x, kind="stable")
    (display.line_,) = ax.plot(x[order], scores[order], **{"label": name} | style)
    ax.set(xlabel=labels[0], ylabel=labels[1], ylim=(-0.02, 1.02))
    if not display.line_.get_label().startswith("_"):  # as of a line that has no name
        ax.legend()
    display.ax_, display.figure_ = ax, ax.figure
    return display
