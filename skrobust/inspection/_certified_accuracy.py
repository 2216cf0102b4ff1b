"""Plot of certified accuracy over the radius."""

import numpy as np

from ..metrics._certified import (
    accuracy_at,
    certify,
    check_certifier,
    check_labels,
    check_radii,
    is_correct,
)
from ..utils._weights import check_weights
from ._matplotlib import draw_curve, import_pyplot


class CertifiedAccuracyDisplay:
    """Curve of certified accuracy over the radius.

    Use :meth:`from_estimator` or :meth:`from_certificate` to create it. All parameters are stored
    as attributes.

    Parameters
    ----------
    radius : array-like of shape (n_radii,)
        Radii, in any order.

    scores : array-like of shape (n_radii,)
        Certified accuracy at each radius; see
        :func:`~skrobust.metrics.certified_accuracy_score`.

    estimator_name : str, default=None
        Name of the classifier, for the legend. None means no legend.

    norm : str, default=None
        Norm of the radii, for the label of the axis. None omits it.

    unit : str, default=None
        Unit of the radii, for the label of the axis. None omits it.

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
    skrobust.metrics.certified_accuracy_score : Scores of the curve.
    RobustnessCurveDisplay : Plot of the accuracy under attack, an upper bound.

    Notes
    -----
    The curve consists of steps. Between two radii it shows the score of the larger one, so that it
    is never above the certified accuracy.

    Curves on the same axes are comparable if their radii have the same norm and unit.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import matplotlib.pyplot as plt
    >>> from skrobust.inspection import CertifiedAccuracyDisplay
    >>> display = CertifiedAccuracyDisplay(
    ...     radius=[0, 0.5, 1], scores=[0.95, 0.8, 0.3], norm="l2", unit="units of X"
    ... )
    >>> display.plot().ax_.get_xlabel()
    'radius (l2, in units of X)'
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, radius, scores, estimator_name=None, norm=None, unit=None):
        self.radius = radius
        self.scores = scores
        self.estimator_name = estimator_name
        self.norm = norm
        self.unit = unit

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        radius=None,
        sample_weight=None,
        name=None,
        ax=None,
        **kwargs,
    ):
        """Certify the predictions of a classifier, and plot its certified accuracy.

        Parameters
        ----------
        estimator : fitted classifier with ``certify``
            Classifier to certify; see :func:`~skrobust.metrics.certified_accuracy_score`.

        X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        y : array-like of shape (n_samples,)
            True labels.

        radius : array-like of shape (n_radii,), default=None
            Radii. None means all radii at which the curve drops, and one radius beyond them.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights.

        name : str, default=None
            Name for the legend. None means the class name of the estimator.

        ax : matplotlib.axes.Axes, default=None
            Axes to plot on. None makes a new figure.

        **kwargs : dict
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : CertifiedAccuracyDisplay

        Examples
        --------
        >>> import matplotlib
        >>> matplotlib.use("agg")
        >>> import matplotlib.pyplot as plt
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> from skrobust import SmoothedClassifier
        >>> from skrobust.inspection import CertifiedAccuracyDisplay
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = LogisticRegression(max_iter=1000)
        >>> clf = SmoothedClassifier(clf, sigma=0.5, random_state=0).fit(X, y)
        >>> display = CertifiedAccuracyDisplay.from_estimator(clf, X, y)
        >>> float(display.scores[-1])
        0.0
        >>> plt.close(display.figure_)
        """
        import_pyplot(cls)  # fail before the certification, not after it
        y = check_certifier(estimator, X, y)
        check_weights(sample_weight, y)
        _check_list(radius)
        return cls.from_certificate(
            certify(estimator, X),
            y,
            radius=radius,
            sample_weight=sample_weight,
            name=type(estimator).__name__ if name is None else name,
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_certificate(
        cls, certificate, y, *, radius=None, sample_weight=None, name=None, ax=None, **kwargs
    ):
        """Plot the certified accuracy for given certificates.

        Parameters
        ----------
        certificate : Certificate
            Result of ``certify(X)``. The result of ``certify(X, radius=...)`` gives a curve with a
            single step.

        y : array-like of shape (n_samples,)
            True labels.

        radius : array-like of shape (n_radii,), default=None
            Radii. None means all radii at which the curve drops, and one radius beyond them.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights.

        name : str, default=None
            Name for the legend. None means no legend.

        ax : matplotlib.axes.Axes, default=None
            Axes to plot on. None makes a new figure.

        **kwargs : dict
            Passed to :meth:`matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : CertifiedAccuracyDisplay

        Examples
        --------
        Several curves on the same axes:

        >>> import matplotlib
        >>> matplotlib.use("agg")
        >>> import matplotlib.pyplot as plt
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> from skrobust import SmoothedClassifier
        >>> from skrobust.inspection import CertifiedAccuracyDisplay
        >>> X, y = load_iris(return_X_y=True)
        >>> fig, ax = plt.subplots()
        >>> for sigma in (0.2, 0.5):
        ...     clf = SmoothedClassifier(
        ...         LogisticRegression(max_iter=1000), sigma=sigma, n_samples=1000, random_state=0
        ...     ).fit(X, y)
        ...     certificate = clf.certify(X)
        ...     display = CertifiedAccuracyDisplay.from_certificate(
        ...         certificate, y, name=f"sigma = {sigma}", ax=ax
        ...     )
        >>> len(ax.lines)
        2
        >>> plt.close(fig)
        """
        y = check_labels(y)
        weight = check_weights(sample_weight, y)
        _check_list(radius)
        radius = _steps(certificate, y) if radius is None else radius
        display = cls(
            radius=radius,
            scores=accuracy_at(certificate, y, check_radii(radius), weight),
            estimator_name=name,
            norm=getattr(certificate, "norm", None),
            unit=getattr(certificate, "unit", None),
        )
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
        display : CertifiedAccuracyDisplay
            The display itself, with the attributes of the plot.
        """
        radius, scores = np.asarray(self.radius, dtype=float), np.asarray(self.scores, dtype=float)
        if radius.ndim != 1 or scores.shape != radius.shape:
            raise ValueError(
                "CertifiedAccuracyDisplay needs one score for each radius; got radius of shape "
                f"{radius.shape} and scores of shape {scores.shape}."
            )
        unit = None if self.unit is None else f"in {self.unit}"
        measure = ", ".join(part for part in (self.norm, unit) if part is not None)
        labels = f"radius ({measure})" if measure else "radius", "Certified accuracy"
        style = {"drawstyle": "steps-pre"}
        return draw_curve(self, radius, scores, labels, style | kwargs, ax=ax, name=name)


def _check_list(radius):
    if radius is not None and check_radii(radius).ndim == 0:
        raise ValueError(
            f"radius of CertifiedAccuracyDisplay must be None or a list of radii; got {radius!r}. "
            "For a single radius use certified_accuracy_score."
        )


def _steps(certificate, y):
    """Return 0, all radii at which certified accuracy drops, and one radius beyond them."""
    radius = np.asarray(certificate.radius, dtype=float)[is_correct(certificate, y)]
    steps = np.unique(np.r_[0.0, radius[np.isfinite(radius)]])
    return np.r_[steps, 1.05 * steps[-1] or 1.0]
