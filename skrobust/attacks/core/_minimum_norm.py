"""The base class of attacks that look for the closest adversarial point."""

from numbers import Real

import numpy as np
import torch

from ...threat import ThreatModel
from ...utils._sklearn import Interval
from ._base import BaseAttack

# Where an estimator disagrees with its view about a point on the boundary, the point moves outwards
# by these shares of its distance, until the estimator agrees.
_OVERSHOOTS = (1e-5, 1e-4, 1e-3, 1e-2)


class MinimumNormAttack(BaseAttack):
    """Base class of attacks that look for the closest adversarial point.

    A subclass implements ``_attack_batch``, most simply by a ``NormSearch``. With ``eps=None`` the
    feasible set that it gets has an infinite radius.

    Parameters
    ----------
    {estimator}

    eps : None, float or array-like of shape (n_features,), default=None
        Radius up to which a point counts as a success, in units of X; None means any. With one
        value per feature, the norm of the perturbation divided by it is minimised, and 1 is the
        radius.

    norm : {"linf", "l2", "l1"}, default="linf"
        Norm to minimise.

    {bounds}

    {mask}

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
    BaseAttack : Base class of all attacks.
    """

    _parameter_constraints: dict = {
        **BaseAttack._parameter_constraints,
        "eps": [None, Interval(Real, 0, None, closed="left"), "array-like"],
    }

    def perturbation_norm(self, X, X_adv):
        """Return the size of perturbations, in the norm that the attack minimises.

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
        delta = X_adv.astype(np.float64) - X.astype(np.float64)
        # The number does not matter: sizes are in units of X, or of budgets.
        return ThreatModel(self.eps if np.ndim(self.eps) else 1, self.norm).measure(delta)

    def without_limit(self):
        """Set ``eps`` so that a point at any distance is a success, and return the attack.

        One budget per feature stays, as it is the unit of distances.

        Returns
        -------
        self : object
            The attack itself.
        """
        if np.ndim(self.eps) == 0:
            self.eps = None
        return self

    def _threat_model(self, feature_names):
        if self.eps is not None:
            return super()._threat_model(feature_names)
        # Balls of infinite radius are the same in all norms.
        return ThreatModel(np.inf, "linf", self.bounds, self.mask, feature_names=feature_names)

    def _feasible_set(self, threat, x):
        return threat.feasible_set(x, self.norm)

    def _refine_unconfirmed(self, search, problem, threat, X_adv, rows, *, stop_on_success):
        X = torch.from_numpy(problem.array[rows])
        found = torch.from_numpy(X_adv)
        moved = found.clone()
        left = torch.arange(len(rows))
        for overshoot in _OVERSHOOTS:
            further = X[left] + (found[left] - X[left]) * (1 + overshoot)
            moved[left] = threat.project_exactly(further, X[left])
            fallen = problem.is_adversarial(moved[left].numpy(), rows[left.numpy()])
            left = left[torch.from_numpy(~fallen)]
            if not len(left):
                break
        return moved.numpy()
