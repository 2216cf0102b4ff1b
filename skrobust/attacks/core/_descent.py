"""Descent to the closest adversarial point in several runs: the loop, schedules and restarts."""

from abc import abstractmethod
from math import cos, pi

import torch

from ...utils._random import RowNoise
from ...utils._rows import RowState
from ._losses import CrossEntropy, Margin
from ._minimum_norm import MinimumNormAttack
from ._search import NormSearch

# Distances are not above this, so that their squares are finite.
_LONGEST = 1e16

# Where the model is linear, the boundary is met exactly, and rounding would decide on which side.
_BEYOND = 1.001


class RestartedDescent(MinimumNormAttack):
    """Base class of minimum-norm attacks that descend in several runs.

    The first run starts from the input, the others from random points around the best point. A
    subclass implements ``_descend``, one run, and has the parameters ``n_steps`` and
    ``n_restarts``.

    Attributes
    ----------
    _losses : tuple of Loss classes
        Losses that the runs climb in turn. The margin is that of one class, which changes on the
        way; the cross-entropy heads for all classes, and finds points that are closer by one per
        cent on ordinarily trained networks for MNIST. Each finds points that the other does not.

    confidence : float
        Margin that a point must exceed to count as adversarial; a parameter where an attack has it.
    """

    _losses: tuple = (CrossEntropy, Margin)
    confidence = 0.0

    def _attack_batch(self, batch):
        search = NormSearch(batch, confidence=self.confidence)
        state = DescentState(search)
        shares = self._noise_shares()
        for run in range(self.n_restarts):
            search.climb(self._losses[run % len(self._losses)])
            if run:
                noise = RowNoise(search.feasible_set.x, batch.seed + run)
                state.restart(search, noise, shares[(run - 1) % len(shares)])
            self._descend(search, state)
            if not len(search):
                return search.result()
        search.try_points(state.u)
        return search.result()

    def _noise_shares(self):
        """Return the noise of the restarts, in turn, relative to the largest change of the best."""
        return (1.0,)

    @abstractmethod
    def _descend(self, search, state):
        """Descend from ``state.u`` in ``n_steps`` steps, and leave the last point there.

        Parameters
        ----------
        search : NormSearch

        state : DescentState
            One entry for each row that is searched. Attributes that a run adds are kept for the
            next one, without the rows that are dropped meanwhile.
        """


class DescentState(RowState):
    """State of the rows in a descent.

    Attributes
    ----------
    u : tensor of shape (n, d)
        Present points.

    spread : None or tensor of shape (n, 1)
        Largest change of a feature by the noise of the restart; None at the start of the first run.

    excess : tensor of shape (n, 1)
        Logarithm of the size of the starting point over that of the best point; zero where there
        is no best point.

    fallback : None or tensor of shape (n, 1)
        Largest change to draw restarts from where no adversarial point is known; None means that
        of ``u``.
    """

    def __init__(self, search):
        super().__init__(
            u=search.feasible_set.zeros(),
            spread=None,
            excess=torch.zeros_like(search.best.score),
            fallback=None,
        )

    def restart(self, search, noise, share):
        """Go to random points around the best ones.

        The change of each feature is uniform, up to a share of the largest change of the best
        point. Where no adversarial point is known, points are drawn around the input.

        Parameters
        ----------
        search : NormSearch

        noise : RowNoise

        share : float
        """
        best, size = search.closest()
        found = size < torch.inf
        fallback = self.u if self.fallback is None else self.fallback.expand_as(self.u)
        self.spread = torch.where(found, share * best, fallback).abs().amax(1, keepdim=True)
        change = noise.uniform(best.shape[1]).mul_(2).sub_(1).mul_(self.spread)
        # The best point is zero where there is none.
        self.u = search.feasible_set.clip_(change.add_(best))
        ratio = search.feasible_set.size(self.u) / size.clamp_min(torch.finfo(size.dtype).tiny)
        self.excess = torch.where(found, ratio.clamp_min(1).log_(), 0.0)


def descent_steps(search, state, n_steps):
    """Iterate over the steps of a run, dropping the rows that are done.

    Parameters
    ----------
    search : NormSearch

    state : DescentState

    n_steps : int

    Yields
    ------
    k : int
        Number of the step.

    margin : tensor of shape (n, 1)
        Margins at ``state.u``.

    grad : tensor of shape (n, d)
        Gradients of the loss there.
    """
    for k in range(n_steps):
        margin, grad = search.gradient(state.u)
        kept = search.drop()
        if kept is not None:
            state.keep(kept)
            margin, grad = margin[kept], grad[kept]
        if not len(search):
            return
        yield k, margin, grad


def cosine_decay(k, n_steps, end=0.01):
    """Return a factor that decreases from 1 at step 0 to ``end`` along half a cosine."""
    return end + (1 - end) * (1 + cos(pi * k / n_steps)) / 2


def distance_to_boundary(feasible_set, margin, slope):
    """Estimate the distance to just beyond the decision boundary by the linearised margin.

    Parameters
    ----------
    feasible_set : FeasibleSet

    margin : tensor of shape (n, 1)

    slope : tensor of shape (n, 1)
        Dual size of the gradient of the margin.

    Returns
    -------
    distance : tensor of shape (n, 1)
    """
    # At zero, on the boundary itself, steps that are relative to the distance could never move.
    distance = torch.maximum(margin.abs().mul_(_BEYOND).div_(slope), feasible_set.resolution)
    return distance.clamp_max_(_LONGEST).minimum(feasible_set.farthest)


def radius_rate(gamma, excess, n_steps, share=0.3):
    """Return the rate at which the radius changes at first, of shape (n, 1).

    It is ``gamma``, or more after a restart, which begins outside the best ball: enough for the
    logarithm of the radius to fall by ``excess`` in a share of the steps.
    """
    return (excess * (2 / share / n_steps)).clamp_min_(gamma)
