"""Certified accuracy, and its scorer."""

import warnings
from inspect import signature

import numpy as np
from sklearn.utils import check_consistent_length, column_or_1d

from ..utils._weights import check_weights
from ._scorer import Scorer

# Radii are compared up to rounding: a conversion between norms or units rounds them.
_ROUNDING = 1e-9


def certified_accuracy_score(estimator, X, y, *, radius=0.0, sample_weight=None):
    """Return the share of samples that are correct and certified at a radius.

    The score is a lower bound of the robust accuracy, if all certificates hold. A certificate of a
    :class:`~skrobust.SmoothedClassifier` is wrong with a probability of up to ``alpha``: expect up
    to a share ``alpha`` of the samples to be counted by mistake.

    Parameters
    ----------
    estimator : fitted classifier with ``certify``
        A :class:`~skrobust.SmoothedClassifier`, or any object with a method ``certify(X)`` that
        returns a :class:`~skrobust.verification.Certificate`, or another object with arrays
        ``label``, ``radius`` and ``abstained``.

    X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
        Inputs.

    y : array-like of shape (n_samples,)
        True labels.

    radius : float or array-like of shape (n_radii,), default=0.0
        Radius that must be certified, in the norm and the unit of the certificates. A list gives a
        curve. With 0, a certificate of any radius counts.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights.

    Returns
    -------
    score : float or ndarray of shape (n_radii,)
        Between 0 and 1, and for a list in the order of ``radius``. It never rises with the radius.

    Warns
    -----
    UserWarning
        The estimator cannot certify this radius for any sample, for example because of a small
        ``n_samples``. The score is then 0, and the warning names the reason.

    See Also
    --------
    make_certified_scorer : Scorer for model selection.
    skrobust.inspection.CertifiedAccuracyDisplay : Plot of the curve.
    robust_accuracy_score : Upper bound of the robust accuracy.

    Notes
    -----
    For one radius the score calls ``certify(X, radius=radius)``, if ``certify`` has this parameter.
    A :class:`~skrobust.SmoothedClassifier` then takes no more votes than a decision needs. For
    several radii the score calls ``certify(X)`` once, which costs more. This is another statistical
    test: it can decide differently on the few samples whose largest radius is close to the
    requested one.

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
    """Return the mean certified radius; samples with a wrong prediction count as 0.

    .. warning::
        Do not train or select a classifier by this number. It rewards larger radii for easy
        samples at the expense of hard samples. A classifier that always predicts the most frequent
        class can reach any value, by a large ``sigma`` or many ``n_samples`` [1]_. Report
        :func:`certified_accuracy_score` at the radii that matter.

    Parameters
    ----------
    estimator : fitted classifier with ``certify``
        As in :func:`certified_accuracy_score`.

    X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
        Inputs.

    y : array-like of shape (n_samples,)
        True labels.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights.

    Returns
    -------
    score : float
        In the norm and the unit of the certificates.

    See Also
    --------
    certified_accuracy_score : Share of samples that are certified at a given radius.

    Notes
    -----
    The score is the area under the curve of :func:`certified_accuracy_score` over the radius. For a
    :class:`~skrobust.SmoothedClassifier` it grows with ``n_samples``: compare only scores with the
    same ``n_samples`` and ``alpha``.

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
    radius = np.where(is_correct(certificate, y), certificate.radius, 0.0)
    return float(np.average(radius, weights=weight))


def make_certified_scorer(radius=0.0):
    """Make a scorer that measures certified accuracy.

    Parameters
    ----------
    radius : float or array-like of shape (n_radii,), default=0.0
        Radius that must be certified, in the norm and the unit of the certificates. A list makes
        the scorer return a dict with a key ``certified_accuracy_<radius>`` for each radius. Compare
        estimators only if their certificates have the same norm and unit: if a
        :class:`~skrobust.SmoothedClassifier` has one ``sigma`` per feature, ``sigma`` is its unit.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y, sample_weight=None)``; higher is better. It can be pickled, and
        used as ``scoring``, also inside a dict of scorers. A scorer that returns a dict needs
        ``refit="certified_accuracy_..."`` in :class:`~sklearn.model_selection.GridSearchCV`. A
        single radius costs less than a list; see :func:`certified_accuracy_score`.

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
    radius = check_radii(radius).tolist()
    several = isinstance(radius, list)
    names = [f"certified_accuracy_{value:.15g}" for value in radius] if several else None
    return Scorer("make_certified_scorer", certified_accuracy_score, names, radius=radius)


def certify(estimator, X, radius=None):
    """Return the certificate of an estimator, for one radius if its ``certify`` allows that."""
    if radius is None or "radius" not in signature(estimator.certify).parameters:
        return estimator.certify(X)
    try:
        return estimator.certify(X, radius=radius)
    except ValueError as error:
        if radius == 0:
            raise
        # If a radius of 0 can be certified, the requested radius is out of reach for all samples,
        # and the score is 0 as it is on a curve. Otherwise the error has another cause.
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
    """Return the certified accuracy at each radius, as an ndarray of shape (n_radii,)."""
    correct = is_correct(certificate, y)
    certified = np.asarray(certificate.radius) * (1 + _ROUNDING)
    return np.array([np.average(correct & (certified >= r), weights=weight) for r in radii])


def check_radii(radius):
    """Return one radius or several as a float64 array with 0 axes or 1."""
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
    """Return labels as an array with one axis."""
    return column_or_1d(np.asarray(y))


def check_certifier(estimator, X, y):
    """Return labels as an array with one axis; raise an error if they cannot be certified."""
    if not callable(getattr(estimator, "certify", None)):
        raise TypeError(
            "estimator must have a method certify, as skrobust.SmoothedClassifier does; "
            f"{type(estimator).__name__} has none. Use SmoothedClassifier(estimator).fit(X, y), "
            "which certifies any classifier."
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


def is_correct(certificate, y):
    """Return whether each sample is certified with the correct label."""
    label = np.asarray(certificate.label)
    if label.shape != y.shape:
        raise ValueError(
            "certify must return one certificate for each label of y; got labels of shape "
            f"{label.shape}, and y of shape {y.shape}."
        )
    return (label == y) & ~np.asarray(certificate.abstained, dtype=bool)
