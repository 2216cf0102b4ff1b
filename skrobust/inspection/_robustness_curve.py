"""Robust accuracy over the size of the perturbation."""

import numpy as np

from ..metrics import robust_accuracy_curve
from ._matplotlib import draw_curve, import_pyplot


class RobustnessCurveDisplay:
    """Robustness curve: accuracy under attack over the size of the perturbation.

    It is recommended to use :meth:`from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    eps : array-like of shape (n_eps,) or (n_eps, n_features)
        Radii, in any order. Rows of budgets per feature have no one unit, so that the horizontal
        axis is the share that they are of the largest, on average over the features. For an axis
        in a unit of your own, such as multiples of the standard deviation, give those numbers
        here, and the scores of :func:`~skrobust.metrics.robust_accuracy_curve`.

    scores : array-like of shape (n_eps,)
        Robust accuracy at each radius.

    estimator_name : str, default=None
        Name of the classifier, for the legend. None means no legend.

    norm : str, default=None
        Norm of the perturbation, for the label of the axis. None leaves it out.

    Attributes
    ----------
    line_ : matplotlib.lines.Line2D
        The curve.

    ax_ : matplotlib.axes.Axes
        Axes with the curve.

    figure_ : matplotlib.figure.Figure
        Figure that contains the curve.

    See Also
    --------
    skrobust.metrics.robust_accuracy_curve : The numbers.
    AdversarialExamplesDisplay : What an attack changes.

    Notes
    -----
    Each point is an upper bound of the robust accuracy: the accuracy under the attacks that were
    tried. A curve at 0 is certain; one that is high may come down under a stronger attack.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import matplotlib.pyplot as plt
    >>> from skrobust.inspection import RobustnessCurveDisplay
    >>> display = RobustnessCurveDisplay(
    ...     eps=[0, 0.1, 0.2], scores=[0.98, 0.8, 0.5], estimator_name="robust", norm="linf"
    ... )
    >>> display.plot().ax_.get_xlabel()
    'eps (linf, in units of X)'
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, eps, scores, estimator_name=None, norm=None):
        self.eps = eps
        self.scores = scores
        self.estimator_name = estimator_name
        self.norm = norm

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        eps,
        attack=None,
        norm=None,
        bounds=None,
        mask=None,
        sample_weight=None,
        random_state=0,
        name=None,
        ax=None,
        **kwargs,
    ):
        """Attack a classifier at every eps and plot how much of its accuracy is left.

        Parameters
        ----------
        estimator : fitted classifier or torch.nn.Module
            The classifier. A pipeline is attacked from its raw input.

        X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
            Inputs, in the units of ``eps`` and ``bounds``.

        y : array-like of shape (n_samples,)
            True labels.

        eps : array-like of shape (n_eps,) or (n_eps, n_features)
            Radii, in units of X. 0 gives the accuracy.

        attack : BaseAttack, default=None
            None means the strongest that the estimator allows; see
            :func:`~skrobust.metrics.robust_accuracy_score`.

        norm, bounds, mask : default=None
            Threat model; see :class:`~skrobust.threat.ThreatModel`. What is given replaces the
            parameter of ``attack``.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights.

        random_state : int, RandomState instance or None, default=0
            Seed of the attack where its own is None.

        name : str, default=None
            Name for the legend. None means the class of the estimator.

        ax : matplotlib.axes.Axes, default=None
            Axes to plot on. None makes a new figure.

        **kwargs : dict
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : RobustnessCurveDisplay

        Examples
        --------
        >>> import matplotlib
        >>> matplotlib.use("agg")
        >>> import matplotlib.pyplot as plt
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> from skrobust.inspection import RobustnessCurveDisplay
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = LogisticRegression(max_iter=1000).fit(X, y)
        >>> display = RobustnessCurveDisplay.from_estimator(clf, X, y, eps=[0, 0.2, 0.4])
        >>> bool(display.scores[0] == clf.score(X, y))
        True
        >>> plt.close(display.figure_)
        """
        import_pyplot(cls)  # before the work, not after it
        scores = robust_accuracy_curve(
            estimator,
            X,
            y,
            eps=eps,
            attack=attack,
            norm=norm,
            bounds=bounds,
            mask=mask,
            sample_weight=sample_weight,
            random_state=random_state,
        )
        if norm is None:
            norm = "linf" if attack is None else attack.norm
        name = type(estimator).__name__ if name is None else name
        display = cls(eps=eps, scores=scores, estimator_name=name, norm=norm)
        return display.plot(ax, **kwargs)

    def plot(self, ax=None, *, name=None, **kwargs):
        """Plot the curve.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Axes to plot on. None makes a new figure.

        name : str, default=None
            Name for the legend. None means ``estimator_name``.

        **kwargs : dict
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : RobustnessCurveDisplay
            The display itself, which now has its attributes.
        """
        eps, scores = np.asarray(self.eps, dtype=float), np.asarray(self.scores, dtype=float)
        if eps.ndim not in (1, 2) or scores.shape != eps.shape[:1]:
            raise ValueError(
                "RobustnessCurveDisplay needs one score for each eps; got eps of shape "
                f"{eps.shape} and scores of shape {scores.shape}."
            )
        unit = "in units of X"
        if eps.ndim == 2:
            eps, unit = _share_of_largest(eps), "share of the largest"
        measure = unit if self.norm is None else f"{self.norm}, {unit}"
        labels = f"eps ({measure})", "Robust accuracy"
        style = {"marker": "o", "markersize": 4}
        return draw_curve(self, eps, scores, labels, style | kwargs, ax=ax, name=name)


def _share_of_largest(eps):
    """One number for each row of budgets: what they are of the largest row, on average."""
    largest = eps.max(axis=0)
    limited = largest > 0
    return (eps[:, limited] / largest[limited]).mean(axis=1) if limited.any() else eps[:, 0]
