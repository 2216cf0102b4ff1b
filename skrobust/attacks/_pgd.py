"""Projected gradient descent."""

from numbers import Integral, Real

import torch

from ..utils._random import RowNoise
from ..utils._sklearn import Interval, StrOptions
from .core._ascent import ascend, step_fractions
from .core._base import BaseAttack
from .core._losses import LOSSES, likeliest_others
from .core._search import MarginSearch

# Steps from near the best point are shorter by this factor, so that they do not leave its
# neighbourhood at once. With 10 steps and 20 restarts, 11 of the 12 hard points among the first 500
# of the reference target fall; 2 with steps of full length, and 1 with restarts around the input.
_NEARBY = 0.3


class PGD(BaseAttack):
    """Projected gradient descent: many small steepest steps inside the ball.

    The attack climbs a loss of the classifier by steps along the steepest direction of the norm,
    each followed by an exact projection onto ball, box and mask. It starts from one or several
    points, and returns the best point that it has seen.

    Parameters
    ----------
    {estimator}

    {eps}

    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the ball. Each step in l1 is spread over the steepest twentieth of the features.

    {bounds}

    {mask}

    n_steps : int, default=40
        Steps per restart. Each costs one pass forward and one to the input.

    step_size : float, default=None
        Length of each step in units of X; with one ``eps`` per feature, of the feature with the
        largest one, the others in proportion. None means a schedule that needs no tuning: step
        k = 0, 1, ... has length ``(1 + cos(pi k / n_steps)) eps``, so that the first crosses the
        ball and the last ones settle.

    n_restarts : int, default=1
        Number of runs, each from another starting point. With ``random_start=False`` all would be
        the same: only 1 is allowed.

    restart_from : {"input", "best"}, default="input"
        Centre of the ball from which the starting points of later restarts are drawn: the input,
        or the best point so far, with steps that are shorter by a factor of 0.3. The latter is an
        iterated local search [6]_. With many restarts of few steps each, it is much stronger
        against models whose gradients mislead.

    random_start : bool, default=True
        Whether to start at a point drawn uniformly from the ball, or at the input.

    momentum : float, default=0.0
        Share of the direction so far that is added to each new gradient, which is first divided by
        its l1 norm [3]_. 0 means none; 1 is the value of the paper.

    loss : {"ce", "margin", "dlr"}, default="ce"
        Loss to climb: the cross-entropy; the margin ``max_{j != y} z_j - z_y``; or the margin over
        ``z_(1) - z_(3)`` of the sorted logits [2]_, which with two classes is the margin itself.

    n_target_classes : int, default=None
        Multi-targeted attack [4]_: each restart heads for this number of other classes one after
        the other, the likeliest first. The loss is the difference of their logit from that of the
        label (with loss="dlr", divided by the spread of the logits). It multiplies the passes. None
        is no such attack; a targeted attack ignores it.

    eot_samples : int, default=1
        Passes over which each gradient is averaged, for models that are random themselves
        (expectation over transformation [5]_).

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
    FGSM : One step only.
    skrobust.metrics.robust_accuracy_score : Accuracy under attack.

    Notes
    -----
    With gradient ``g`` and the steepest direction ``s(g)`` of length ``eps`` (``eps sign(g)`` for
    linf, ``eps g / ||g||_2`` for l2), one step is ``z <- P(z + f s(g))`` [1]_, eq. (2), where
    ``P`` is the projection of :meth:`~skrobust.threat.ThreatModel.project` and ``f`` the share of
    the radius. The cross-entropy is climbed along a multiple of its gradient that does not vanish
    where the model is confident. Points are ranked by the margin; the input itself is among them,
    so that the result is never worse than doing nothing.

    The schedule of decreasing steps follows [2]_, who show that a fixed step oscillates about the
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
        super().__init__(estimator, eps, norm, bounds, mask, batch_size, verbose, random_state)
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

    def _validate_params(self):
        super()._validate_params()
        if self.n_restarts > 1 and not self.random_start:
            raise ValueError(
                f"n_restarts must be 1 with random_start=False, as all restarts of {self!r} would "
                f"be the same; got {self.n_restarts}."
            )

    def _attack_batch(self, batch):
        search = MarginSearch(batch, LOSSES[self.loss], eot_samples=self.eot_samples)
        multi_targeted = self.n_target_classes is not None and not batch.targeted
        scouts = self.loss == "margin" and self.eot_samples == 1
        scouts = scouts and not (multi_targeted or batch.targeted)
        n_first, targets = self.n_steps, None
        if scouts:
            n_first -= step_towards_classes(search, self.n_steps // 4)
        elif self.random_start or multi_targeted:
            logits = search.try_inputs()
            if multi_targeted:
                targets = likeliest_others(logits, batch.labels, self.n_target_classes)
        for restart in range(self.n_restarts):
            fractions = self._fractions(restart, n_first)
            for _ in search.targets(targets, scaled=self.loss == "dlr"):
                z = self._start(search, restart, batch.seed, scouts)
                search.try_points(ascend(search, z, fractions, self.momentum))
        return search.result()

    def _fractions(self, restart, n_first):
        """Return the lengths of the steps of a run as shares of the radius."""
        n_steps = self.n_steps if restart else n_first
        fractions = step_fractions(n_steps, self.step_size, self.eps)
        nearby = restart and self.restart_from == "best"
        return [_NEARBY * fraction for fraction in fractions] if nearby else fractions

    def _start(self, search, restart, seed, scouted):
        """Return the starting points of a run."""
        feasible_set = search.feasible_set
        if restart == 0 and scouted:
            return search.best_points()
        if not self.random_start:
            return feasible_set.x.clone()
        start = feasible_set.random_start(RowNoise(feasible_set.x, seed + restart))
        if restart and self.restart_from == "best":
            start.sub_(feasible_set.x).add_(search.best_points())
            start = feasible_set.project_(start)
        return start


def step_towards_classes(search, n_classes):
    """Rank the inputs, and one steepest step from them to each of the likeliest other classes.

    Parameters
    ----------
    search : MarginSearch

    n_classes : int

    Returns
    -------
    n_steps : int
        Number of these classes: each costs one pass forward and one to the input.
    """
    logits, vjp = search.model(search.feasible_set.x)
    targets = likeliest_others(logits, search.loss.index[:, 0], n_classes)
    one_hot = torch.zeros_like(logits).scatter_(1, search.loss.index, 1)
    search.judge(search.feasible_set.x, search.loss.margin(logits))
    for column in targets.unbind(1):
        if not len(search):
            break
        grad = vjp(torch.zeros_like(logits).scatter_(1, column.unsqueeze(1), 1).sub_(one_hot))
        grad = grad if search.rows is None else grad[search.rows]
        search.try_points(search.feasible_set.maximize_linear(grad))
    return targets.shape[1]
