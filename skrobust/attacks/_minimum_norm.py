"""What the attacks have in common that look for the nearest adversarial point."""

from functools import partial
from numbers import Real

import numpy as np
import torch

from .._region import rows_where
from .._space import Space
from ..threat import ThreatModel
from ..utils._sklearn import Interval
from ._base import BaseAttack
from ._losses import Margin
from ._search import replace_rows_

# Where an estimator disagrees with its view about a point on the boundary, the point goes outwards
# by these shares of its distance, until the estimator agrees.
_OVERSHOOTS = (1e-5, 1e-4, 1e-3, 1e-2)

# A point is closer than another if it is by so many roundings.
_TIE = 16


class MinimumNormAttack(BaseAttack):
    """Base class of attacks that look for the closest adversarial point.

    A subclass implements ``_attack_batch``, which gets a ``Space`` in place of a region, most
    simply around a ``NormSearch``.
    """

    _parameter_constraints: dict = {
        **BaseAttack._parameter_constraints,
        "eps": [None, Interval(Real, 0, None, closed="left"), "array-like"],
    }

    def perturbation_norm(self, X, X_adv):
        """Size of perturbations, in the norm that the attack makes small.

        Parameters
        ----------
        X, X_adv : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
            Inputs and perturbed inputs.

        Returns
        -------
        norm : ndarray of shape (n_samples,)
            In units of X; for l0 the number of features changed. Where ``eps`` is an array, of the
            perturbation divided by it: up to 1 is then inside the budget.
        """
        X, X_adv = np.asarray(X), np.asarray(X_adv)
        if X.shape != X_adv.shape:
            raise ValueError(
                f"X and X_adv must have the same shape; got {X.shape} and {X_adv.shape}."
            )
        delta = (X_adv.astype(np.float64) - X.astype(np.float64)).reshape(len(X), -1)
        if self.norm == "l0":
            return np.count_nonzero(delta, axis=1).astype(np.float64)
        if np.ndim(self.eps):
            eps = np.asarray(self.eps, dtype=np.float64).ravel()
            far = np.where(delta == 0, 0.0, np.inf)
            delta = np.divide(delta, eps, out=far, where=eps > 0)
        return np.linalg.norm(delta, {"linf": np.inf, "l2": 2, "l1": 1}[self.norm], axis=1)

    def _threat(self, feature_names):
        # Balls of infinite radius are all the same.
        eps, norm = (np.inf, "linf") if self.eps is None else (self.eps, self.norm)
        return ThreatModel(eps, norm, self.bounds, self.mask, feature_names=feature_names)

    def _around(self, threat, x):
        return Space(threat, self.norm, x)

    def _insist(self, search, threat, array, X_adv, rows, reached, *, stop_on_success):
        X = torch.from_numpy(array[rows])
        found = torch.from_numpy(X_adv[rows])
        moved = found.clone()
        left = torch.arange(len(rows))
        for overshoot in _OVERSHOOTS:
            further = X[left] + (found[left] - X[left]) * (1 + overshoot)
            moved[left] = threat.inside(further, X[left])
            left = left[torch.from_numpy(~reached(moved[left].numpy(), rows[left.numpy()]))]
            if not len(left):
                break
        return moved.numpy()


class NormSearch:
    """Remember the closest adversarial point for each row of a batch.

    Every pass forward is judged. Rows that are adversarial from the start, and with
    ``stop_on_success`` those with a point inside the radius, need nothing more: they are dropped.

    Parameters
    ----------
    model : access
        See :mod:`skrobust.attacks._access`.

    space : Space

    labels : int64 tensor of shape (n,)

    targeted, stop_on_success : bool, default=False

    confidence : float, default=0.0
        Margin that counts as none: all margins below are less this.

    Attributes
    ----------
    u_best : tensor of shape (n_all, d)
        Closest adversarial perturbations of all rows; zero where there is none.

    size_best : tensor of shape (n_all, 1)
        Their norms; infinite where there is none.

    rows : None or int64 tensor of shape (n,)
        The rows that are still searched; None means all.

    space, loss
        Of the rows that are still searched; the loss is the margin until :meth:`climb`.
    """

    def __init__(
        self, model, space, labels, *, targeted=False, stop_on_success=False, confidence=0.0
    ):
        self.model = model
        self.confidence = confidence
        self.whole = self.space = space
        self.loss = Margin(labels, targeted=targeted)
        self.enough = space.radius if stop_on_success else 0.0
        self.u_best = space.zeros()
        self.size_best = self.u_best.new_full((len(self.u_best), 1), torch.inf)
        self.rows = None

    def __len__(self):
        return len(self.space.x)

    def climb(self, loss):
        """Let :meth:`gradient` be that of another loss, a class of ``_losses``, from now on."""
        self.loss = loss(self.loss.index[:, 0], targeted=self.loss.targeted)

    def look(self, u):
        """Judge perturbations, one for each row that is searched.

        Returns
        -------
        margin : tensor of shape (n, 1)
            Positive where adversarial.
        """
        with torch.no_grad():
            margin = self.loss.margin(self.model.logits(self.space.point(u))) - self.confidence
        self.remember(u, margin)
        return margin

    def linearize(self, u):
        """Judge perturbations.

        Returns
        -------
        logits : tensor of shape (n, n_classes)

        margin : tensor of shape (n, 1)

        pull : callable
            From a direction of the shape of the logits to its gradient with respect to ``u``; as
            often as wanted.
        """
        logits, pull = self.model(self.space.point(u))
        margin = self.loss.margin(logits) - self.confidence
        self.remember(u, margin)
        return logits, margin, partial(_pull, self.space, pull)

    def gradient(self, u):
        """Judge perturbations.

        Returns
        -------
        margin : tensor of shape (n, 1)

        grad : tensor of shape (n, d)
            Of the loss, with respect to ``u``.
        """
        logits, pull = self.model(self.space.point(u))
        margin, direction = self.loss(logits)
        margin -= self.confidence
        self.remember(u, margin)
        return margin, self.space.pull(pull(direction))

    def remember(self, u, margin):
        """Keep what is adversarial and closer than what was seen before."""
        size = torch.where(margin > 0, self.space.size(u), torch.inf)
        u_best, size_best = self.best()
        # Rounding must not decide between two points of the same sphere.
        closer = size < size_best * (1 - _TIE * torch.finfo(size.dtype).eps)
        replace_rows_(closer, (u_best, u), (size_best, size))
        if self.rows is not None:
            self.u_best[self.rows], self.size_best[self.rows] = u_best, size_best

    def best(self):
        """Closest perturbations and their norms, for the rows that are searched."""
        if self.rows is None:
            return self.u_best, self.size_best
        return self.u_best[self.rows], self.size_best[self.rows]

    def drop(self):
        """Drop the rows that need no more, if worth it.

        Returns
        -------
        kept : None or int64 tensor
            Positions of the rows that remain; None where all do.
        """
        if self.u_best.device.type != "cpu":  # any other device would have to wait
            return None
        kept = rows_where(self.best()[1] > self.enough)
        if len(self) - len(kept) < max(1, len(self) // 8):
            return None
        self.rows = kept if self.rows is None else self.rows[kept]
        self.space, self.loss = self.space.take(kept), self.loss.take(kept)
        return kept

    def result(self):
        """Points of all rows, and which of them are adversarial and inside the radius."""
        success = (self.size_best <= self.whole.radius) & (self.size_best < torch.inf)
        return self.whole.point(self.u_best), success[:, 0]


def _pull(space, pull, direction):
    return space.pull(pull(direction))
