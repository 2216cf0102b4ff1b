"""Certified accuracy, and its scorers."""

import warnings
from inspect import signature

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d

from ..utils._weights import check_weights
from ._scorer import BaseScorer

# Radii are compared up to rounding: they may have been converted between norms and units.
_ROUNDING = 1e-9


def certified_accuracy_score(estimator, X, y, *, radius=0.0, sample_weight=None):
    """Share of the samples that are classified correctly, with a certificate of the radius.

    It is a lower bound of the robust accuracy of the classifier that the certificates are about,
    as far as these hold: of a :class:`~skrobust.SmoothedClassifier` each is wrong with a
    probability of up to ``alpha``, and so, in expectation, is up to that share of the samples.

    Parameters
    ----------
    estimator : fitted classifier with ``certify``
        A :class:`~skrobust.SmoothedClassifier`, or any object with a method ``certify(X)`` that
        returns an object with arrays ``label``, ``radius`` and ``abstained``.

    X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
        Inputs.

    y : array-like of shape (n_samples,)
        True labels.

    radius : float or array-like of shape (n_radii,), default=0.0
        The radius that certificates need, in the norm and the unit that the estimator certifies in;
        a list gives a curve. 0 asks for a certificate of any radius: the prediction is right, and
        does not abstain.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights.

    Returns
    -------
    score : float or ndarray of shape (n_radii,)
        Between 0 and 1; for a list, in the order of ``radius``. It never rises with the radius.

    Warns
    -----
    UserWarning
        The estimator can never certify this one radius, such as for want of samples; the warning
        says why. The score is 0 then.

    See Also
    --------
    make_certified_scorer : For use in model selection.
    skrobust.inspection.CertifiedAccuracyDisplay : Plots the curve.
    robust_accuracy_score : An upper bound of the robust accuracy.

    Notes
    -----
    For one radius ``certify(X, radius=radius)`` is called, if the estimator has that parameter: a
    :class:`~skrobust.SmoothedClassifier` then takes no more samples than needed to decide. For
    several there is one call ``certify(X)``, which costs more, and as it is another test, may
    decide differently on the few samples whose largest certificate is close to the radius.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust import SmoothedClassifier
    >>> from skrobust.metrics import certified_accuracy_score
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = (X - X.mean(axis=0)) / X.std(axis=0)
    >>> clf = SmoothedClassifier(LogisticRegression(), sigma=0.5, random_state=0).fit(X, y)
    >>> score = certified_accuracy_score(clf, X, y, radius=0.5)
    >>> 0.8 < score <= clf.score(X, y)
    True
    >>> curve = certified_accuracy_score(clf, X[:100], y[:100], radius=[0, 0.5, 1])
    >>> bool((curve[0] >= curve[1]) & (curve[1] >= curve[2]))
    True
    """
    radii = check_radii(radius)
    y = check_certifier(estimator, X, y)
    weight = check_weights(sample_weight, y)
    one = radii.item() if radii.size == 1 else None
    scores = accuracy_at(certify(estimator, X, one), y, radii.ravel(), weight)
    return scores if radii.ndim else float(scores[0])


def average_certified_radius_score(estimator, X, y, *, sample_weight=None):
    """Mean of the certified radii, where samples that are not classified correctly count as 0.

    .. warning::
        This number can be gamed, and should not be what a classifier is trained or selected for. It
        pays to raise radii that are large already, at the cost of samples that are hard, and a
        classifier that always predicts the most frequent class can have any value whatever, by a
        large ``sigma`` or many ``n_samples`` [1]_. Report :func:`certified_accuracy_score` at the
        radii that matter.

    Parameters
    ----------
    estimator : fitted classifier with ``certify``
        As for :func:`certified_accuracy_score`.

    X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
        Inputs.

    y : array-like of shape (n_samples,)
        True labels.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights.

    Returns
    -------
    score : float
        In the norm and the unit that the estimator certifies in.

    See Also
    --------
    certified_accuracy_score : The share of the samples with a radius of at least a given one.

    Notes
    -----
    It is the area under the curve of :func:`certified_accuracy_score` over the radius. Of a
    :class:`~skrobust.SmoothedClassifier` it grows with ``n_samples``: only scores with the same
    ``n_samples`` and ``alpha`` can be compared.

    References
    ----------
    .. [1] C. Sun et al., "Average certified radius is a poor metric for randomized smoothing",
       2024, arXiv:2410.06895.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust import SmoothedClassifier
    >>> from skrobust.metrics import average_certified_radius_score
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = SmoothedClassifier(LogisticRegression(max_iter=1000), sigma=0.5, random_state=0)
    >>> average_certified_radius_score(clf.fit(X, y), X, y) > 0.3
    True
    """
    y = check_certifier(estimator, X, y)
    weight = check_weights(sample_weight, y)
    certificate = certify(estimator, X)
    radius = np.where(is_right(certificate, y), certificate.radius, 0.0)
    return float(np.average(radius, weights=weight))


class CertifiedScorer(BaseScorer):
    """Scorer ``scorer(estimator, X, y, sample_weight=None)``; see :func:`make_certified_scorer`.

    Attributes
    ----------
    names : list of str or None
        Keys of the scores, where a call gives several.
    """

    def __init__(self, radius):
        self.radius = radius
        self.names = None
        if isinstance(radius, list):
            self.names = [f"certified_accuracy_{value:.15g}" for value in radius]

    def __call__(self, estimator, X, y, sample_weight=None):
        """Score a fitted classifier.

        Parameters
        ----------
        estimator, X, y, sample_weight
            As for :func:`certified_accuracy_score`.

        Returns
        -------
        score : float or dict of float
        """
        result = certified_accuracy_score(
            estimator, X, y, radius=self.radius, sample_weight=sample_weight
        )
        return result if self.names is None else dict(zip(self.names, result.tolist(), strict=True))

    def __repr__(self):
        return f"make_certified_scorer(radius={self.radius!r})"


def make_certified_scorer(radius=0.0):
    """Make a scorer that measures certified accuracy.

    Parameters
    ----------
    radius : float or array-like of shape (n_radii,), default=0.0
        The radius that certificates need; a list makes the scorer return a dict, with a key
        ``certified_accuracy_<radius>`` for each radius. It is in the norm and the unit that the
        estimator certifies in, which should be the same for all that are compared: with one
        ``sigma`` for each feature, the unit of :class:`~skrobust.SmoothedClassifier` is ``sigma``
        itself.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y, sample_weight=None)``; higher is better. It can be pickled, and
        used as ``scoring``, also inside a dict of scorers. One that returns a dict needs
        ``refit="certified_accuracy_..."`` in :class:`~sklearn.model_selection.GridSearchCV`. One
        radius costs less than a list: see :func:`certified_accuracy_score`.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skrobust import SmoothedClassifier
    >>> from skrobust.metrics import make_certified_scorer
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = (X - X.mean(axis=0)) / X.std(axis=0)
    >>> search = GridSearchCV(
    ...     SmoothedClassifier(LogisticRegression(), n_augment=2, random_state=0),
    ...     {"sigma": [0.3, 0.6, 5.0]},
    ...     scoring=make_certified_scorer(radius=0.75),
    ...     cv=2,
    ... )
    >>> search.fit(X, y).best_params_
    {'sigma': 0.6}
    """
    return CertifiedScorer(check_radii(radius).tolist())


def certify(estimator, X, radius=None):
    """Certificates of the estimator; of one radius, where it can decide about that alone."""
    if radius is None or "radius" not in signature(estimator.certify).parameters:
        return estimator.certify(X)
    try:
        return estimator.certify(X, radius=radius)
    except ValueError as error:
        if radius == 0:
            raise
        # That no sample can have this radius is an answer: 0, as on a curve. If not even a radius
        # of 0 can be decided, something else is wrong.
        try:
            certificate = estimator.certify(X, radius=0.0)
        except ValueError:
            raise error from None
        warnings.warn(
            f"No sample can have a certificate of radius {radius:g}: {error}",
            UserWarning,
            stacklevel=3,
        )
        return certificate


def accuracy_at(certificate, y, radii, weight):
    """Certified accuracy at each of the radii.

    Parameters
    ----------
    certificate : object with arrays label, radius and abstained

    y : ndarray of shape (n_samples,)

    radii : ndarray of shape (n_radii,)

    weight : ndarray of shape (n_samples,)

    Returns
    -------
    scores : ndarray of shape (n_radii,)
    """
    right = is_right(certificate, y)
    reached = np.asarray(certificate.radius) * (1 + _ROUNDING)
    return np.array([np.average(right & (reached >= radius), weights=weight) for radius in radii])


def check_radii(radius):
    """The radius or radii as a float64 array without or with one axis."""
    try:
        radii = np.asarray(radius, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"radius must be a number or a list of numbers; got {radius!r}."
        ) from error
    if radii.ndim > 1 or radii.size == 0 or not (np.isfinite(radii) & (radii >= 0)).all():
        raise ValueError(
            "radius must be a number that is not negative, or a list of at least one such number; "
            f"got {radius!r}."
        )
    return radii


def check_labels(y):
    """Labels as an array with one axis."""
    return column_or_1d(np.asarray(y))


def check_certifier(estimator, X, y):
    """Labels as an array with one axis, if the estimator can certify and knows them all."""
    if not callable(getattr(estimator, "certify", None)):
        raise TypeError(
            "estimator must have a method certify, as skrobust.SmoothedClassifier does; "
            f"{type(estimator).__name__} has none. SmoothedClassifier(estimator).fit(X, y) makes "
            "one of any classifier."
        )
    check_consistent_length(X, y)
    y = check_labels(y)
    classes = getattr(estimator, "classes_", None)
    if classes is not None:
        classes = np.asarray(classes).tolist()
        unknown = sorted(map(str, set(y.tolist()) - set(classes)))
        if unknown:
            raise ValueError(
                "y contains labels that the estimator does not know: "
                f"{', '.join(unknown[:5])}. Its classes are {', '.join(map(str, classes[:20]))}."
            )
    return y


def is_right(certificate, y):
    """Where the label is right and something is certified."""
    label = np.asarray(certificate.label)
    if label.shape != y.shape:
        raise ValueError(
            "There must be one certificate for each label of y; got certificates of shape "
            f"{label.shape} and y of shape {y.shape}."
        )
    return (label == y) & ~np.asarray(certificate.abstained, dtype=bool)
