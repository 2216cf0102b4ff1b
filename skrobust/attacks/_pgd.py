"""Projected gradient descent."""

from math import cos, pi
from numbers import Integral, Real

import numpy as np

from ..utils._random import RowNoise
from ..utils._sklearn import Interval, StrOptions
from ._base import BaseAttack
from ._losses import LOSSES
from ._search import Search


class PGD(BaseAttack):
    """Projected gradient descent: many small steepest steps inside the ball.

    The attack climbs a loss of the classifier by steps along the steepest direction of the norm,
    each followed by an exact projection onto ball, box and mask, from one or several starting
    points, and returns the best point that it has seen.

    Parameters
    ----------
    estimator : estimator object or torch.nn.Module, default=None
        Classifier to attack when used as a transformer. A fitted one is used as it is; ``clone``
        (and with it ``GridSearchCV``) would return an unfitted copy, which
        :class:`sklearn.frozen.FrozenEstimator` prevents. One that is not fitted is cloned and
        fitted by :meth:`fit`. None means a :class:`~sklearn.linear_model.LogisticRegression`, as a
        substitute whose adversarial examples may transfer. :meth:`perturb` does not use it.

    eps : float or array-like of shape (n_features,), default=0.1
        Radius of the ball, or budget of each feature, in units of X.
        See :class:`~skrobust.threat.ThreatModel`.

    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the ball. Each step in l1 is spread over the steepest twentieth of the features.

    bounds : None or pair (low, high), default=None
        Box of valid inputs, in units of X; each side a number or an array of shape (n_features,).

    mask : None, str or array-like, default=None
        Features that the attack can change: booleans, indices or column names. None means all.

    n_steps : int, default=40
        Steps a restart. Each costs one pass forward and one to the input.

    step_size : float, default=None
        Length of each step in units of X; with one ``eps`` per feature, of the feature with the
        largest one, the others in proportion. None means a schedule that needs no tuning: step
        k = 0, 1, ... has length ``(1 + cos(pi k / n_steps)) eps``, so that the first crosses the
        ball and the last ones settle.

    n_restarts : int, default=1
        Number of runs, each from another starting point. With ``random_start=False`` all would be
        the same, and only one is allowed.

    random_start : bool, default=True
        Start at a point drawn uniformly from the ball; else at the input.

    loss : {"ce", "margin"}, default="ce"
        Loss to climb: the cross-entropy, or the margin ``max_{j != y} z_j - z_y``.

    stop_on_success : bool, default=False
        Whether to leave a sample alone once it is adversarial, which is faster. Otherwise the
        attack goes on to the strongest point. Scores stop in any case.

    batch_size : int or "auto", default="auto"
        Samples a batch; it bounds the memory. Apart from rounding, results do not depend on it.

    verbose : int, default=0
        With 1, a progress bar over the batches.

    random_state : int, RandomState instance or None, default=None
        Seed of the starting points. What a sample draws depends on the seed and on its values
        alone, not on the samples beside it.

    Attributes
    ----------
    estimator_ : estimator
        The fitted classifier under attack (after :meth:`fit`).

    n_features_in_ : int
        Number of features seen during :meth:`fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen during :meth:`fit`, where X has names that are all strings.

    See Also
    --------
    FGSM : One step only.
    skrobust.metrics.robust_accuracy_score : Accuracy under attack.

    Notes
    -----
    With gradient ``g`` and the steepest direction ``s(g)`` of length ``eps`` (``eps sign(g)`` for
    linf, ``eps g / ||g||_2`` for l2), one step is ``z <- P(z + f s(g))`` [1]_, eq. (2), where
    ``P`` is the projection of :meth:`~skrobust.threat.ThreatModel.project` and ``f`` the share of
    the radius. The cross-entropy is climbed along a multiple of its gradient that does not vanish
    where the model is sure of itself. Points are ranked by the margin; the input itself is among
    them, so that the result is never worse than doing nothing.

    The schedule of decreasing steps follows [2]_, who show that a fixed step wanders about the
    optimum. With it, the attack is exact on a linear model for linf, up to rounding.

    References
    ----------
    .. [1] A. Madry, A. Makelov, L. Schmidt, D. Tsipras and A. Vladu, "Towards deep learning models
       resistant to adversarial attacks", ICLR 2018.
    .. [2] F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
       diverse parameter-free attacks", ICML 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skrobust.attacks import PGD
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> clf = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    >>> attack = PGD(eps=0.1 * X.std(axis=0), random_state=0)
    >>> X_adv = attack.perturb(clf, X, y)
    >>> print(f"{clf.score(X, y):.3f} {clf.score(X_adv, y):.3f}")
    0.988 0.924
    """

    _parameter_constraints: dict = {
        **BaseAttack._parameter_constraints,
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "step_size": [Interval(Real, 0, None, closed="neither"), None],
        "n_restarts": [Interval(Integral, 1, None, closed="left")],
        "random_start": ["boolean"],
        "loss": [StrOptions(set(LOSSES))],
        "stop_on_success": ["boolean"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        eps=0.1,
        norm="linf",
        bounds=None,
        mask=None,
        n_steps=40,
        step_size=None,
        n_restarts=1,
        random_start=True,
        loss="ce",
        stop_on_success=False,
        batch_size="auto",
        verbose=0,
        random_state=None,
    ):
        self.estimator = estimator
        self.eps = eps
        self.norm = norm
        self.bounds = bounds
        self.mask = mask
        self.n_steps = n_steps
        self.step_size = step_size
        self.n_restarts = n_restarts
        self.random_start = random_start
        self.loss = loss
        self.stop_on_success = stop_on_success
        self.batch_size = batch_size
        self.verbose = verbose
        self.random_state = random_state

    def _attack_batch(self, model, region, labels, *, seed, targeted, stop_on_success):
        if self.n_restarts > 1 and not self.random_start:
            raise ValueError(
                f"n_restarts must be 1 with random_start=False, as all restarts of {self!r} would "
                f"be the same; got {self.n_restarts}."
            )
        loss = LOSSES[self.loss](labels, targeted=targeted)
        search = Search(model, region, loss, stop_on_success=stop_on_success)
        fractions = step_fractions(self.n_steps, self.step_size, self.eps)
        if self.random_start:
            search.look(region.x)
        for restart in range(self.n_restarts):
            if self.random_start:
                start = search.region.random(RowNoise(search.region.x, seed + restart))
            else:
                start = search.region.x.clone()
            climb(search, start, fractions)
        return search.result()


def climb(search, z, fractions):
    """Projected gradient ascent from ``z``, in place; what it finds is in ``search``."""
    for fraction in fractions:
        if not len(search):
            return
        z, grad = search.gradient(z)
        search.region.step_(z, grad, fraction)
    search.look(z)


def step_fractions(n_steps, step_size, eps):
    """Length of each step as a share of the radius."""
    if step_size is None:
        return [1 + cos(pi * k / n_steps) for k in range(n_steps)]
    radius = float(np.max(eps))
    return [step_size / radius if radius > 0 else 0.0] * n_steps
