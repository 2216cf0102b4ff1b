"""Plot of robust accuracy over eps."""

import numpy as np

from ..attacks import resolve_attack
from ..metrics import robust_accuracy_curve
from ._matplotlib import draw_curve, import_pyplot


class RobustnessCurveDisplay:
    """Robustness curve: accuracy under attack over eps.

    Use :meth:`from_estimator` to create it. All parameters are stored as attributes.

    Parameters
    ----------
    eps : array-like of shape (n_eps,) or (n_eps, n_features)
        Radii, in any order. Budgets per feature have no common unit: the horizontal axis then
        shows each row as a share of the largest row, averaged over the features. For another unit,
        such as multiples of the standard deviation, pass values in that unit as ``eps``, and the
        result of :func:`~skrobust.metrics.robust_accuracy_curve` as ``scores``.

    scores : array-like of shape (n_eps,)
        Robust accuracy at each radius.

    estimator_name : str, default=None
        Name of the classifier, for the legend. None means no legend.

    norm : str, default=None
        Norm of the perturbation, for the label of the axis. None omits it.

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
    skrobust.metrics.robust_accuracy_curve : Scores of the curve.
    AdversarialExamplesDisplay : Plot of adversarial examples.

    Notes
    -----
    Each point is the accuracy under the attacks that were run, an upper bound of the robust
    accuracy. A score of 0 is final; a high score can be lower under a stronger attack.

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
        """Attack a classifier at every eps, and plot its accuracy.

        Parameters
        ----------
        estimator : fitted classifier or torch.nn.Module
            Classifier to attack. A pipeline is attacked at its raw input.

        X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
            Inputs, in the units of ``eps`` and ``bounds``.

        y : array-like of shape (n_samples,)
            True labels.

        eps : array-like of shape (n_eps,) or (n_eps, n_features)
            Radii, in units of X. 0 gives the accuracy.

        attack : BaseAttack, default=None
            None means the strongest attack that the estimator allows; see
            :func:`~skrobust.metrics.robust_accuracy_score`.

        norm, bounds, mask : default=None
            Threat model; see :class:`~skrobust.threat.ThreatModel`. A value that is not None
            replaces the parameter of ``attack``.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights.

        random_state : int, RandomState instance or None, default=0
            Seed of the attack, if its own ``random_state`` is None.

        name : str, default=None
            Name for the legend. None means the class name of the estimator.

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
        import_pyplot(cls)  # fail before the attack runs, not after it
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
        norm = resolve_attack(attack, eps=0, norm=norm).norm
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
            The display itself, with the attributes of the plot.
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
    """Return each row of budgets as a share of the largest row, averaged over the features."""
    largest = eps.max(axis=0)
    limited = largest > 0
    return (eps[:, limited] / largest[limited]).mean(axis=1) if limited.any() else eps[:, 0]
