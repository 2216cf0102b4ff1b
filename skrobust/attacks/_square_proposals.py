"""The proposals of the Square Attack: random changes of one window for each row."""

from abc import ABC, abstractmethod

import torch

from ..utils._rows import RowBatch

# Random numbers are drawn for several queries at once: few take as long as hundreds.
_NUMBERS_AT_ONCE = 256


class BufferedNoise(RowBatch):
    """Random numbers of the rows, a few for each query.

    Parameters
    ----------
    noise : RowNoise
    """

    _row_attributes = ("numbers",)

    def __init__(self, noise):
        self.noise = noise
        self.numbers, self.n_used = noise.uniform(_NUMBERS_AT_ONCE), 0

    def take(self, rows):
        """Return the numbers of some of the rows, from the next one on."""
        part = super().take(rows)
        part.noise = self.noise.take(rows)
        return part

    def uniform(self, n_values):
        """Draw numbers in [0, 1), of shape (n, n_values)."""
        if n_values > _NUMBERS_AT_ONCE:
            return self.noise.uniform(n_values)
        if self.n_used + n_values > _NUMBERS_AT_ONCE:
            self.numbers, self.n_used = self.noise.uniform(_NUMBERS_AT_ONCE), 0
        self.n_used += n_values
        return self.numbers[:, self.n_used - n_values : self.n_used]

    def below(self, n):
        """Draw an integer from 0 to n - 1 for each row, an int64 tensor of shape (n_rows, 1)."""
        # In a low precision the product may round up.
        return (self.uniform(1) * n).long().clamp_max_(n - 1)

    def coin(self, n_values):
        """Draw zeros and ones, of shape (n, n_values)."""
        return self.uniform(n_values).round()

    def sign(self, n_values):
        """Draw signs, of shape (n, n_values)."""
        return self.coin(n_values).mul_(2).sub_(1)


class Proposals(RowBatch, ABC):
    """Base of the proposals: perturbations of the rows, and changes of one window.

    Parameters
    ----------
    feasible_set : FeasibleSet

    windows : SquareWindows or SubsetWindows

    Attributes
    ----------
    u : tensor of shape (n, d)
        Present perturbations.
    """

    _row_attributes = ("u",)

    u: torch.Tensor

    def __init__(self, feasible_set, windows):
        self.feasible_set, self.windows = feasible_set, windows

    def take(self, rows):
        """Return the proposals of some of the rows."""
        part = super().take(rows)
        part.feasible_set = self.feasible_set.take(rows)
        return part

    @abstractmethod
    def start(self, noise):
        """Set the first perturbations."""

    @abstractmethod
    def propose(self, noise, share, query):
        """Return changed perturbations.

        Parameters
        ----------
        noise : BufferedNoise

        share : float
            Share of the features in a window.

        query : int
            Number of the query.

        Returns
        -------
        u : tensor of shape (n, d)
        """

    def accept(self, u, where):
        """Take over the changed perturbations in some of the rows.

        Parameters
        ----------
        u : tensor of shape (n, d)

        where : bool tensor of shape (n, 1)
        """
        self.u = torch.where(where, u, self.u)


class SignFlips(Proposals):
    """Proposals for linf: the values in a window go to the ends of the feasible set."""

    _row_attributes = ("u", "low", "high")

    def __init__(self, feasible_set, windows):
        super().__init__(feasible_set, windows)
        radius = torch.full_like(feasible_set.zeros(), feasible_set.radius)
        self.low, self.high = feasible_set.clip_(-radius), feasible_set.clip_(radius)

    def start(self, noise):
        """Go to a random corner."""
        self.u = torch.where(self.windows.first_flips(noise) > 0, self.high, self.low)

    def propose(self, noise, share, query):
        """Return perturbations with a window at other ends; see :meth:`Proposals.propose`."""
        size = self.windows.flip_size(share, query)
        index = self.windows.draw(noise, size)
        low, high, old = (side.gather(1, index) for side in (self.low, self.high, self.u))
        up = self.windows.flip(noise, size)
        if up is None:
            new = torch.where(old < high, high, low)
        else:
            new = torch.lerp(low, high, up)
            # A window that has these values already would waste the query.
            same = (old == new).all(1, keepdim=True)
            new = torch.where(same, torch.lerp(high, low, up), new)
        return self.u.scatter(1, index, new)


class MassTransfers(Proposals):
    """Proposals for l2 and l1: the norm of one window moves to another, with the unused budget.

    Mass is the size raised to the order of the norm, which adds up over features.

    Parameters
    ----------
    feasible_set, windows
        As for the base class.

    order : {1, 2}
        Order of the norm.

    Attributes
    ----------
    unused : tensor of shape (n, 1)
        Mass of the budget that is not used.
    """

    _row_attributes = ("u", "unused", "proposed_unused")

    def __init__(self, feasible_set, windows, order):
        super().__init__(feasible_set, windows)
        self.order = order

    def start(self, noise):
        """Go to bumps all over the sample that use the budget."""
        u = self.windows.first_bumps(noise)
        # Slightly inside the ball: the final rounding must not move the points that are judged.
        radius = self.feasible_set.radius * (1 - 64 * torch.finfo(u.dtype).eps)
        self.u = self.feasible_set.clip_(self.feasible_set.resize_(u, radius))
        self.unused = radius**self.order - self._mass(self.u)

    def propose(self, noise, share, query):
        """Return perturbations with one window empty and another filled."""
        size = self.windows.bump_size(share, query)
        source, index = self.windows.draw(noise, size), self.windows.draw(noise, size)
        bump = self.windows.bump(noise, size)
        mass = self.unused + self._mass(self.u.gather(1, source))
        u = self.u.scatter(1, source, 0.0)
        # The windows may overlap: shared values are empty by now.
        old = u.gather(1, index)
        mass = (mass + self._mass(old)).clamp_min_(0)
        new = self._fit(self._blend(old, bump, mass), index, mass)
        self.proposed_unused = mass - self._mass(new)
        return u.scatter_(1, index, new)

    def accept(self, u, where):
        """Take over the changed perturbations in some of the rows; see :meth:`Proposals.accept`."""
        super().accept(u, where)
        self.unused = torch.where(where, self.proposed_unused, self.unused)

    def _mass(self, u):
        return self.feasible_set.size(u) ** self.order

    def _blend(self, old, bump, mass):
        """Return the old values plus the bump, with all the mass, equal in each channel."""
        n, n_channels = len(old), self.windows.n_channels
        old, bump = (u.reshape(n * n_channels, -1) for u in (old, bump))
        share = (mass / n_channels).repeat_interleave(n_channels, 0)
        size = self._safe_size(old)
        # Slightly less than all of the bump, so that opposite signs do not leave zero.
        u = torch.addcdiv(bump, old, size, value=0.999)
        return u.mul_(share ** (1 / self.order) / self.feasible_set.size(u)).view(n, -1)

    def _fit(self, u, index, mass):
        """Scale up by the mass that does not fit into the box, and clip to the box."""
        if self.feasible_set.bottom is None:
            return u
        sides = self.feasible_set.bottom, self.feasible_set.top
        bottom, top = (side.gather(1, index) for side in sides)
        kept = self._safe_size(u.clamp(bottom, top))
        return u.mul_(mass ** (1 / self.order) / kept).clamp_(bottom, top)

    def _safe_size(self, u):
        return self.feasible_set.size(u).clamp_min_(torch.finfo(u.dtype).tiny ** 0.5)
