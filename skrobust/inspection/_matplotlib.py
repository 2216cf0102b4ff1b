"""Helpers of the displays. Only this module imports matplotlib, which is optional."""

import numpy as np


def import_pyplot(caller):
    """Return ``matplotlib.pyplot``; raise an ImportError that names ``caller``, a display."""
    name = caller.__name__ if isinstance(caller, type) else type(caller).__name__
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"{name} needs matplotlib, which is not installed. Install it with "
            "`pip install skrobust[plot]`."
        ) from error
    return pyplot


def draw_curve(display, x, scores, labels, style, *, ax=None, name=None):
    """Plot a curve of accuracies, and set ``line_``, ``ax_`` and ``figure_`` of the display.

    Parameters
    ----------
    display : object
        Display with an attribute ``estimator_name``.

    x, scores : ndarrays of shape (n_points,)
        Points of the curve, in any order.

    labels : tuple of str
        Labels of the two axes.

    style : dict
        Keyword arguments of :meth:`matplotlib.axes.Axes.plot`.

    ax, name
        As in ``plot`` of the display.

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
    if not display.line_.get_label().startswith("_"):  # matplotlib's label of an unnamed line
        ax.legend()
    display.ax_, display.figure_ = ax, ax.figure
    return display
