"""The Square Attack."""

from collections.abc import Callable
from functools import partial
from numbers import Integral, Real

import torch

from ..utils._random import RowNoise
from ..utils._rows import RowState
from ..utils._sklearn import Interval, StrOptions
from ._square_proposals import BufferedNoise, MassTransfers, Proposals, SignFlips
from ._square_windows import make_windows
from .core._base import BaseAttack
from .core._losses import LOSSES
from .core._search import MarginSearch

# The share of the features that a window covers is halved after these queries of 10,000, and at the
# same fractions of any other number.
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

# On devices other than the CPU, fallen rows are dropped after this number of queries.
_PATIENCE = 16


class Square(BaseAttack):
    """Square Attack: random search by scores, one window of features at a time.

    Each query changes the values in one window, which becomes smaller as the attack goes on, and
    keeps the change unless the loss decreases. It needs no gradients: it attacks trees, forests,
    nearest neighbours and every other classifier with ``decision_function`` or ``predict_proba``,
    and reveals networks that mask their gradients.

    Parameters
    ----------
    {estimator}

    {eps}

    {norm}

    {bounds}

    {mask}

    n_queries : int, default=5000
        Evaluations of the scores for each sample and restart. The first of the first run is the
        input itself. The windows shrink on a schedule over all queries: an attack with fewer
        queries is not the beginning of a longer one.

    p_init : float, default=0.8
        Share of the features, in (0, 1], that the first windows cover.

    loss : {"margin", "ce"}, default="margin"
        Loss to climb: the margin ``max_{j != y} z_j - z_y`` of the scores, or their cross-entropy.

    n_restarts : int, default=1
        Number of runs, each with other random draws.

    stop_on_success : bool, default=False
        Whether to stop for a sample once it is adversarial, which is much faster. Otherwise the
        attack goes on to the largest margin. Scores stop in any case.

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
    PGD : Attack by gradients, with far fewer passes.

    Notes
    -----
    Samples of shape (channels, height, width) are images, and windows are squares over all of their
    channels, as in [1]_, Algorithms 1 to 3, and with ``norm="l1"`` in [2]_. In linf a query sets
    each channel of a window to ``x - eps`` or ``x + eps``, clipped to the box. In l2 and l1 it
    removes the perturbation of one window, adds a bump to another, and scales the latter so that
    the perturbation has norm ``eps``. It differs from the papers as follows. A bump is scaled up by
    the part that the box cuts off, which the papers leave to later windows: with inputs in a box,
    such as images, the attack is much stronger by it. The windows of bumps are at least five pixels
    wide, in place of three: the first thousand queries find more.

    For flat samples, a window is a random set of features. In linf every feature of the set goes to
    its other end; in l2 and l1 the bump has random signs. Where the schedule reaches single
    features, some windows are still larger: 1, 2, 1, 3, 1, 2, 1, 4, ... features in linf, and one
    more in l2 and l1. Changes that leave the scores equal are kept, since the scores of trees are
    piecewise constant.

    Probabilities count by their logarithms. The only guarantee of the search is that the margin
    never decreases: on a linear model it ends at the optimum in linf, and near it in l2 and l1.

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
        super().__init__(estimator, eps, norm, bounds, mask, batch_size, verbose, random_state)
        self.n_queries = n_queries
        self.p_init = p_init
        self.loss = loss
        self.n_restarts = n_restarts
        self.stop_on_success = stop_on_success

    def _attack_batch(self, batch):
        search = RandomSearch(batch, LOSSES[self.loss])
        search.try_inputs()
        windows = make_windows(batch.feasible_set)
        if windows.n_free == 0:
            return search.result()
        shares = _window_shares(self.p_init, self.n_queries)
        for restart in range(self.n_restarts):
            if not len(search):
                break
            noise = BufferedNoise(RowNoise(search.feasible_set.x, batch.seed + restart))
            proposals = _PROPOSALS[self.norm](search.feasible_set, windows)
            # The input was the first query of the first run.
            search.run(proposals, noise, shares if restart else shares[:-1])
        return search.result()


_PROPOSALS: dict[str, Callable[..., Proposals]] = {
    "linf": SignFlips,
    "l2": partial(MassTransfers, order=2),
    "l1": partial(MassTransfers, order=1),
}


def _window_shares(p_init, n_queries):
    """Return the share of the features that changes with each query of a run."""
    parts = (10_000 * query / n_queries for query in range(n_queries))
    return [p_init / 2 ** sum(part > mark for mark in _HALVED_AFTER) for part in parts]


class RandomSearch(MarginSearch):
    """Random search: change all rows, and keep the changes that do not decrease the loss."""

    def run(self, proposals, noise, shares):
        """Run once, with one query for each share.

        Parameters
        ----------
        proposals : Proposals

        noise : BufferedNoise

        shares : list of float
            Shares of the features in the windows.
        """
        if not shares:
            return
        proposals.start(noise)
        logits = self._logits(proposals)
        state = RowState(
            margin=self.loss.margin(logits),
            value=self.loss.value(logits),
            # Differences up to this do not count. It must not depend on the other rows.
            rounding=logits.abs().amax(1, keepdim=True) * (4 * torch.finfo(logits.dtype).eps),
        )
        for query, share in enumerate(shares[1:], start=1):
            if query % self._patience == 0:
                kept = self._drop_fallen(proposals, state)
                if kept is not None:
                    state.keep(kept)
                    proposals, noise = proposals.take(kept), noise.take(kept)
                if not len(self):
                    return
            proposals.propose(noise, share, query)
            logits = self._logits(proposals)
            margin, value = self.loss.margin(logits), self.loss.value(logits)
            better = _is_better(margin, value, state)
            proposals.accept(better)
            state.margin = torch.where(better, margin, state.margin)
            state.value = torch.where(better, value, state.value)
        self.rank(proposals.points(), state.margin)
        self._drop(at_least=1)

    @property
    def _patience(self):
        """Number of queries after which fallen rows are dropped."""
        # Any device but the CPU has to wait for the number of rows.
        return 1 if self.feasible_set.x.device.type == "cpu" else _PATIENCE

    def _drop_fallen(self, proposals, state):
        if not (self.stop_on_success and bool((state.margin > 0).any())):
            return None
        self.rank(proposals.points(), state.margin)
        return self._drop(at_least=1)

    @torch.no_grad()
    def _logits(self, proposals):
        return self.model.logits(proposals.points())


def _is_better(margin, value, state):
    """Return whether each row may move: no adversarial point is given up for another point."""
    # Scores of trees are piecewise constant: moves between equal scores cross the plateaus.
    better = value >= state.value - state.rounding
    fallen = margin > 0
    return torch.where(fallen == (state.margin > 0), better, fallen)
