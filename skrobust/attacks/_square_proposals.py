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

    def below(self, n, n_values):
        """Draw integers from 0 to n - 1, an int64 tensor of shape (n_rows, n_values)."""
        # In a low precision the product may round up.
        return (self.uniform(n_values) * n).long().clamp_max_(n - 1)

    def coin(self, n_values):
        """Draw booleans, of shape (n, n_values)."""
        return self.uniform(n_values) >= 0.5

    def sign(self, n_values):
        """Draw signs, of shape (n, n_values)."""
        return self.uniform(n_values).round().mul_(2).sub_(1)


class Proposals(RowBatch, ABC):
    """Base of the proposals: points of the rows, and changes of windows that can be taken back.

    Parameters
    ----------
    feasible_set : FeasibleSet

    windows : SquareWindows or SubsetWindows

    Attributes
    ----------
    z : tensor of shape (n, d)
        Present points.

    changes : list of tuples of three tensors of shape (n, k)
        Changes by the last proposal, in their order: indices, values before and values after.
    """

    _row_attributes = ("z",)

    z: torch.Tensor
    changes: list

    def __init__(self, feasible_set, windows):
        self.feasible_set, self.windows = feasible_set, windows

    def take(self, rows):
        """Return the proposals of some of the rows."""
        part = super().take(rows)
        part.feasible_set = self.feasible_set.take(rows)
        return part

    def points(self):
        """Return the present points, of the shape of the inputs."""
        return self.z.view_as(self.feasible_set.x)

    @abstractmethod
    def start(self, noise):
        """Set the first points."""

    @abstractmethod
    def propose(self, noise, share, query):
        """Change the present points.

        Parameters
        ----------
        noise : BufferedNoise

        share : float
            Share of the features in a window.

        query : int
            Number of the query.
        """

    def accept(self, where):
        """Take back the last proposal, except in some of the rows.

        Parameters
        ----------
        where : bool tensor of shape (n, 1)
            Rows whose changes are kept.
        """
        for index, before, after in self.changes:
            self.z.scatter_(1, index, torch.where(where, after, before))


class SignFlips(Proposals):
    """Proposals for linf: the values in a window go to the ends of the feasible set."""

    _row_attributes = ("z", "low", "high")

    def __init__(self, feasible_set, windows):
        super().__init__(feasible_set, windows)
        self.low, self.high = feasible_set.lowest.flatten(1), feasible_set.highest.flatten(1)

    def start(self, noise):
        """Go to a random corner."""
        self.z = torch.where(self.windows.first_flips(noise) > 0, self.high, self.low)

    def propose(self, noise, share, query):
        """Move a window to other ends; see :meth:`Proposals.propose`."""
        size = self.windows.flip_size(share, query)
        index = self.windows.draw(noise, size, 1)[:, 0]
        low, high, old = (side.gather(1, index) for side in (self.low, self.high, self.z))
        up = self.windows.flip(noise, size)
        if up is None:
            new = torch.where(old < high, high, low)
        else:
            new = torch.where(up, high, low)
            # A window that has these values already would waste the query.
            same = (old == new).all(1, keepdim=True)
            new = torch.where(same, torch.where(up, low, high), new)
        self.z.scatter_(1, index, new)
        self.changes = [(index, old, new)]


class MassTransfers(Proposals):
    """Proposals for l2 and l1: the norm of one window moves to another, with the unused budget.

    Mass is the size in units raised to the order of the norm, which adds up over features.

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

    _row_attributes = ("z", "unused")

    def __init__(self, feasible_set, windows, order):
        super().__init__(feasible_set, windows)
        self.order = order

    def start(self, noise):
        """Go to bumps all over the sample that use the budget."""
        u = self.windows.first_bumps(noise)
        # Slightly inside the ball: the final rounding must not move the points that are judged.
        radius = self.feasible_set.radius * (1 - 64 * torch.finfo(u.dtype).eps)
        u = self.feasible_set.clip_(self.feasible_set.resize_(u, radius))
        self.unused = radius**self.order - self._mass(u)
        self.z = self.feasible_set.from_units(u).flatten(1)

    def propose(self, noise, share, query):
        """Empty one window and fill another; see :meth:`Proposals.propose`."""
        size = self.windows.bump_size(share, query)
        source, target = self.windows.draw(noise, size, 2).unbind(1)
        from_window, window = self.feasible_set.columns(source), self.feasible_set.columns(target)
        before_source, before = self.z.gather(1, source), self.z.gather(1, target)
        mass = self.unused + self._mass(from_window.to_units(before_source))
        # The windows may overlap: shared values are empty when the target is filled.
        self.z.scatter_(1, source, from_window.x)
        u = window.to_units(self.z.gather(1, target))
        mass = (mass + self._mass(u)).clamp_min_(0)
        u = self._fit(self._blend(u, self.windows.bump(noise, size), mass), window, mass)
        self.proposed_unused = mass - self._mass(u)
        after = window.from_units(u)
        self.z.scatter_(1, target, after)
        self.changes = [(source, before_source, from_window.x), (target, before, after)]

    def accept(self, where):
        """Take back the last proposal, except in some of the rows; see :meth:`Proposals.accept`."""
        super().accept(where)
        self.unused = torch.where(where, self.proposed_unused, self.unused)

    def _mass(self, u):
        return self.feasible_set.size(u) ** self.order

    def _blend(self, old, bump, mass):
        """Return the old values plus the bump, with all the mass, equal in each channel."""
        n, n_channels = len(old), self.windows.n_channels
        old, bump = (u.reshape(n * n_channels, -1) for u in (old, bump))
        # Slightly less than all of the bump, so that opposite signs do not leave zero.
        u = torch.addcdiv(bump, old, self._safe_size(old), value=0.999)
        size = (mass / n_channels) ** (1 / self.order)
        return u.div_(self.feasible_set.size(u)).view(n, -1).mul_(size)

    def _fit(self, u, window, mass):
        """Scale up by the mass that does not fit into the box, and clip to the box."""
        if window.bottom is None:
            return u
        kept = self._safe_size(u.clamp(window.bottom, window.top))
        return window.clip_(u.mul_(mass ** (1 / self.order) / kept))

    def _safe_size(self, u):
        return self.feasible_set.size(u).clamp_min_(torch.finfo(u.dtype).tiny ** 0.5)
