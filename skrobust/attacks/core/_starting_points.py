"""Adversarial points from which a search by decisions starts."""

import torch

from ...utils._random import RowNoise
from ._decision_oracle import VALUES_AT_ONCE, normal_numbers

# Random points of each of three kinds that are tried at a time, and the factor between the sizes of
# consecutive ones: they span from 1/64 of a feature's scale to 256 times it.
_N_SIZES = 8
_FACTOR = 4.0

# This number of the nearest points of a pool is tried first, then twice as many, and so on.
_FIRST_FROM_POOL = 2


class StartingPoints:
    """Find adversarial points to start from: the nearest of those that are tried together.

    Parameters
    ----------
    oracle : DecisionOracle

    n_tries : int
        Points to try for each row, at most.

    pool : None or tensor of shape (n_points, ...)
        Inputs that are tried first, the nearest ones before the others; moved to where mask and box
        allow.

    seed : int

    share : slice, default=slice(None)
        Which of the nearest of the pool to try, where several searches share it.
    """

    def __init__(self, oracle, n_tries, pool, seed, share=slice(None)):
        self.oracle, self.feasible_set = oracle, oracle.feasible_set
        self.n_tries, self.pool, self.seed, self.share = n_tries, pool, seed, share

    def find(self, rows):
        """Return the rows that have a starting point, and the points.

        Parameters
        ----------
        rows : int64 tensor of shape (n_rows,)

        Returns
        -------
        rows : int64 tensor of shape (n_found,)

        u : tensor of shape (n_found, d)
        """
        found_rows, found = [rows[:0]], [self.oracle.best.u[:0]]
        noise = RowNoise(self.feasible_set.x[rows], self.seed)
        order = self._nearest(rows)
        n_tried = n_rounds = 0
        while len(rows) and n_tried < self.n_tries and self.oracle.free.any():
            if n_tried < order.shape[1]:
                part = order[:, n_tried : n_tried + max(_FIRST_FROM_POOL, n_tried)]
                u = self._towards(rows, self.pool[part])
            else:
                u = self._random(rows, noise, n_rounds)[:, : self.n_tries - n_tried]
                n_rounds += 1
            n_tried += u.shape[1]
            adversarial, known = self.oracle.is_adversarial(u, rows)
            nearest = torch.where(adversarial, self._size(u), torch.inf).argmin(1)
            hit = adversarial.any(1)
            found_rows.append(rows[hit])
            found.append(u[hit, nearest[hit]])
            left = (~hit & known.all(1)).nonzero()[:, 0]
            rows, noise, order = rows[left], noise.take(left), order[left]
        rows, u = torch.cat(found_rows), torch.cat(found)
        in_order = rows.argsort()
        return rows[in_order], u[in_order]

    def _nearest(self, rows):
        """Return indices of points of the pool by their distance, of shape (n_rows, n_tried).

        Of a pool that is larger than the number of tries, the second half of the tries is spread
        over all distances: a target class may be far away.
        """
        if self.pool is None or not len(rows):
            return rows.new_empty(len(rows), 0)
        parts = rows.split(max(1, VALUES_AT_ONCE // self.pool.numel()))
        sizes = (self._size(self._towards(part, self.pool.unsqueeze(0))) for part in parts)
        orders = torch.cat([size.argsort(dim=1, stable=True) for size in sizes])
        orders = orders[:, self.share]
        n_left, n_near = orders.shape[1], self.n_tries // 2
        if n_left <= self.n_tries:
            return orders
        others = torch.linspace(n_near, n_left - 1, self.n_tries - n_near, device=rows.device)
        return torch.cat([orders[:, :n_near], orders[:, others.long()]], 1)

    def _size(self, u):
        """Return the sizes of perturbations of shape (n_rows, m, d)."""
        return self.feasible_set.size(u.flatten(0, 1)).view(u.shape[:2])

    def _towards(self, rows, points):
        """Return perturbations to points of shape (n_rows or 1, m, ...), clipped to the box."""
        u = points.flatten(2) - self.feasible_set.x[rows].flatten(1).unsqueeze(1)
        u.mul_(self.feasible_set.inverse_scale)
        return self.feasible_set.take(rows).clip_(u)

    def _random(self, rows, noise, n_rounds):
        """Draw random perturbations of three kinds, of shape (n_rows, 3 * _N_SIZES, d).

        Where both bounds are finite, the first kind is uniform in the box. The others are normal:
        equal in all directions, and in proportion to the scale of each feature. Their sizes grow
        until some leave every region that the data come from. In three of four rounds, more and
        more features do not change, and after each four rounds all sizes are larger, as the scale
        of a value near zero is unknown.
        """
        n, m, d = len(rows), _N_SIZES, len(self.oracle.free)
        uniform = noise.uniform(3 * m * d).view(n, 3, m, d)
        normal = normal_numbers(uniform)
        if n_rounds:
            moved = noise.uniform(2 * m * d).view(n, 2, m, d) < 0.5 ** (n_rounds % 4)
            normal[:, 1:] *= moved
        exponents = torch.arange(m, dtype=uniform.dtype, device=uniform.device) - m // 2 + 1
        sizes = _FACTOR ** (exponents.view(m, 1) + m // 2 * (n_rounds // 4))
        # The square of a norm should be finite.
        largest = torch.finfo(uniform.dtype).max ** 0.25
        typical, scale = ((s.unsqueeze(1) * sizes).clamp_max_(largest) for s in self._scales(rows))
        first = self._in_box(uniform[:, 0], normal[:, 0] * scale, rows)
        u = torch.stack([first, normal[:, 1] * typical, normal[:, 2] * scale], 1)
        # Neighbours in the list differ in kind, so that a part of it has all kinds.
        u = u.transpose(1, 2).reshape(n, 3 * m, d) * self.oracle.free
        return self.feasible_set.take(rows).clip_(u)

    def _in_box(self, uniform, otherwise, rows):
        """Return points that are uniform in the box where that is finite."""
        bottom, top = self.feasible_set.bottom, self.feasible_set.top
        if bottom is None:
            return otherwise
        bottom, top = bottom[rows].unsqueeze(1), top[rows].unsqueeze(1)
        in_box = uniform * (top - bottom) + bottom
        return torch.where(in_box.isfinite(), in_box, otherwise)

    def _scales(self, rows):
        """Return by how much features may change: one number per row, and one per feature."""
        free, feasible_set = self.oracle.free, self.feasible_set
        x = (feasible_set.x[rows].flatten(1) * feasible_set.inverse_scale).abs() * free
        if feasible_set.is_uniform:
            # The size of the values is all there is to go by.
            typical = x.square().sum(1, keepdim=True).div_(free.sum()).sqrt_()
            typical = torch.where(typical > 0, typical, 1.0)
        else:
            typical = torch.ones_like(x[:, :1])
        features = torch.where(x > 0, x, typical)
        if feasible_set.bottom is not None:
            width = feasible_set.top[rows] - feasible_set.bottom[rows]
            features = torch.where(width.isfinite(), width, features)
        return typical, features
