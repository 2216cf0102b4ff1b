"""Auto-PGD: projected gradient ascent that chooses its own steps."""

from numbers import Integral, Real
from types import SimpleNamespace

import torch

from .._region import norm_of, project_ball, spread_steepest
from .._space import Space
from ..utils._random import RowNoise
from ..utils._sklearn import Interval, StrOptions
from ._base import BaseAttack
from ._descent import movable
from ._losses import LOSSES, likeliest_others
from ._search import Search, replace_rows_

# In l1 the ascent starts so many radii away in a random direction: what the projection leaves of
# that is sparse. On 600 points of an adversarially trained network for MNIST, eps 10, 0.42 stood
# after one run, 0.48 from a point drawn from the ball, and 0.44 from 5 and 0.43 from 15 radii away.
_FARTHER = 9


class APGD(BaseAttack):
    """Auto-PGD: projected gradient ascent without a step size to choose.

    Each sample has its own step, which is halved whenever the ascent stalls and then goes on from
    the best point so far; a momentum term smooths the way. In l1 the steps are sparse, and the
    ascent begins in a larger ball.

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
        Norm of the ball.

    bounds : None or pair (low, high), default=None
        Box of valid inputs, in units of X; each side a number or an array of shape (n_features,).

    mask : None, str or array-like, default=None
        Features that the attack can change: booleans, indices or column names. None means all.

    n_steps : int, default=100
        Steps a restart. Each costs one pass forward and one to the input.

    n_restarts : int, default=1
        Number of runs, each from another point drawn from the ball.

    loss : {"ce", "margin", "dlr"}, default="ce"
        Loss to climb: the cross-entropy; the margin ``max_{j != y} z_j - z_y``; or the difference
        of logits ratio, the margin over ``z_(1) - z_(3)`` of the sorted logits ([1]_, eq. (6)),
        which with two classes is the margin itself.

    n_target_classes : int, default=None
        Multi-targeted attack: each restart heads for so many other classes one after the other,
        beginning with the likeliest, by the difference of their logit from the label's; with
        loss="dlr" in units of ``z_(1) - (z_(3) + z_(4)) / 2`` ([1]_, eq. (7)). It multiplies the
        passes; 9 is the number in [1]_. None, or a targeted attack: it does not.

    rho : float, default=0.75
        The step is halved where the loss has grown in less than this share of the steps since the
        last checkpoint (not in l1).

    momentum : float, default=0.75
        Share of each step that follows the gradient; the rest repeats the step before (not in l1).

    eot_samples : int, default=1
        Passes over which each gradient is averaged: for models that are random themselves
        (expectation over transformation).

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
    PGD : With a fixed schedule of steps.
    AutoAttack : An ensemble with this attack at its heart.

    Notes
    -----
    For linf and l2 the algorithm is that of [1]_, section 3: steps of length ``2 eps`` at first,
    and checkpoints at the shares 0, 0.22, ... of the steps, ``p_{j+1} = p_j + max(p_j - p_{j-1} -
    0.03, 0.06)``. For l1 it is that of [2]_, section 3: a step moves the steepest features only, a
    fifth of them at first and then two thirds of those which the best point has changed; it grows
    shorter by a factor of 1.5 down to a tenth of the radius, unless the best point has become
    sparser. The ascent spends 30 % of the steps in the ball of three times the radius, 30 % in that
    of twice the radius, and the rest in the ball itself. It starts from the projection of a point
    far outside, which is sparse; in l2 from a point on the sphere, in a random direction which the
    box leaves.

    The loss is compared through an increasing function of it that does not round to a constant
    where the model is sure. Points are ranked by the margin as in :class:`PGD`; the input itself is
    among them.

    References
    ----------
    .. [1] F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
       diverse parameter-free attacks", ICML 2020.
    .. [2] F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
       classifiers", ICML 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.neural_network import MLPClassifier
    >>> from skrobust.attacks import APGD
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = MLPClassifier((32,), max_iter=50, tol=0.01, random_state=0).fit(X, y)
    >>> attack = APGD(eps=1.0, bounds=(0, 16), n_steps=20, random_state=0)
    >>> X_adv = attack.perturb(clf, X[:200], y[:200])
    >>> bool(clf.score(X_adv, y[:200]) < clf.score(X[:200], y[:200]) - 0.2)
    True
    """

    _parameter_constraints: dict = {
        **BaseAttack._parameter_constraints,
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "n_restarts": [Interval(Integral, 1, None, closed="left")],
        "loss": [StrOptions(set(LOSSES))],
        "n_target_classes": [Interval(Integral, 1, None, closed="left"), None],
        "rho": [Interval(Real, 0, 1, closed="both")],
        "momentum": [Interval(Real, 0, 1, closed="right")],
        "eot_samples": [Interval(Integral, 1, None, closed="left")],
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
        n_steps=100,
        n_restarts=1,
        loss="ce",
        n_target_classes=None,
        rho=0.75,
        momentum=0.75,
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
        self.n_restarts = n_restarts
        self.loss = loss
        self.n_target_classes = n_target_classes
        self.rho = rho
        self.momentum = momentum
        self.eot_samples = eot_samples
        self.stop_on_success = stop_on_success
        self.batch_size = batch_size
        self.verbose = verbose
        self.random_state = random_state

    def _attack_batch(self, model, region, labels, *, seed, targeted, stop_on_success):
        search = Search(
            model,
            region,
            LOSSES[self.loss](labels, targeted=targeted),
            stop_on_success=stop_on_success,
            eot_samples=self.eot_samples,
        )
        logits = search.look_at_inputs()
        targets = None
        if self.n_target_classes is not None and not targeted:
            targets = likeliest_others(logits, labels, self.n_target_classes)
        for restart in range(self.n_restarts):
            for k, _ in enumerate(search.runs(targets, scaled=self.loss == "dlr")):
                noise = RowNoise(search.region.x, seed + k * self.n_restarts + restart)
                start = search.region.random(noise)
                if region.norm == "l1":
                    climb_sparsely(search, start, self.n_steps)
                    continue
                if region.norm == "l2" and not region.unlimited:
                    space = Space(region.threat, "l2", search.region.x)
                    far = space.point(space.resize_(space.unit(start), space.radius))
                    start = search.region.project_(far)
                climb_by_halving(search, start, self.n_steps, self.rho, self.momentum)
        return search.result()


class _State(SimpleNamespace):
    """Where every row is in its ascent, and the best that it has seen there.

    All attributes are tensors with one entry for each row.
    """

    z: torch.Tensor
    grad: torch.Tensor
    value: torch.Tensor

    def __init__(self, z, grad, value, **others):
        super().__init__(z=z, grad=grad, value=value, **others)
        self.z_max, self.grad_max, self.value_max = z.clone(), grad.clone(), value.clone()
        self.n_improved = torch.zeros_like(value)  # since the last checkpoint

    def move(self, z, grad, value):
        """Go on to points, which are remembered where the loss is the largest so far."""
        self.n_improved += value > self.value
        self.z, self.grad, self.value = z, grad, value
        bests = (self.z_max, z), (self.grad_max, grad), (self.value_max, value)
        replace_rows_(value > self.value_max, *bests)

    def go_back(self, where):
        """Return to the best point in some of the rows."""
        bests = (self.z, self.z_max), (self.grad, self.grad_max), (self.value, self.value_max)
        replace_rows_(where, *bests)

    def take(self, kept):
        """Keep some of the rows."""
        if kept is not None:
            for name, value in vars(self).items():
                setattr(self, name, value[kept])


def climb_by_halving(search, z, n_steps, rho=0.75, momentum=0.75):
    """Auto-PGD in linf and l2 from ``z``; what it finds is in ``search``."""
    grad, value, kept = search.gradient_and_value(z)
    state = _State(
        z,
        grad,
        value,
        z_before=z,
        step=torch.full_like(value, 2.0),
        halved=torch.zeros_like(value),
        value_max_before=value.clone(),
    )
    state.take(kept)
    last, checkpoints = 0, _checkpoints(n_steps)
    for k in range(1, n_steps + 1):
        if not len(search):
            return
        region = search.region
        moved = region.step_(state.z.clone(), state.grad, state.step)
        if k > 1:
            repeated = 2 * state.z - state.z_before
            region.project_(moved.lerp_(repeated, 1 - momentum))
        if k == n_steps:
            search.look(moved)
            return
        state.z_before = state.z
        grad, value, kept = search.gradient_and_value(moved)
        state.move(moved, grad, value)
        if k in checkpoints:
            stalled = state.n_improved < rho * (k - last)
            stalled |= (state.halved == 0) & (state.value_max <= state.value_max_before)
            state.step = torch.where(stalled, state.step / 2, state.step)
            state.go_back(stalled)
            state.halved = stalled.to(value)
            state.value_max_before = state.value_max.clone()
            state.n_improved.zero_()
            last = k
        state.take(kept)


def _checkpoints(n_steps):
    """Steps after which the step size is looked at ([1]_, section 3.1.1)."""
    points, gap, share = set(), 0.22, 0.22
    while share < 1:
        points.add(max(1, round(share * n_steps)))
        gap = max(gap - 0.03, 0.06)
        share += gap
    return points


def climb_sparsely(search, z, n_steps):
    """Auto-PGD in l1 from ``z``; what it finds is in ``search``."""
    space = Space(search.region.threat, "l1", search.region.x)
    u = space.resize_(space.unit(z), _FARTHER * space.radius)
    n_wide = round(0.3 * n_steps)
    n_moved = torch.full_like(u[:, :1], 0.2 * u.shape[1])
    for factor, n in ((3, n_wide), (2, n_wide)):
        if n:
            u = _project(space, u, factor)
            u = _climb_in_ball(search, space, u, n_moved, n, factor).z_max
            n_moved = norm_of(u, "l0", keepdim=True) / 1.5
    _climb_in_ball(search, space, _project(space, u, 1), n_moved, n_steps - 2 * n_wide, 1)


def _climb_in_ball(search, space, u, n_moved, n_steps, factor):
    """One phase of :func:`climb_sparsely`, in the ball of ``factor`` times the radius."""

    def evaluate(u):
        if factor == 1:
            grad, value, kept = search.gradient_and_value(space.point(u))
        else:  # nothing out there counts
            _, grad, value = search.evaluate(space.point(u), with_value=True)
            kept = None
        return space.pull(grad), value, kept

    radius = factor * space.radius
    grad, value, kept = evaluate(u)
    state = _State(
        u,
        grad,
        value,
        step=torch.full_like(value, radius),
        n_moved=n_moved,
        n_changed=torch.full_like(value, u.shape[1]),
    )
    period = max(1, round(0.04 * n_steps))
    for k in range(1, n_steps + 1):
        state.take(kept)
        space = space if kept is None else space.take(kept)
        if not len(state.z):
            break
        grad = movable(space, state.z, state.grad)
        direction = spread_steepest(grad, state.n_moved.clamp_min(1).long())
        length = direction.abs().sum(1, keepdim=True).clamp_min_(1)
        u = _project(space, state.z + direction.mul_(state.step / length), factor)
        if k == n_steps:
            if factor == 1:
                search.look(space.point(u))
            break
        grad, value, kept = evaluate(u)
        state.move(u, grad, value)
        if k % period == 0:
            n_changed = norm_of(state.z_max, "l0", keepdim=True)
            sparser = n_changed < 0.95 * state.n_changed
            shorter = (state.step / 1.5).clamp_min(radius / 10)
            state.step = torch.where(sparser, radius, shorter)
            state.n_moved, state.n_changed = n_changed / 1.5, n_changed
            state.go_back(sparser)
    return state


def _project(space, u, factor):
    radius = u.new_full((len(u), 1), factor * space.radius)
    return project_ball(u, "l1", radius, space.bottom, space.top)
