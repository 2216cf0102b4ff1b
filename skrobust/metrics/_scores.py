"""Accuracy under attack."""

import numpy as np
from sklearn.utils import check_consistent_length

from ..attacks import MinimumNormAttack, resolve_attack
from ..utils._weights import check_weights


def robust_accuracy_score(
    estimator,
    X,
    y,
    *,
    attack=None,
    eps=None,
    norm=None,
    bounds=None,
    mask=None,
    sample_weight=None,
    random_state=0,
):
    """Return the accuracy under attack.

    A sample counts as correct if the estimator predicts its label correctly, and the attack finds
    no adversarial example within the threat model. The score is an upper bound of the robust
    accuracy: a stronger attack can lower it.

    Parameters
    ----------
    estimator : fitted classifier or torch.nn.Module
        Classifier to attack. A pipeline is attacked at its raw input.

    X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
        Inputs, in the units of ``eps`` and ``bounds``.

    y : array-like of shape (n_samples,)
        True labels.

    attack : BaseAttack, default=None
        None means ``AutoAttack(version="fast")``, which runs the attacks that the estimator allows;
        see :class:`~skrobust.attacks.AutoAttack`.

    eps, norm, bounds, mask : default=None
        Threat model, in units of X; see :class:`~skrobust.threat.ThreatModel`. A value that is not
        None replaces the parameter of ``attack``. ``eps`` is required if ``attack`` is None.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights.

    random_state : int, RandomState instance or None, default=0
        Seed of the attack, if its own ``random_state`` is None. The default is not None, so that
        a score is reproducible.

    Returns
    -------
    score : float
        Between 0 and 1, and not above the accuracy.

    See Also
    --------
    robust_accuracy_curve : Scores for several eps, at less cost.
    make_robust_scorer : Scorer for model selection.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skrobust.metrics import robust_accuracy_score
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> clf = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    >>> score = robust_accuracy_score(clf, X, y, eps=0.1 * X.std(axis=0))
    >>> print(f"{clf.score(X, y):.3f} {score:.3f}")
    0.988 0.924
    """
    attack = resolve_attack(
        attack, eps=eps, norm=norm, bounds=bounds, mask=mask, random_state=random_state
    )
    weight = check_weights(sample_weight, X)
    fooled = attack.run(estimator, X, y, stop_on_success=True).success
    return float(np.average(~fooled, weights=weight))


def robust_accuracy_curve(
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
):
    """Return the accuracy under attack for a list of eps.

    An adversarial example for one eps is also one for every larger eps. The curve therefore never
    rises.

    An attack that minimises the perturbation (:class:`~skrobust.attacks.MinimumNormAttack`) gives
    the whole curve by a single run, if budgets per feature are multiples of each other. With every
    other attack, the smallest successful eps of each sample is found by bisection: a sample is
    attacked at about log2(n_eps) radii, and not at all of them. Bisection assumes that a sample
    which withstands the attack at one eps also withstands it at smaller eps. With a strong attack
    exceptions are rare. A weak attack, such as :class:`~skrobust.attacks.FGSM`, can fail at a large
    eps and succeed at a small one; separate scores can then be lower than the curve.

    Parameters
    ----------
    estimator : fitted classifier or torch.nn.Module
        Classifier to attack. A pipeline is attacked at its raw input.

    X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
        Inputs, in the units of ``eps`` and ``bounds``.

    y : array-like of shape (n_samples,)
        True labels.

    eps : array-like of shape (n_eps,) or (n_eps, n_features)
        Radii in any order, in units of X. With two axes, one row of budgets per feature for each
        radius; the budgets must grow in all features together. 0 gives the accuracy.

    attack : BaseAttack, default=None
        As in :func:`robust_accuracy_score`.

    norm, bounds, mask : default=None
        Threat model, as in :func:`robust_accuracy_score`.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights.

    random_state : int, RandomState instance or None, default=0
        Seed of the attack, if its own ``random_state`` is None.

    Returns
    -------
    scores : ndarray of shape (n_eps,)
        In the order of ``eps``.

    See Also
    --------
    skrobust.inspection.RobustnessCurveDisplay : Plot of the curve.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skrobust.metrics import robust_accuracy_curve
    >>> X, y = load_wine(return_X_y=True)
    >>> X = StandardScaler().fit_transform(X)
    >>> clf = LogisticRegression().fit(X, y)
    >>> robust_accuracy_curve(clf, X, y, eps=[0, 0.25, 0.5]).round(2)
    array([1.  , 0.87, 0.55])
    """
    eps = _check_eps_list(eps)
    check_consistent_length(X, y)
    weight = check_weights(sample_weight, X)
    threat = {"norm": norm, "bounds": bounds, "mask": mask, "random_state": random_state}
    largest = eps[np.argmax(eps.reshape(len(eps), -1).max(axis=1))]
    resolved = resolve_attack(attack, eps=largest, **threat)
    shares = _shares(eps, largest)
    if isinstance(resolved, MinimumNormAttack) and shares is not None:
        distance = _distances(resolved, estimator, X, y)
        fooled = distance[:, np.newaxis] <= shares * (1.0 if largest.ndim else largest)
    else:
        with resolved.prepare(estimator, X, y) as problem:
            fooled = _bisect(eps, attack, threat, problem)
    return np.average(~fooled, axis=0, weights=weight)


def _shares(eps, largest):
    """Return each radius as a share of the largest; None if they are not multiples of it."""
    shares = eps.reshape(len(eps), -1).max(axis=1) / (largest.max() or 1.0)
    proportional = np.allclose(eps, np.multiply.outer(shares, largest), rtol=1e-12, atol=0)
    return shares if proportional else None


def _distances(attack, estimator, X, y):
    """Return the distance of the closest adversarial example of each sample; inf without one."""
    result = attack.without_limit().run(estimator, X, y)
    return np.where(result.success, attack.perturbation_norm(X, result.X_adv), np.inf)


def _bisect(eps, attack, threat, problem):
    """Return which samples are fooled at which radius, by bisection over the sorted radii."""
    order = np.argsort(eps.reshape(len(eps), -1).max(axis=1), kind="stable")
    # Position in `order` of the smallest eps at which the attack fooled each sample.
    smallest = np.full(len(problem), len(order))
    # Samples that withstand all radii before `low`, and are fooled from `high` on.
    pending = [(np.arange(len(problem)), 0, len(order))]
    while pending:
        rows, low, high = pending.pop()
        if not len(rows) or low == high:
            continue
        middle = (low + high) // 2
        resolved = resolve_attack(attack, eps=eps[order[middle]], **threat)
        fooled = resolved.run_problem(problem.take(rows), stop_on_success=True).success
        smallest[rows[fooled]] = middle
        pending += [(rows[fooled], low, middle), (rows[~fooled], middle + 1, high)]
    position = np.empty(len(order), dtype=int)
    position[order] = np.arange(len(order))
    return smallest[:, np.newaxis] <= position


def _check_eps_list(eps):
    try:
        eps = np.asarray(eps, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"eps must be a list of numbers, or a list of arrays of equal length; got {eps!r}."
        ) from error
    if eps.ndim not in (1, 2) or len(eps) == 0:
        raise ValueError(
            f"eps must be a list of at least one radius; got an array of shape {eps.shape}. For a "
            "single eps use robust_accuracy_score."
        )
    if eps.ndim == 2:
        order = eps[np.argsort(eps.max(axis=1), kind="stable")]
        if (np.diff(order, axis=0) < 0).any():
            raise ValueError(
                "eps must grow in all features together: an adversarial example for one row of eps "
                "must be feasible for every larger row. Use robust_accuracy_score for each row."
            )
    return eps
