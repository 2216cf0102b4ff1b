"""Accuracy under attack."""

from copy import copy

import numpy as np
from sklearn.utils import check_consistent_length

from ..attacks import AutoAttack, BaseAttack, MinimumNormAttack
from ..utils._containers import is_dataframe, take_rows
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
    """Share of the samples that are classified correctly also under attack.

    It is an upper bound of the robust accuracy: the accuracy under the attacks that were tried. A
    sample counts if the estimator is right about it and about every admissible input that the
    attack found for it.

    Parameters
    ----------
    estimator : fitted classifier or torch.nn.Module
        A pipeline is attacked from its raw input.

    X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
        Inputs, in the units of ``eps`` and ``bounds``.

    y : array-like of shape (n_samples,)
        True labels.

    attack : BaseAttack, default=None
        None means ``AutoAttack(version="fast")``, which runs what the estimator allows: see
        :class:`~skrobust.attacks.AutoAttack`.

    eps, norm, bounds, mask : default=None
        Threat model, in units of X; see :class:`~skrobust.threat.ThreatModel`. What is given
        replaces the parameter of ``attack``. Without ``attack``, ``eps`` is required.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights.

    random_state : int, RandomState instance or None, default=0
        Seed of the attack where its own ``random_state`` is None. A score is to be the same
        when it is computed again, and so the default is not None.

    Returns
    -------
    score : float
        Between 0 and 1, at most the accuracy.

    See Also
    --------
    robust_accuracy_curve : For several eps at a time, and at less cost.
    make_robust_scorer : For use in model selection.

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
    withstood = ~attack.run(estimator, X, y, stop_on_success=True).success
    return float(np.average(withstood, weights=weight))


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
    """Robust accuracy over a list of eps.

    A sample that has fallen at one eps has fallen at every larger one, as its adversarial example
    is admissible there, too: the curve never rises.

    With an attack that looks for the closest adversarial point
    (:class:`~skrobust.attacks.MinimumNormAttack`) a single run gives the whole curve, as long as
    budgets per feature are multiples of each other. With any other the smallest eps of each sample
    is found by bisection, so that it is attacked at about log2(n_eps) radii, where separate scores
    attack it at all of them. That takes for granted that what withstands the attack at one eps
    withstands it at the smaller ones. It holds but for rare samples where the attack is strong; a
    weak one, such as :class:`~skrobust.attacks.FGSM`, may fail at a large eps where it succeeds at
    a small one, and its separate scores may then be lower.

    Parameters
    ----------
    estimator, X, y, attack, norm, bounds, mask, sample_weight, random_state
        As for :func:`robust_accuracy_score`.

    eps : array-like of shape (n_eps,) or (n_eps, n_features)
        Radii, in any order, in units of X; with one row for each radius, budgets per feature, which
        must then grow together. 0 gives the accuracy.

    Returns
    -------
    scores : ndarray of shape (n_eps,)
        In the order of ``eps``.

    See Also
    --------
    skrobust.inspection.RobustnessCurveDisplay : Plots it.

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
    X = X if is_dataframe(X) else np.asarray(X)
    y = np.asarray(y)
    weight = check_weights(sample_weight, X)
    threat = {"norm": norm, "bounds": bounds, "mask": mask, "random_state": random_state}
    largest = eps[np.argmax(eps.reshape(len(eps), -1).max(axis=1))]
    member = resolve_attack(attack, eps=largest, **threat)
    shares = _shares(eps, largest)
    if isinstance(member, MinimumNormAttack) and shares is not None:
        distance = _distances(member, estimator, X, y)
        fallen = distance[:, np.newaxis] <= shares * (1.0 if largest.ndim else largest)
    else:
        fallen = _bisect(eps, attack, threat, estimator, X, y)
    return np.average(~fallen, axis=0, weights=weight)


def _shares(eps, largest):
    """Each radius as a share of the largest one; None where they differ by more than a factor."""
    shares = eps.reshape(len(eps), -1).max(axis=1) / (largest.max() or 1.0)
    proportional = np.allclose(eps, np.multiply.outer(shares, largest), rtol=1e-12, atol=0)
    return shares if proportional else None


def _distances(attack, estimator, X, y):
    """Distance of the closest adversarial point of each sample: one run for all radii."""
    if np.ndim(attack.eps) == 0 and attack.norm != "l0":
        attack.set_params(eps=None)
    result = attack.run(estimator, X, y)
    return np.where(result.success, attack.perturbation_norm(X, result.X_adv), np.inf)


def _bisect(eps, attack, threat, estimator, X, y):
    """Which samples fall at which radius, by a separate attack at each radius that is tried."""
    order = np.argsort(eps.reshape(len(eps), -1).max(axis=1), kind="stable")
    # Position in `order` of the smallest eps at which each sample has fallen.
    fallen_at = np.full(len(y), len(order))
    # Samples that withstand everything before `low` and fall from `high` on.
    to_do = [(np.arange(len(y)), 0, len(order))]
    while to_do:
        rows, low, high = to_do.pop()
        if not len(rows) or low == high:
            continue
        middle = (low + high) // 2
        member = resolve_attack(attack, eps=eps[order[middle]], **threat)
        falls = member.run(estimator, take_rows(X, rows), y[rows], stop_on_success=True).success
        fallen_at[rows[falls]] = middle
        to_do += [(rows[falls], low, middle), (rows[~falls], middle + 1, high)]
    position = np.empty(len(order), dtype=int)
    position[order] = np.arange(len(order))
    return fallen_at[:, np.newaxis] <= position


def resolve_attack(attack, *, random_state=0, **threat):
    """The attack to run: a clone of ``attack``, or the default, under the threat model given."""
    given = {name: value for name, value in threat.items() if value is not None}
    if attack is None:
        if "eps" not in given:
            raise ValueError(
                "eps is needed where no attack is given: the size of the perturbations to "
                "withstand, in units of X. Got eps=None."
            )
        return AutoAttack(version="fast", random_state=random_state).set_params(**given)
    if not isinstance(attack, BaseAttack):
        raise TypeError(f"attack must be None or an attack of skrobust.attacks; got {attack!r}.")
    attack = copy(attack).set_params(**given)
    if attack.random_state is None:
        attack.set_params(random_state=random_state)
    return attack


def _check_eps_list(eps):
    try:
        eps = np.asarray(eps, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"eps must be a list of numbers, or of arrays of one length; got {eps!r}."
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
                "eps must grow in all features together: a sample that has fallen at one radius "
                "must be admissible at every larger one. Score such threat models one by one."
            )
    return eps
