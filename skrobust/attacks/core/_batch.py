"""A batch of samples under attack."""

from dataclasses import dataclass
from typing import Any

import torch

from ...threat import FeasibleSet


@dataclass(frozen=True)
class AttackBatch:
    """A batch of samples, as :meth:`BaseAttack._attack_batch` gets it.

    Attributes
    ----------
    model : access
        Represents the estimator: ``model(z)`` gives logits of shape (n, n_classes >= 2) and a
        function from gradients with respect to the logits to gradients with respect to ``z``,
        ``model.logits(z)`` the logits alone, ``model.decide(z)`` class indices. An attack may use
        what its attribute ``_access`` declares: "gradients" (all three), "scores" (the latter two)
        or "decisions" (the last).

    feasible_set : FeasibleSet
        The admissible points around the samples ``feasible_set.x``.

    labels : int64 tensor of shape (n,)
        Classes to leave, or to reach where ``targeted``.

    seed : int
        For all random draws.

    targeted : bool
        Whether ``labels`` are to be reached.

    stop_on_success : bool
        Whether any adversarial point is enough. Otherwise the strongest is wanted.
    """

    model: Any
    feasible_set: FeasibleSet
    labels: torch.Tensor
    seed: int = 0
    targeted: bool = False
    stop_on_success: bool = False
