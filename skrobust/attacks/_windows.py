"""The windows of the Square Attack: which features one query changes, and by what pattern.

Windows are index tensors of shape (n_windows, n, k) into the features of flat rows, several for
each row, with ``k`` the same for all and the indices of a window distinct, so that reading and
writing them costs as much as they are large. Both classes have the same methods.
"""

from math import prod, sqrt

import torch

from .._region import norm_of

# The windows of bumps end with this side, on small images with half of theirs, and with 3 at least:
# a bump needs room for its two halves. After 1,000 queries in l2, with windows down to 3 as in the
# paper, 52 % of 400 points of an adversarially trained network for MNIST stood and 72 % of an
# ordinary one, with 5 it was 42 and 68 %; after 4,000 queries there was no difference.
_LEAST_BUMP_SIDE = 5
_TILES_A_SIDE = 5


def windows_of(x, scale, norm):
    """Windows for a batch.

    Parameters
    ----------
    x : tensor of shape (n, ...)
        Of four dimensions, they are images (n, channels, height, width).

    scale : float or tensor
        Budgets of the features; those with zero cannot change, and no window is made of them.

    norm : {"linf", "l2", "l1"}
        In which patterns have the length 1.
    """
    shape = x.shape[1:]
    free = x.new_ones(prod(shape)) if isinstance(scale, float) else scale.flatten()
    return (Squares if len(shape) == 3 else Subsets)(shape, free > 0, norm)


class Squares:
    """Squares over all channels of images.

    Attributes
    ----------
    n_free : int
        Pixels that can change.

    n_channels : int
    """

    def __init__(self, shape, free, norm):
        self.n_channels, *self.sides = shape
        self.norm = norm
        pixels = free.view(shape).any(0).flatten().nonzero()[:, 0]
        self.n_free = len(pixels)
        self.pixels = None if self.n_free == prod(self.sides) else pixels
        self.grid = torch.arange(len(free), device=free.device).view(shape)
        self._made: dict = {}

    def size(self, share, query):
        """Side of the windows that cover a share of the pixels."""
        return min(max(1, round(sqrt(share * self.n_free))), *self.sides)

    def bump_size(self, share, query):
        """Side of the windows for bumps: odd, so that they have a middle."""
        least = max(3, min(_LEAST_BUMP_SIDE, min(self.sides) // 2))
        side = max(least, round(sqrt(share * self.n_free)))
        return min(side + 1 - side % 2, *self.sides)

    def n_features(self, side):
        """How many values are in a window."""
        return self.n_channels * side * side

    def draw(self, draws, side, n_windows):
        """Windows for each row: int64 tensor of shape (n_windows, n, k)."""
        # Contiguous, so that what one query reads is in one place.
        corners = self._corners(draws, side, n_windows).T.contiguous()
        return corners.unsqueeze(2) + self._offsets(side)

    def _corners(self, draws, side, n_windows):
        """Upper left corners of windows: int64 tensor of shape (n, n_windows)."""
        height, width = self.sides
        if self.pixels is None:
            n_columns = width - side + 1
            corner = draws.below((height - side + 1) * n_columns, n_windows)
            return corner.add_(corner // n_columns * (width - n_columns))
        # A pixel that can change, anywhere in the window.
        pixel = self.pixels[draws.below(self.n_free, n_windows)]
        row = (pixel // width - draws.below(side, n_windows)).clamp_(0, height - side)
        column = (pixel % width - draws.below(side, n_windows)).clamp_(0, width - side)
        return row.mul_(width).add_(column)

    def up(self, draws, side, n_windows):
        """A side for each channel of the windows, 0 or 1, to broadcast with their indices."""
        up = _by_window(draws.coin(self.n_channels * n_windows), n_windows)
        return up if self.n_channels == 1 else up.repeat_interleave(side * side, 2)

    def corner(self, draws):
        """Signs to start from, for all features: vertical stripes."""
        _, width = self.sides
        signs = _signs(draws, self.n_channels * width).view(-1, self.n_channels, 1, width)
        return signs.expand(-1, *self.grid.shape).flatten(1)

    def bumps(self, draws):
        """Perturbations to start from: tiles of bumps."""
        side = max(1, min(self.sides) // _TILES_A_SIDE)
        n_rows, n_columns = (length // side for length in self.sides)
        signs = _signs(draws, self.n_channels * n_rows * n_columns)
        tile = _bump(side).to(signs)
        tiles = torch.kron(signs.view(-1, self.n_channels, n_rows, n_columns), tile)
        image = signs.new_zeros(len(signs), *self.grid.shape)
        top, left = ((length % side) // 2 for length in self.sides)
        image[:, :, top : top + n_rows * side, left : left + n_columns * side] = tiles
        return image.flatten(1)

    def bump(self, draws, side, n_windows):
        """A pattern for each of the windows, in each channel of norm 1: lying or standing."""
        turned = draws.coin(n_windows).T.unsqueeze(2)
        up = self.up(draws, 1, n_windows)  # one number a channel
        which = torch.add(up, turned, alpha=2).flatten().long()
        patterns = self._patterns(side, up).index_select(0, which)
        return patterns.view(*up.shape[:2], -1)

    def _offsets(self, side):
        if side not in self._made:
            self._made[side] = self.grid[:, :side, :side].reshape(1, -1)
        return self._made[side]

    def _patterns(self, side, like):
        """Lying and standing, down and up: tensor of shape (4, side * side)."""
        if ("bump", side) not in self._made:
            bump = _bump(side).to(like)
            bump /= norm_of(bump.view(1, -1), self.norm)
            forms = [sign * form for form in (bump, bump.T) for sign in (-1, 1)]
            self._made["bump", side] = torch.stack(forms).flatten(1)
        return self._made["bump", side]


class Subsets:
    """Random sets of features, for rows whose features have no place beside each other.

    Sets are spread evenly over the features that can change, from a random one on.
    """

    n_channels = 1

    def __init__(self, shape, free, norm):
        self.free = free
        self.norm = norm
        self.features = free.nonzero()[:, 0]
        self.n_free = len(self.features)

    def size(self, share, query):
        """Number of features in the sets.

        The share soon means single features, which find a point that no single change improves.
        Larger sets lead on: every second query takes two at least, every fourth three, and so on.
        """
        return min(max(round(share * self.n_free), _ruler(query)), self.n_free)

    def bump_size(self, share, query):
        """Number of features in sets for bumps: one alone would hold all that it is given."""
        return min(max(round(share * self.n_free), 1 + _ruler(query)), self.n_free)

    def n_features(self, size):
        """How many values are in a set."""
        return size

    def draw(self, draws, size, n_windows):
        """Sets for each row: int64 tensor of shape (n_windows, n, size)."""
        first = draws.below(self.n_free, n_windows).T.unsqueeze(2)
        u = _by_window(draws.uniform(n_windows * size), n_windows)
        edges = torch.arange(size + 1, device=u.device) * self.n_free // size
        width = edges.diff()
        within = torch.minimum((u * width).long(), width - 1)
        return self.features[within.add_(edges[:-1]).add_(first).remainder_(self.n_free)]

    def up(self, draws, size, n_windows):
        """None: each of the features goes to the other side of where it is."""

    def corner(self, draws):
        """Signs to start from, for all features."""
        return _signs(draws, len(self.free))

    def bumps(self, draws):
        """Perturbations to start from: every feature by as much."""
        return _signs(draws, len(self.free)).mul_(self.free)

    def bump(self, draws, size, n_windows):
        """A pattern of norm 1 for each of the sets: random signs."""
        signs = _by_window(_signs(draws, n_windows * size), n_windows)
        return signs.div_(size**0.5 if self.norm == "l2" else size)


def _by_window(values, n_windows):
    """From shape (n, n_windows * k) to (n_windows, n, k), in that order in memory."""
    return values.view(len(values), n_windows, -1).transpose(0, 1).contiguous()


def _signs(draws, n_values):
    return draws.coin(n_values).mul_(2).sub_(1)


def _ruler(query):
    """1, 2, 1, 3, 1, 2, 1, 4, ..."""
    return (query & -query).bit_length()


def _bump(side):
    """Two bumps side by side, one up and one down, over a square ([1]_, eq. (2))."""
    half = side // 2
    if half == 0:
        return torch.ones(1, 1, dtype=torch.float64)
    return torch.cat([_half_bump(side, half), -_half_bump(side, side - half)], 1)


def _half_bump(height, width):
    """Bump over a rectangle: the rings around its middle grow towards it."""
    middle = height // 2
    row = (torch.arange(height) - middle).abs().unsqueeze(1)
    column = (torch.arange(width) - width // 2).abs()
    ring = middle - torch.maximum(row, column)
    rings = (middle + 1 - torch.arange(middle + 1, dtype=torch.float64)) ** -2
    return rings.cumsum(0)[ring]
