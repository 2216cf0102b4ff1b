"""Auto-PGD: projected gradient ascent that chooses its own steps."""

from numbers import Integral, Real

import torch

from ..threat import L0Set
from ..utils._random import RowNoise
from ..utils._rows import RowState, replace_rows_
from ..utils._sklearn import Interval, StrOptions
from .core._base import BaseAttack
from .core._best_points import BestPoints
from .core._losses import LOSSES, likeliest_others
from .core._search import MarginSearch

# In l1 the ascent starts from the projection of a point this number of radii away, which is sparse.
# On 600 points of an adversarially trained network for MNIST, eps 10, 0.42 stood after one run,
# 0.48 from a point drawn from the ball, and 0.44 from 5 and 0.43 from 15 radii away.
_FARTHER = 9


class APGD(BaseAttack):
    """Auto-PGD: projected gradient ascent without a step size to choose.

    Each sample has its own step size. Whenever its ascent stalls, the step size is halved, and the
    ascent goes on from the best point so far; a momentum term smooths the steps. In l1 the steps
    are sparse, and the ascent begins in a larger ball.

    Parameters
    ----------
    {estimator}

    {eps}

    {norm}

    {bounds}

    {mask}

    n_steps : int, default=100
        Steps per restart. Each costs one pass forward and one to the input.

    n_restarts : int, default=1
        Number of runs, each from another point drawn from the ball.

    loss : {"ce", "margin", "dlr"}, default="ce"
        Loss to climb: the cross-entropy; the margin ``max_{j != y} z_j - z_y``; or the difference
        of logits ratio, the margin over ``z_(1) - z_(3)`` of the sorted logits ([1]_, eq. (6)).
        With two classes the latter is the margin itself.

    n_target_classes : int, default=None
        Multi-targeted attack: each restart heads for this number of other classes one after the
        other, the likeliest first. The loss is the difference of their logit from that of the
        label; with loss="dlr", divided by ``z_(1) - (z_(3) + z_(4)) / 2`` ([1]_, eq. (7)). It
        multiplies the passes; [1]_ takes 9. None is no such attack; a targeted attack ignores it.

    rho : float, default=0.75
        The step is halved where the loss has grown in less than this share of the steps since the
        last checkpoint. Ignored in l1.

    momentum : float, default=0.75
        Share of each step that follows the gradient; the rest repeats the previous step. Ignored
        in l1.

    eot_samples : int, default=1
        Passes over which each gradient is averaged, for models that are random themselves
        (expectation over transformation).

    stop_on_success : bool, default=False
        Whether to stop for a sample once it is adversarial, which is faster. Otherwise the attack
        goes on to the strongest point. Scores stop in any case.

    {batch_size}

    {verbose}

    {random_state}

    Attributes
    ----------
    {estimator_}

    {n_features_in_}

    {feature_names_in_}

    See Also
    --------
    PGD : Projected gradient descent with a fixed schedule of steps.
    AutoAttack : Ensemble that contains this attack.

    Notes
    -----
    For linf and l2 the algorithm is from [1]_, section 3: steps of length ``2 eps`` at first, and
    checkpoints at the shares 0, 0.22, ... of the steps, ``p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03,
    0.06)``. In linf the ascent starts from a point of the ball, in l2 from a point of the sphere,
    clipped to the box.

    For l1 the algorithm is from [2]_, section 3. A step moves the steepest features only: a fifth
    of the features at first, and then two thirds of the number that the best point has changed. The
    step is divided by 1.5 at every checkpoint, down to a tenth of the radius, unless the best point
    has become sparser. The ascent spends 30 % of the steps in the ball of three times the radius,
    30 % in the ball of twice the radius, and the rest in the ball itself. It starts from the
    projection of a point far outside, which is sparse.

    Losses are compared by an increasing function that does not round to a constant where the model
    is confident. Points are ranked by the margin as in :class:`PGD`; the input itself is among
    them.

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
        super().__init__(estimator, eps, norm, bounds, mask, batch_size, verbose, random_state)
        self.n_steps = n_steps
        self.n_restarts = n_restarts
        self.loss = loss
        self.n_target_classes = n_target_classes
        self.rho = rho
        self.momentum = momentum
        self.eot_samples = eot_samples
        self.stop_on_success = stop_on_success

    def _attack_batch(self, batch):
        search = MarginSearch(batch, LOSSES[self.loss], eot_samples=self.eot_samples)
        logits = search.try_inputs()
        targets = None
        if self.n_target_classes is not None and not batch.targeted:
            targets = likeliest_others(logits, batch.labels, self.n_target_classes)
        climb = _CLIMBS[self.norm]
        for restart in range(self.n_restarts):
            for k, _ in enumerate(search.targets(targets, scaled=self.loss == "dlr")):
                seed = batch.seed + k * self.n_restarts + restart
                noise = RowNoise(search.feasible_set.x, seed)
                climb(search, noise, self.n_steps, self.rho, self.momentum)
        return search.result()


def climb_from_ball(search, noise, n_steps, rho, momentum):
    """Run Auto-PGD from a point of the ball."""
    climb_by_halving(search, search.feasible_set.random_start(noise), n_steps, rho, momentum)


def climb_from_sphere(search, noise, n_steps, rho, momentum):
    """Run Auto-PGD from a point of the sphere, clipped to the box."""
    feasible_set = search.feasible_set
    u = feasible_set.to_units(feasible_set.random_start(noise))
    start = feasible_set.from_units(feasible_set.resize_(u, feasible_set.radius))
    climb_by_halving(search, start, n_steps, rho, momentum)


def climb_by_halving(search, z, n_steps, rho=0.75, momentum=0.75):
    """Run Auto-PGD in linf or l2: steps that are halved at checkpoints where the ascent stalls.

    Parameters
    ----------
    search : MarginSearch
        Remembers the best points.

    z : tensor of shape (n, ...)
        Starting points.

    n_steps : int

    rho, momentum : float
        See :class:`APGD`.
    """
    margin, grad, value = search.evaluate(z, with_value=True)
    kept = search.judge(z, margin)
    state = AscentState(
        z,
        grad,
        value,
        z_before=z,
        step=torch.full_like(value, 2.0),
        halved=torch.zeros_like(value),
        value_before=value.clone(),
    )
    last, checkpoints = 0, _checkpoints(n_steps)
    for k in range(1, n_steps + 1):
        state.keep(kept)
        if not len(search):
            return
        moved = _step_with_momentum(search.feasible_set, state, momentum if k > 1 else 1)
        if k == n_steps:
            search.try_points(moved)
            return
        state.z_before = state.z
        margin, grad, value = search.evaluate(moved, with_value=True)
        kept = search.judge(moved, margin)
        state.move(moved, grad, value)
        if k in checkpoints:
            _halve_stalled(state, least=rho * (k - last))
            last = k


def _step_with_momentum(feasible_set, state, momentum):
    """Return the next points: a projected step, mixed with a repetition of the last one."""
    moved = feasible_set.step_(state.z.clone(), state.grad, state.step)
    if momentum < 1:
        repeated = 2 * state.z - state.z_before
        feasible_set.project_(moved.lerp_(repeated, 1 - momentum))
    return moved


def _halve_stalled(state, least):
    """Halve the steps of rows that stall, and return them to their best points.

    A row stalls if fewer than ``least`` steps improved, or if neither its step nor its best value
    has changed since the last checkpoint.
    """
    stalled = state.n_improved < least
    stalled |= (state.halved == 0) & (state.best.score <= state.value_before)
    state.step = torch.where(stalled, state.step / 2, state.step)
    state.return_to_best(stalled)
    state.halved = stalled.to(state.value)
    state.value_before = state.best.score.clone()
    state.n_improved.zero_()


def _checkpoints(n_steps):
    """Return the steps after which the step size is checked (Croce & Hein 2020, section 3.1.1)."""
    points, gap, share = set(), 0.22, 0.22
    while share < 1:
        points.add(max(1, round(share * n_steps)))
        gap = max(gap - 0.03, 0.06)
        share += gap
    return points


def climb_sparsely(search, noise, n_steps, rho, momentum):
    """Run Auto-PGD in l1: sparse steps, first in larger balls.

    Parameters
    ----------
    search : MarginSearch
        Remembers the best points.

    noise : RowNoise
        For the starting points.

    n_steps : int

    rho, momentum : ignored
    """
    feasible_set = search.feasible_set
    u = feasible_set.to_units(feasible_set.random_start(noise))
    u = feasible_set.resize_(u, _FARTHER * feasible_set.radius)
    n_wide = round(0.3 * n_steps)
    n_moved = torch.full_like(u[:, :1], 0.2 * u.shape[1])
    for factor, n in ((3, n_wide), (2, n_wide)):
        if n:
            u = feasible_set.project_units(u, factor * feasible_set.radius)
            u = _climb_in_ball(search, u, n_moved, n, factor).best.z
            n_moved = L0Set.size(u) / 1.5
    u = feasible_set.project_units(u)
    _climb_in_ball(search, u, n_moved, n_steps - 2 * n_wide, 1)


def _climb_in_ball(search, u, n_moved, n_steps, factor):
    """Run one phase of :func:`climb_sparsely`, in the ball of ``factor`` times the radius."""
    radius = factor * search.feasible_set.radius
    grad, value, kept = _evaluate_units(search, u, factor)
    state = AscentState(
        u,
        grad,
        value,
        step=torch.full_like(value, radius),
        n_moved=n_moved,
        n_changed=torch.full_like(value, u.shape[1]),
    )
    period = max(1, round(0.04 * n_steps))
    for k in range(1, n_steps + 1):
        state.keep(kept)
        if not len(search):
            break
        u = _sparse_step(search.feasible_set, state, radius)
        if k == n_steps:
            if factor == 1:
                search.try_points(search.feasible_set.from_units(u))
            break
        grad, value, kept = _evaluate_units(search, u, factor)
        state.move(u, grad, value)
        if k % period == 0:
            _adapt_sparsity(state, radius)
    return state


def _evaluate_units(search, u, factor):
    """Return gradients, values and the rows that remain; points outside the set do not count."""
    z = search.feasible_set.from_units(u)
    margin, grad, value = search.evaluate(z, with_value=True)
    grad = search.feasible_set.grad_to_units(grad)
    return grad, value, search.judge(z, margin) if factor == 1 else None


def _sparse_step(feasible_set, state, radius):
    """Return the points after a step of the steepest features."""
    grad = feasible_set.unblocked(state.z, state.grad)
    direction = feasible_set.steepest_signs(grad, state.n_moved.clamp_min(1).long())
    length = feasible_set.size(direction).clamp_min_(1)
    return feasible_set.project_units(state.z + direction.mul_(state.step / length), radius)


def _adapt_sparsity(state, radius):
    """Shorten the steps of rows whose best points have not become sparser, and restart the others.

    A restarted row returns to its best point, with steps as long as the radius.
    """
    n_changed = L0Set.size(state.best.z)
    sparser = n_changed < 0.95 * state.n_changed
    state.step = torch.where(sparser, radius, (state.step / 1.5).clamp_min(radius / 10))
    state.n_moved, state.n_changed = n_changed / 1.5, n_changed
    state.return_to_best(sparser)


class AscentState(RowState):
    """Present points of an ascent, with gradients and values, and the best of each row.

    Parameters
    ----------
    z, grad : tensors of shape (n, ...)
        Points and gradients.

    value : tensor of shape (n, 1)
        Values of the loss.

    **others : tensors of shape (n, ...)
        More attributes.

    Attributes
    ----------
    best : BestPoints
        Points ``z`` and gradients ``grad`` with the largest values.

    n_improved : tensor of shape (n, 1)
        Number of steps that improved the value since the last checkpoint.
    """

    def __init__(self, z, grad, value, **others):
        n_improved = torch.zeros_like(value)
        super().__init__(z=z, grad=grad, value=value, n_improved=n_improved, **others)
        self.best = BestPoints(value, z=z, grad=grad)

    def move(self, z, grad, value):
        """Go on to other points, and remember the best."""
        self.n_improved += value > self.value
        self.z, self.grad, self.value = z, grad, value
        self.best.update(value, z=z, grad=grad)

    def return_to_best(self, where):
        """Return to the best points in some of the rows."""
        best = self.best
        replace_rows_(where, (self.z, best.z), (self.grad, best.grad), (self.value, best.score))


_CLIMBS = {"linf": climb_from_ball, "l2": climb_from_sphere, "l1": climb_sparsely}
