"""The fast minimum-norm attack."""

from numbers import Integral, Real

import torch

from .._region import project_ball
from ..threat import NORMS
from ..utils._random import RowNoise
from ..utils._sklearn import Interval, StrOptions
from ._descent import LOSSES_BY_TURNS, falling, first_distance, movable, rate_of_radius, start_again
from ._hyperplane import Hyperplane, dual_size
from ._minimum_norm import MinimumNormAttack, NormSearch

# Longest step, and the share of it that is left at the end; found by trials (see Notes).
_STEP_SIZE = {"linf": 1.0, "l2": 0.5, "l1": 0.6, "l0": 0.5}
_LAST_STEP = {"linf": 0.01, "l2": 0.01, "l1": 0.01, "l0": 0.2}

# Share of the steps of a restart in which the radius can fall back to the best.
_SHARE_BACK = {"linf": 0.3, "l2": 0.3, "l1": 0.3, "l0": 0.5}

# Noise of the restarts by turns, as a multiple of the largest change of the best point.
_NOISE = {"linf": (2.0,), "l2": (2.0, 1.0), "l1": (1.0,), "l0": (1.0,)}

# How far the first step goes, as a multiple of the way to the boundary of the linearised model.
_OVERSHOOT = 1.0001

# In l0 the radius grows by this factor at least, until there is an adversarial point.
_GROWTH_L0 = 1.2


class FMN(MinimumNormAttack):
    """Fast minimum-norm attack: projected ascent inside a ball that shrinks around the input.

    Each step climbs the loss inside a ball. Where the point is adversarial the ball becomes
    smaller, where it is not it becomes larger, so that the point ends on the boundary. Restarts
    begin at random points around the best one.

    Parameters
    ----------
    estimator : estimator object or torch.nn.Module, default=None
        Classifier to attack when used as a transformer. A fitted one is used as it is; ``clone``
        (and with it ``GridSearchCV``) would return an unfitted copy, which
        :class:`sklearn.frozen.FrozenEstimator` prevents. One that is not fitted is cloned and
        fitted by :meth:`fit`. None means a :class:`~sklearn.linear_model.LogisticRegression`, as a
        substitute whose adversarial examples may transfer. :meth:`perturb` does not use it.

    eps : None, float or array-like of shape (n_features,), default=None
        Radius up to which a point counts as a success, in units of X; None means any. With one
        value per feature, the norm of the perturbation divided by it is what is made small, and 1
        is the radius.

    norm : {"linf", "l2", "l1", "l0"}, default="linf"
        Norm that is made small. ``eps`` must be a whole number for l0.

    bounds : None or pair (low, high), default=None
        Box of valid inputs, in units of X; each side a number or an array of shape (n_features,).

    mask : None, str or array-like, default=None
        Features that the attack can change: booleans, indices or column names. None means all.

    n_steps : int, default=25
        Steps a run. Each costs one pass forward and one to the input.

    n_restarts : int, default=8
        Runs: the first from the input, the others from random points around the best one.

    step_size : None or float, default=None
        Length of the first step; it falls to nearly zero over a run. For linf and l2 as a multiple
        of the present radius, for l1 and l0 what the steepest feature is changed by, as a multiple
        of the largest change of the best point (in the first run, of the estimated distance). None
        means 1 for linf, 0.6 for l1 and 0.5 for l2 and l0.

    gamma : float, default=0.05
        By which share the radius changes in the first step; it falls to zero over a run.

    batch_size : int or "auto", default="auto"
        Samples a batch; it bounds the memory. Apart from rounding, results do not depend on it.

    verbose : int, default=0
        With 1, a progress bar over the batches.

    random_state : int, RandomState instance or None, default=None
        Seed of the restarts. What a sample draws depends on the seed and on its values alone, not
        on the samples beside it.

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
    FAB : Goes along the linearised boundary instead.
    DDN : What this attack grew out of, for l2.

    Notes
    -----
    With the margin ``m`` and the gradient ``g`` of the loss at the perturbation ``u``, without the
    features that a bound holds back, a step is [1]_, Algorithm 1::

        e <- (1 - gamma) ||u||          where m > 0,
        e <- ||u|| + |m| / ||g||_*      where m <= 0 and the run has not crossed the boundary yet,
        e <- (1 + gamma) e              where m <= 0 otherwise,
        u <- project(u + step g / ||g||) onto the ball of radius e and the box.

    The loss is the cross-entropy, over ``1 - p_y``, in the first run and every other, and the
    margin in those between; with two classes they are the same.

    It differs from the paper, whose loss is the margin, in this: the radius grows in every step
    before the first success, where the paper's estimate can stand still; the very first step goes
    to the boundary of the linearised model inside the box; steps are relative to the radius, so
    that no unit of X is preferred; the steepest step of linf is the sign of the gradient; in l0 the
    values that are kept are drawn towards zero by the smallest of them, less and less; and there
    are restarts. A run is short, and the next starts around the best point, with noise of once (l1,
    l0), twice (linf), or by turns twice and once (l2) its largest change, and with a gamma that
    lets the radius come back. On an adversarially trained network for MNIST this made the median l2
    norm of 100 points fall from 3.3 (one run of 200 steps) to 1.4 at the same number of passes.

    On a linear model with two classes the result is the closest adversarial point, up to 0.2 %
    of its distance, or one feature more in l0. On other models nothing is guaranteed: the
    distance is an upper bound.

    References
    ----------
    .. [1] M. Pintor, F. Roli, W. Brendel and B. Biggio, "Fast minimum-norm adversarial attacks
       through adaptive norm constraints", NeurIPS 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skrobust.attacks import FMN
    >>> X, y = load_wine(return_X_y=True)
    >>> clf = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    >>> attack = FMN(norm="l0", bounds=(X.min(axis=0), X.max(axis=0)), random_state=0)
    >>> X_adv = attack.perturb(clf, X, y)
    >>> float(np.median(attack.perturbation_norm(X, X_adv)))
    1.0
    """

    _parameter_constraints: dict = {
        **MinimumNormAttack._parameter_constraints,
        "norm": [StrOptions(set(NORMS))],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "n_restarts": [Interval(Integral, 1, None, closed="left")],
        "step_size": [Interval(Real, 0, None, closed="neither"), None],
        "gamma": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        estimator=None,
        *,
        eps=None,
        norm="linf",
        bounds=None,
        mask=None,
        n_steps=25,
        n_restarts=8,
        step_size=None,
        gamma=0.05,
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
        self.n_restarts = n_restarts
        self.step_size = step_size
        self.gamma = gamma
        self.batch_size = batch_size
        self.verbose = verbose
        self.random_state = random_state

    def _attack_batch(self, model, space, labels, *, seed, targeted, stop_on_success):
        search = NormSearch(
            model, space, labels, targeted=targeted, stop_on_success=stop_on_success
        )
        u, unit, back = space.zeros(), None, torch.zeros_like(search.size_best)
        shares = _NOISE[space.norm]
        for run in range(self.n_restarts):
            search.climb(LOSSES_BY_TURNS[run % 2])
            if run:
                noise = RowNoise(search.space.x, seed + run)
                share = shares[(run - 1) % len(shares)]
                u, unit, back = start_again(search, u, noise, share)
            u = self._descend(search, u, unit, back)
        if len(search):
            search.look(u)
        return search.result()

    def _descend(self, search, u, unit, back):
        """One run from ``u``; where it ends, for the rows that are left."""
        norm = search.space.norm
        step_size = _STEP_SIZE[norm] if self.step_size is None else self.step_size
        rate = rate_of_radius(self.gamma, back, self.n_steps, _SHARE_BACK[norm])
        radius, most = search.space.size(u), search.space.farthest
        lowest = torch.full_like(radius, torch.inf)
        for k in range(self.n_steps):
            margin, grad = search.gradient(u)
            kept = search.drop()
            if kept is not None:
                state = (u, margin, grad, rate, radius, most, lowest)
                u, margin, grad, rate, radius, most, lowest = (t[kept] for t in state)
                unit = None if unit is None else unit[kept]
            if not len(search):
                break
            grad = movable(search.space, u, grad)
            size, slope = search.space.size(u), dual_size(grad, norm)
            estimate = size + first_distance(search.space, margin, slope)
            if unit is None:
                unit = torch.minimum(estimate, search.space.widest())
                if norm != "l0":
                    u = Hyperplane(search.space, grad).step(-_OVERSHOOT * margin)
                    radius = search.space.size(u)
                    continue
            factor = (rate * falling(k, self.n_steps, 1e-3)).exp_()
            radius, lowest = _next_radius(norm, margin > 0, size, radius, estimate, factor, lowest)
            radius = torch.minimum(radius, most)
            length = unit if norm in ("l1", "l0") else radius
            length = length * (step_size * falling(k, self.n_steps, _LAST_STEP[norm]))
            step = grad.sign() if norm == "linf" else grad / slope
            u = search.space.clip_(torch.addcmul(u, step, length))
            u = project_ball(u, norm, radius)
            if norm == "l0":
                _draw_to_zero_(u, falling(k, self.n_steps, 0))
        return u


def _next_radius(norm, adversarial, size, radius, estimate, factor, lowest):
    """Radius of the ball of the next step, and the smallest adversarial size of the run."""
    smaller, larger = size / factor, radius * factor
    first = torch.maximum(estimate, larger)
    if norm == "l0":
        smaller, larger = torch.minimum(smaller, size - 1), torch.maximum(larger, radius + 1)
        first = torch.maximum(larger, radius * _GROWTH_L0)
    smaller = torch.minimum(smaller, lowest)
    lowest = torch.where(adversarial, torch.minimum(lowest, size), lowest)
    larger = torch.where(lowest < torch.inf, larger, first)
    radius = torch.where(adversarial, smaller, larger)
    return (radius.clamp_min_(1) if norm == "l0" else radius), lowest


def _draw_to_zero_(u, share):
    """Make every value smaller by this share of the smallest of its row that is not zero."""
    size, most = u.abs(), torch.finfo(u.dtype).max
    # A zero becomes the largest number, by factors: a boolean mask takes several times as long.
    least = torch.eq(size, 0, out=torch.empty_like(u)).mul_(most).add_(size).amin(1, keepdim=True)
    least = least.masked_fill_(least == most, 0).mul_(share)
    return u.sub_(u.sign().mul_(least))
