"""Queries to a model that only decides, and random directions for its decision boundary."""

import torch

from ._best_points import BestPoints
from ._search import closest_result

# Values of the inputs that pass through the model, or through memory, at a time.
VALUES_AT_ONCE = 2**20


class DecisionOracle:
    """Ask the model which perturbations are adversarial, within a budget of queries.

    Parameters
    ----------
    batch : AttackBatch

    budget : int
        Queries for each row.

    Attributes
    ----------
    best : BestPoints
        Closest adversarial perturbations ``u`` that are known, and minus their sizes.

    free : bool tensor of shape (d,)
        The features that can change.
    """

    def __init__(self, batch, budget):
        self.model, self.feasible_set = batch.model, batch.feasible_set
        self.labels, self.targeted = batch.labels, batch.targeted
        self.budget = budget
        self.n_queries = torch.zeros_like(self.labels)
        u = self.feasible_set.zeros()
        self.best = BestPoints(u.new_full((len(u), 1), -torch.inf), u=u)
        scale = torch.as_tensor(self.feasible_set.scale, device=u.device)
        self.free = scale.expand(1, u.shape[1])[0] > 0

    def n_left(self, rows):
        """Return how many queries are left for some of the rows."""
        return self.budget - self.n_queries[rows]

    def closest_sizes(self, rows):
        """Return the sizes of the closest adversarial perturbations, of shape (n_rows,)."""
        return -self.best.score[rows, 0]

    def is_adversarial(self, u, rows, reserve=0):
        """Ask about m perturbations for each of some rows.

        Parameters
        ----------
        u : tensor of shape (n_rows, m, d)

        rows : int64 tensor of shape (n_rows,)

        reserve : int, default=0
            Queries of the budget to leave.

        Returns
        -------
        adversarial, known : bool tensors of shape (n_rows, m)
            Perturbations beyond the budget are not asked about, and are neither.
        """
        m = u.shape[1]
        known = torch.arange(m, device=u.device) < (self.n_left(rows) - reserve).unsqueeze(1)
        adversarial = torch.zeros_like(known)
        n_at_once = max(1, VALUES_AT_ONCE // (m * u.shape[2]))
        for first in range(0, len(u), n_at_once):
            part = slice(first, first + n_at_once)
            if bool(known[part].any()):
                adversarial[part] = self._ask(u[part], rows[part], known[part])
        self.n_queries[rows] += known.sum(1)
        return adversarial, known

    def _ask(self, u, rows, known):
        owner = rows.unsqueeze(1).expand_as(known)[known]
        points = self.feasible_set.from_units(u[known], owner)
        success = (self.model.decide(points) == self.labels[owner]) == self.targeted
        return torch.zeros_like(known).masked_scatter_(known, success)

    def remember(self, u, rows):
        """Remember adversarial perturbations that are the closest so far; return their sizes."""
        size = self.feasible_set.size(u)
        self.best.update(-size, rows, u=u)
        return size

    def result(self):
        """Return the closest points, and which are adversarial inside the radius."""
        return closest_result(self.best, self.feasible_set)


def random_directions(noise, n, free):
    """Draw random directions of length 1 among the free features, orthogonal in groups.

    Parameters
    ----------
    noise : RowNoise
        Of one row.

    n : int
        Number of directions.

    free : bool tensor of shape (d,)

    Yields
    ------
    directions : tensors of shape (m, d)
        Together they have n rows.
    """
    d = int(free.sum())
    size = min(n, d, max(1, VALUES_AT_ONCE // d))
    n_at_once = max(1, VALUES_AT_ONCE // (size * d)) * size
    for first in range(0, n, n_at_once):
        m = min(n_at_once, n - first)
        n_groups = -(-m // size)
        uniform = noise.uniform(n_groups * d * size).view(n_groups, d, size)
        q, r = torch.linalg.qr(normal_numbers(uniform))
        # With these signs the distribution of the rotation is uniform.
        q = q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)
        found = q.new_zeros(m, len(free))
        found[:, free] = q.transpose(1, 2).reshape(-1, d)[:m]
        yield found


def normal_numbers(uniform):
    """Return normal numbers of variance 1/2 from uniform ones."""
    small = torch.finfo(uniform.dtype).eps
    return (2 * uniform - 1).clamp_(small - 1, 1 - small).erfinv_()
