"""Projected gradient descent."""

from math import cos, pi
from numbers import Integral, Real

import numpy as np
import torch

from ..utils._random import RowNoise
from ..utils._sklearn import Interval, StrOptions
from ._base import BaseAttack
from ._losses import LOSSES, likeliest_others
from ._search import Search

# Steps from near the best point are shorter by this factor, so as not to lose it at once. With 10
# steps and 20 restarts, 11 of the 12 hard points among the first 500 of the reference target fall;
# 2 with steps of full length, and 1 with restarts around the input.
_NEARBY = 0.3


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

    restart_from : {"input", "best"}, default="input"
        Where the restarts after the first begin: at points drawn from the ball around the input,
        or from such a ball around the best point so far, with steps that are shorter by a factor
        of 0.3. The latter is an iterated local search [6]_: it is much stronger against models
        whose gradients mislead, with many restarts of few steps each.

    random_start : bool, default=True
        Start at a point drawn uniformly from the ball; else at the input.

    momentum : float, default=0.0
        Share of the direction so far that is added to each new gradient, which is first divided by
        its l1 norm [3]_. 0 means none; 1 is the value of the paper.

    loss : {"ce", "margin", "dlr"}, default="ce"
        Loss to climb: the cross-entropy; the margin ``max_{j != y} z_j - z_y``; or the margin over
        ``z_(1) - z_(3)`` of the sorted logits [2]_, which with two classes is the margin itself.

    n_target_classes : int, default=None
        Multi-targeted attack [4]_: each restart heads for so many other classes one after the
        other, beginning with the likeliest, by the difference of their logit from the label's (with
        loss="dlr" in units of the spread of the logits). It multiplies the passes. None, or a
        targeted attack: it does not.

    eot_samples : int, default=1
        Passes over which each gradient is averaged: for models that are random themselves
        (expectation over transformation [5]_).

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
    .. [3] Y. Dong et al., "Boosting adversarial attacks with momentum", CVPR 2018.
    .. [4] S. Gowal et al., "An alternative surrogate loss for PGD-based adversarial testing", arXiv
       1910.09338.
    .. [5] A. Athalye, N. Carlini and D. Wagner, "Obfuscated gradients give a false sense of
       security", ICML 2018.
    .. [6] H. R. Lourenço, O. C. Martin and T. Stützle, "Iterated local search", Handbook of
       Metaheuristics, 2003.

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
        "restart_from": [StrOptions({"input", "best"})],
        "random_start": ["boolean"],
        "momentum": [Interval(Real, 0, None, closed="left")],
        "n_target_classes": [Interval(Integral, 1, None, closed="left"), None],
        "eot_samples": [Interval(Integral, 1, None, closed="left")],
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
        restart_from="input",
        random_start=True,
        momentum=0.0,
        loss="ce",
        n_target_classes=None,
        eot_samples=1,
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
        self.restart_from = restart_from
        self.random_start = random_start
        self.momentum = momentum
        self.loss = loss
        self.n_target_classes = n_target_classes
        self.eot_samples = eot_samples
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
        search = Search(
            model,
            region,
            LOSSES[self.loss](labels, targeted=targeted),
            stop_on_success=stop_on_success,
            eot_samples=self.eot_samples,
        )
        several = self.n_target_classes is not None and not targeted
        scouted = self.loss == "margin" and self.eot_samples == 1 and not (several or targeted)
        targets, n_steps = None, self.n_steps
        if scouted:
            n_steps -= look_towards_classes(search, self.n_steps // 4)
        elif self.random_start or several:
            logits = search.look_at_inputs()
        if several:
            targets = likeliest_others(logits, labels, self.n_target_classes)
        for restart in range(self.n_restarts):
            for _ in search.runs(targets, scaled=self.loss == "dlr"):
                start = self._start(search, restart, seed, scouted)
                fractions = step_fractions(
                    self.n_steps if restart else n_steps, self.step_size, self.eps
                )
                if restart and self.restart_from == "best":
                    fractions = [_NEARBY * fraction for fraction in fractions]
                climb(search, start, fractions, self.momentum)
        return search.result()

    def _start(self, search, restart, seed, scouted):
        region = search.region
        if restart == 0 and scouted:
            return search.best().clone()
        if not self.random_start:
            return region.x.clone()
        start = region.random(RowNoise(region.x, seed + restart))
        if restart and self.restart_from == "best":
            region.project_(start.sub_(region.x).add_(search.best()))
        return start


def look_towards_classes(search, n_classes):
    """Judge the inputs, and one steepest step from them to each of the likeliest other classes.

    Returns
    -------
    n_steps : int
        How many classes that were: each costs one pass forward and one to the input.
    """
    logits, pull = search.model(search.region.x)
    labels = search.loss.index[:, 0]
    targets = likeliest_others(logits, labels, n_classes)
    own = torch.zeros_like(logits).scatter_(1, search.loss.index, 1)
    search.judge(search.region.x, search.loss.margin(logits))
    for column in targets.unbind(1):
        if not len(search):
            break
        grad = pull(torch.zeros_like(logits).scatter_(1, column.unsqueeze(1), 1).sub_(own))
        search.look(search.region.steepest(grad if search.rows is None else grad[search.rows]))
    return targets.shape[1]


def climb(search, z, fractions, momentum=0.0):
    """Projected gradient ascent from ``z``, in place; what it finds is in ``search``."""
    velocity = torch.zeros_like(z if momentum else z[:0])
    for fraction in fractions:
        if not len(search):
            return
        z, grad, kept = search.gradient(z)
        if momentum:
            velocity = velocity if kept is None else velocity[kept]
            size = grad.flatten(1).abs().sum(1).clamp_min_(torch.finfo(grad.dtype).tiny)
            velocity.mul_(momentum).add_(grad / size.view(search.row_shape))
            grad = velocity.clone()  # a step overwrites it
        search.region.step_(z, grad, fraction)
    search.look(z)


def step_fractions(n_steps, step_size, eps):
    """Length of each step as a share of the radius."""
    if step_size is None:
        return [1 + cos(pi * k / n_steps) for k in range(n_steps)]
    radius = float(np.max(eps))
    return [step_size / radius if radius > 0 else 0.0] * n_steps
