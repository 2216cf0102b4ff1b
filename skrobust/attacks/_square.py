"""Square Attack: random search on the scores, one window of features at a time."""

from abc import ABC, abstractmethod
from itertools import groupby
from math import prod
from numbers import Integral, Real

import torch

from .._space import Space
from ..utils._random import RowNoise
from ..utils._sklearn import Interval, StrOptions
from ._base import BaseAttack
from ._losses import LOSSES, Margin
from ._search import Search
from ._windows import windows_of

# The share of the features that a window covers is halved after these queries of 10,000, and at the
# same fractions of any other number.
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

# Random numbers are drawn for several queries at once: few cost as much as hundreds.
_NUMBERS_AT_ONCE = 256

# So are windows, as long as their size is the same.
_READY_AT_ONCE = 32

# After so many queries the fallen are dropped where looking for them makes the device wait.
_PATIENCE = 16


class Square(BaseAttack):
    """Square Attack: random search that asks for scores only.

    Each query changes the values in one window, which becomes smaller as the attack goes on, and
    keeps the change unless the loss falls. It needs no gradients: it attacks trees, forests,
    neighbours and everything else with ``decision_function`` or ``predict_proba``, and tells
    whether a network hides its gradients.

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

    n_queries : int, default=5000
        Points, for each sample and restart, at which the model is asked for its scores. One of
        those of the first run is the input itself. The windows shrink on a schedule over all
        queries: fewer queries are another attack, not the beginning of a longer one.

    p_init : float, default=0.8
        Share of the features, in (0, 1], that the first windows cover.

    loss : {"margin", "ce"}, default="margin"
        Loss to climb: the margin ``max_{j != y} z_j - z_y`` of the scores, or their cross-entropy.

    n_restarts : int, default=1
        Number of runs, each with other draws.

    stop_on_success : bool, default=False
        Whether to leave a sample alone once it is adversarial, which is much faster. Otherwise the
        attack goes on to the largest margin. Scores stop in any case.

    batch_size : int or "auto", default="auto"
        Samples a batch; it bounds the memory. Apart from rounding, results do not depend on it.

    verbose : int, default=0
        With 1, a progress bar over the batches.

    random_state : int, RandomState instance or None, default=None
        Seed of the search. What a sample draws depends on the seed and on its values alone, not on
        the samples beside it.

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
    PGD : Where there are gradients: far fewer passes.

    Notes
    -----
    Samples of shape (channels, height, width) are images, and windows are squares over all of their
    channels, as in [1]_, Algorithms 1 to 3, and with ``norm="l1"`` in [2]_. In linf a query sets a
    window to ``x - eps`` or ``x + eps``, one of both a channel, clipped to the box. In l2 and l1 it
    empties one window of its perturbation, adds a bump to what is in another, and scales the latter
    so that the whole has norm ``eps``. A bump of which the box cuts off a part grows by as much
    before it is cut, which the paper leaves to later windows: with inputs in a box, as images are,
    the attack is much stronger for it. The windows of bumps become no smaller than five pixels a
    side, where the paper's become three: the first thousand queries find more by that.

    Flat samples have no places, and a window is a random set of features instead. In linf every
    feature of it goes from the end where it is to the other; in l2 and l1 the bump has random
    signs. Where the schedule has come to single features, some windows are still larger: 1, 2, 1,
    3, 1, 2, 1, 4, ... features in linf and one more in the others. Moves that leave the scores as
    they are are kept, since those of trees are constant in steps.

    Probabilities count by their logarithms. The search has no guarantee but that the margin never
    falls: on a linear model it ends at the optimum in linf, and in l2 and l1 near it.

    References
    ----------
    .. [1] M. Andriushchenko, F. Croce, N. Flammarion and M. Hein, "Square attack: a query-efficient
       black-box adversarial attack via random search", ECCV 2020.
    .. [2] F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
       classifiers", ICML 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from skrobust.attacks import Square
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> clf = RandomForestClassifier(20, random_state=0).fit(X[:400], y[:400])
    >>> X, y = X[400:], y[400:]
    >>> attack = Square(eps=0.3 * X.std(axis=0), n_queries=200, random_state=0)
    >>> X_adv = attack.perturb(clf, X, y)
    >>> print(f"{clf.score(X, y):.3f} {clf.score(X_adv, y):.3f}")
    0.953 0.746
    """

    _access = "scores"

    _parameter_constraints: dict = {
        **BaseAttack._parameter_constraints,
        "n_queries": [Interval(Integral, 1, None, closed="left")],
        "p_init": [Interval(Real, 0, 1, closed="right")],
        "loss": [StrOptions({"margin", "ce"})],
        "n_restarts": [Interval(Integral, 1, None, closed="left")],
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
        n_queries=5000,
        p_init=0.8,
        loss="margin",
        n_restarts=1,
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
        self.n_queries = n_queries
        self.p_init = p_init
        self.loss = loss
        self.n_restarts = n_restarts
        self.stop_on_success = stop_on_success
        self.batch_size = batch_size
        self.verbose = verbose
        self.random_state = random_state

    def _around(self, threat, x):
        return threat.around(x) if self.norm == "linf" else Space(threat, self.norm, x)

    def _attack_batch(self, model, region, labels, *, seed, targeted, stop_on_success):
        loss = LOSSES[self.loss](labels, targeted=targeted)
        walk = _Walk(model, region, loss, stop_on_success=stop_on_success)
        walk.look_at_inputs()
        moves, scale = (_Flips, "eps") if self.norm == "linf" else (_Transfers, "scale")
        windows = windows_of(region.x, getattr(region, scale), self.norm)
        if windows.n_free == 0:
            return walk.result()
        shares = _window_shares(self.p_init, self.n_queries)
        for restart in range(self.n_restarts):
            if not len(walk):
                break
            draws = _Draws(RowNoise(walk.region.x, seed + restart))
            # The input was the first query of the first run.
            walk.run(moves(walk.region, windows), draws, shares if restart else shares[:-1])
        return walk.result()


def _window_shares(p_init, n_queries):
    """Share of the features that changes with each query of a run."""
    parts = (10_000 * query / n_queries for query in range(n_queries))
    return [p_init / 2 ** sum(part > mark for mark in _HALVED_AFTER) for part in parts]


class _Walk(Search):
    """Random search: move all rows, and take back the moves of those that it leads down."""

    def run(self, moves, draws, shares):
        """One run, of as many queries as there are shares."""
        if not shares:
            return
        # A look at the margins makes any other device than the CPU wait.
        patience = 1 if self.x_best.device.type == "cpu" else _PATIENCE
        moves.start(draws)
        logits, margin, value = self._judge_point(moves)
        # What counts as equal must not depend on the rows that pass beside it.
        rounding = logits.abs().amax(1, keepdim=True).mul_(4 * torch.finfo(logits.dtype).eps)
        for query, (size, n_ready) in enumerate(moves.schedule(shares), start=1):
            if self.stop_on_success and query % patience == 0 and bool((margin > 0).any()):
                self._remember(moves.point(), margin)
                kept = self._drop(at_least=1)
                if not len(self):
                    return
                margin, value, rounding = margin[kept], value[kept], rounding[kept]
                moves.take(kept)
                draws.take(kept)
            if n_ready:
                moves.prepare(draws, size, n_ready)
            moves.propose()
            _, margin_new, value_new = self._judge_point(moves)
            # Scores of trees are constant in steps, and equal ones are the way across.
            better = value_new >= value - rounding
            if value is not margin:  # what is adversarial stays so
                fallen, fallen_new = margin > 0, margin_new > 0
                better = torch.where(fallen == fallen_new, better, fallen_new)
            moves.settle(better.to(value.dtype))
            same = value is margin
            margin = torch.where(better, margin_new, margin)
            value = margin if same else torch.where(better, value_new, value)
        self._remember(moves.point(), margin)
        self._drop(at_least=1)

    def _judge_point(self, moves):
        logits = self.model.logits(moves.point())
        margin = self.loss.margin(logits)
        return logits, margin, margin if isinstance(self.loss, Margin) else self.loss.value(logits)


class _Draws:
    """The random numbers of the rows, one query after the other."""

    def __init__(self, noise):
        self.noise = noise
        self.dtype = noise.dtype
        self.n_left = 0

    def uniform(self, n_values):
        """Tensor of shape (n_samples, n_values), in [0, 1)."""
        if n_values > _NUMBERS_AT_ONCE:
            return self.noise.uniform(n_values)
        if self.n_left < n_values:
            self.numbers, self.n_left = self.noise.uniform(_NUMBERS_AT_ONCE), _NUMBERS_AT_ONCE
        end = _NUMBERS_AT_ONCE - self.n_left + n_values
        self.n_left -= n_values
        return self.numbers[:, end - n_values : end]

    def below(self, n, n_values=1):
        """Int64 tensor of shape (n_samples, n_values), from 0 to n - 1."""
        # In a low precision the product may round up.
        return (self.uniform(n_values) * n).long().clamp_max_(n - 1)

    def coin(self, n_values):
        """Tensor of shape (n_samples, n_values) of zeros and ones."""
        return self.uniform(n_values).round()

    def take(self, rows):
        """Keep some of the rows."""
        self.noise = self.noise.take(rows)
        if self.n_left:
            self.numbers = self.numbers[rows]


class _Moves(ABC):
    """What the moves have in common.

    A move is written into ``z``, the one tensor of points there is, and taken back where it is
    refused: what it costs goes with the size of the window. What a move needs and does not depend
    on where the rows are is made ready for several queries at once, as tensors of shape (n_queries,
    n_samples, k). Choices are numbers, 0 or 1, with which `lerp` is exact, and on a CPU
    several times faster than `where` with booleans.
    """

    z: torch.Tensor

    def __init__(self, x, windows):
        self.windows = windows
        self.shape = x.shape[1:]
        self.n_ready = 0

    def schedule(self, shares):
        """Size of the window of each query but the first, and for how many to make it ready now."""
        sizes = [self._size(share, query) for query, share in enumerate(shares)][1:]
        for size, group in groupby(sizes):
            n_left = len(list(group))
            # As much as the points themselves take, and not more.
            n_at_once = max(1, prod(self.shape) // self.windows.n_features(size))
            n_at_once = min(n_at_once, _READY_AT_ONCE)
            for i in range(n_left):
                yield size, 0 if i % n_at_once else min(n_at_once, n_left - i)

    @abstractmethod
    def _size(self, share, query):
        """Size of a window."""

    def point(self):
        """Where all rows are."""
        return self.z.view(-1, *self.shape)

    def take(self, rows):
        """Keep some of the rows."""
        if self.n_ready:
            left = {name: part[len(part) - self.n_ready :] for name, part in self.ready.items()}
            self._make_ready(**{name: part[:, rows] for name, part in left.items()})

    def _make_ready(self, **parts):
        self.ready, self.n_ready = parts, len(parts["index"])
        # To make views is most of what a small window costs: all of them by one call.
        self.views = {name: part.unbind(0) for name, part in parts.items()}

    def _next_ready(self):
        """What was made ready for the next query, name by name."""
        self.n_ready -= 1
        return {name: views[-1 - self.n_ready] for name, views in self.views.items()}


class _Flips(_Moves):
    """Moves for linf: the values in a window go to the ends of what is admissible."""

    def __init__(self, region, windows):
        super().__init__(region.x, windows)
        self.low, self.high = region.low.flatten(1), region.high.flatten(1)

    def _size(self, share, query):
        return self.windows.size(share, query)

    def start(self, draws):
        """Go to a random corner."""
        self.z = torch.where(self.windows.corner(draws) > 0, self.high, self.low)

    def take(self, rows):
        """Keep some of the rows."""
        super().take(rows)
        self.low, self.high, self.z = self.low[rows], self.high[rows], self.z[rows]

    def prepare(self, draws, size, n_queries):
        """Draw the windows of the next queries, and to which ends they go."""
        index = self.windows.draw(draws, size, n_queries)
        low, high = _at(self.low, index), _at(self.high, index)
        up = self.windows.up(draws, size, n_queries)
        self.has_side = up is not None
        if self.has_side:
            low, high = torch.lerp(low, high, up), torch.lerp(high, low, up)
        self._make_ready(index=index, one=low, other=high)

    def propose(self):
        """Move a window of each row."""
        ready = self._next_ready()
        self.index, one, other = ready["index"], ready["one"], ready["other"]
        self.old = self.z.gather(1, self.index)
        turned = torch.empty_like(one)
        if self.has_side:
            # A window that has these values already would be a query for nothing.
            turned = torch.eq(self.old, one, out=turned).amin(1, keepdim=True)
        else:
            torch.lt(self.old, other, out=turned)
        self.new = torch.lerp(one, other, turned)
        self.z.scatter_(1, self.index, self.new)

    def settle(self, accepted):
        """Take the moves of the other rows back."""
        accepted = accepted.to(self.z)
        self.z.scatter_(1, self.index, torch.lerp(self.old, self.new, accepted))


class _Transfers(_Moves):
    """Moves for l2 and l1: the norm of one window goes to another, and what is left of the budget.

    Mass, in the units of the space, is the square of the l2 norm, or the l1 norm; ``left`` is the
    mass of the budget that is not used.
    """

    def __init__(self, space, windows):
        super().__init__(space.x, windows)
        self.space = space
        self.x = space.x.flatten(1)
        self.box = _box(space)
        self.box_is_flat = isinstance(self.box[0], float)

    def _size(self, share, query):
        return self.windows.bump_size(share, query)

    def start(self, draws):
        """Go to bumps all over the sample, as far as the budget goes."""
        space = self.space
        u = self.windows.bumps(draws)
        # A little inside the ball: what is judged must not move when its rounding is made good.
        radius = space.radius * (1 - 64 * torch.finfo(u.dtype).eps)
        space.clip_(space.resize_(u, radius))
        self.z = space.point(u).flatten(1)
        budget = self._plus(torch.zeros_like(u[:, :1]), torch.full_like(u[:, :1], radius))
        self.left = self._plus(budget, space.size(u), -1)

    def take(self, rows):
        """Keep some of the rows."""
        super().take(rows)
        self.x, self.z, self.left = self.x[rows], self.z[rows], self.left[rows]
        if not self.box_is_flat:
            self.box = [side[rows] for side in self.box]

    def prepare(self, draws, size, n_queries):
        """Draw both windows of the next queries and the bumps, and look up the room for them."""
        pairs = self.windows.draw(draws, size, 2 * n_queries).unflatten(0, (n_queries, 2))
        source, index = pairs.unbind(1)
        x_source, x = _at(self.x, pairs).unbind(1)
        ready = {"source": source, "index": index, "x_source": x_source, "x": x}
        ready["bump"] = self.windows.bump(draws, size, n_queries)
        scale = self.space.scale
        if not isinstance(scale, float):
            ready["scale_source"], ready["scale"] = _at(scale, pairs).unbind(1)
        if self.space.bottom is not None:
            low, high = self.box
            if not self.box_is_flat:
                low, high = (_at(side, index) for side in self.box)
                ready |= {"low": low, "high": high}
            for name, side in ("down", low), ("up", high):
                ready[name] = _over(side - x, ready.get("scale"))
        self._make_ready(**ready)

    def propose(self):
        """Empty one window of each row, and fill another."""
        z, ready = self.z, self._next_ready()
        index, x, scale = ready["index"], ready["x"], ready.get("scale")
        self.source, self.x_source, self.index = ready["source"], ready["x_source"], index
        self.old_source, self.old = z.gather(1, self.source), z.gather(1, index)
        taken = _over(self.old_source - self.x_source, ready.get("scale_source"))
        mass = self._plus(self.left, self.space.size(taken))
        z.scatter_(1, self.source, self.x_source)
        # Both windows may share values, which are empty by now.
        u, mass = self._blend(_over(z.gather(1, index) - x, scale), ready["bump"], mass)
        if self.space.bottom is not None:
            u = self._fit(u, ready["down"], ready["up"], mass)
        self.left_new = self._plus(mass, self.space.size(u), -1)
        self.new = u.add_(x) if scale is None else u.mul_(scale).add_(x)
        if self.space.bottom is not None:
            # The box by its own numbers: behind it may be a square root.
            self.new.clamp_(*(self.box if self.box_is_flat else (ready["low"], ready["high"])))
        z.scatter_(1, index, self.new)

    def settle(self, accepted):
        """Take the moves of the other rows back."""
        accepted = accepted.to(self.z)
        # In this order, as both windows may share values.
        self.z.scatter_(1, self.source, torch.lerp(self.old_source, self.x_source, accepted))
        self.z.scatter_(1, self.index, torch.lerp(self.old, self.new, accepted))
        self.left = torch.lerp(self.left, self.left_new, accepted)

    def _blend(self, old, bump, mass):
        """What is there plus the bump, with all the mass there is, as much in each channel."""
        n, n_channels = len(old), self.windows.n_channels
        size = self.space.size(old)
        share = mass = self._plus(mass, size).clamp_min_(0)
        if n_channels > 1:
            old, bump = (u.reshape(n * n_channels, -1) for u in (old, bump))
            share = (mass / n_channels).repeat_interleave(n_channels, 0)
            size = self.space.size(old)
        # A little less than all of it, so that a bump of opposite sign does not leave zero.
        u = torch.addcdiv(bump, old, size.clamp_min_(_tiny(old) ** 0.5), value=0.999)
        u.mul_(self._root(share) / self.space.size(u))
        return u.view(n, -1), mass

    def _fit(self, u, down, up, mass):
        """Grow by as much as does not fit into the box, and cut it off."""
        kept = self.space.size(u.clamp(down, up)).clamp_min_(_tiny(u) ** 0.5)
        return u.mul_(self._root(mass) / kept).clamp_(down, up)

    def _plus(self, mass, size, sign=1):
        """The mass and that of something of this size."""
        if self.space.norm == "l2":
            return torch.addcmul(mass, size, size, value=sign)
        return torch.add(mass, size, alpha=sign)

    def _root(self, mass):
        return mass.sqrt() if self.space.norm == "l2" else mass


def _box(space):
    """Low and high side of the box: numbers, or tensors of flat rows where they vary."""
    if space.low is None:
        return -torch.inf, torch.inf
    box = space.low.flatten(1), space.high.flatten(1)
    first = [side[0, 0].item() for side in box]
    flat = all(bool((side == value).all()) for side, value in zip(box, first, strict=True))
    return first if flat else list(box)


def _at(values, index):
    """Values of flat rows at indices of shape (..., n, k)."""
    return values.expand(*index.shape[:-1], values.shape[1]).gather(-1, index)


def _over(delta, scale):
    return delta if scale is None else torch.where(scale > 0, delta / scale, 0.0)


def _tiny(u):
    return torch.finfo(u.dtype).tiny
