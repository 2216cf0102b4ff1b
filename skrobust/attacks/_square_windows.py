"""The windows of the Square Attack: the features that one query changes, and by which pattern.

A window is a row of an index tensor of shape (n, k) into the features of flat samples. All windows
of a query have the same number ``k`` of features, which are distinct.
"""

from math import prod, sqrt

import torch

# The windows of bumps end with this side, on small images with half of the image, and with at least
# 3: a bump needs room for its two halves. After 1,000 queries in l2, with windows down to 3 as in
# the paper, 52 % of 400 points of an adversarially trained network for MNIST stood and 72 % of an
# ordinary one, with 5 it was 42 and 68 %; after 4,000 queries there was no difference.
_LEAST_BUMP_SIDE = 5
_TILES_PER_SIDE = 5


def make_windows(feasible_set):
    """Return the windows for a batch.

    Parameters
    ----------
    feasible_set : FeasibleSet
        Around samples that are images (channels, height, width), or features without order.

    Returns
    -------
    windows : SquareWindows or SubsetWindows
    """
    shape = feasible_set.x.shape[1:]
    scale = torch.as_tensor(feasible_set.scale, device=feasible_set.x.device)
    free = (scale > 0).expand(1, prod(shape))[0]
    kind = SquareWindows if len(shape) == 3 else SubsetWindows
    return kind(shape, free, feasible_set.size)


class SquareWindows:
    """Squares over all channels of images.

    Parameters
    ----------
    shape : tuple of int (channels, height, width)

    free : bool tensor of shape (d,)
        The features that can change.

    size_of : callable
        From patterns of shape (n, k) to their sizes in the norm of the attack, of shape (n, 1).

    Attributes
    ----------
    n_free : int
        Number of pixels that can change.
    """

    def __init__(self, shape, free, size_of):
        self.n_channels, *self.sides = shape
        self.size_of = size_of
        pixels = free.view(shape).any(0).flatten().nonzero()[:, 0]
        self.n_free = len(pixels)
        self.pixels = None if self.n_free == prod(self.sides) else pixels
        self.grid = torch.arange(len(free), device=free.device).view(shape)
        self._bumps: dict = {}

    def flip_size(self, share, query):
        """Return the side of the windows that cover a share of the pixels."""
        return min(max(1, round(sqrt(share * self.n_free))), *self.sides)

    def bump_size(self, share, query):
        """Return the side of the windows for bumps: odd, so that they have a middle."""
        least = max(3, min(_LEAST_BUMP_SIDE, min(self.sides) // 2))
        side = max(least, round(sqrt(share * self.n_free)))
        return min(side + 1 - side % 2, *self.sides)

    def draw(self, noise, side, n_windows):
        """Draw windows for each row: int64 tensor of shape (n, n_windows, k)."""
        corners = self._corners(noise, side, n_windows).unsqueeze(2)
        return corners + self.grid[:, :side, :side].reshape(-1)

    def _corners(self, noise, side, n_windows):
        """Draw upper left corners of windows: int64 tensor of shape (n, n_windows)."""
        height, width = self.sides
        if self.pixels is None:
            n_columns = width - side + 1
            corner = noise.below((height - side + 1) * n_columns, n_windows)
            return corner.add_(corner // n_columns * (width - n_columns))
        # Each window holds a pixel that can change, at a random place.
        pixel = self.pixels[noise.below(self.n_free, n_windows)]
        row = (pixel // width - noise.below(side, n_windows)).clamp_(0, height - side)
        column = (pixel % width - noise.below(side, n_windows)).clamp_(0, width - side)
        return row.mul_(width).add_(column)

    def flip(self, noise, side):
        """Draw a direction for each channel of the windows, booleans of shape (n, k) or (n, 1)."""
        up = noise.coin(self.n_channels)
        return up if self.n_channels == 1 else up.repeat_interleave(side * side, 1)

    def first_flips(self, noise):
        """Draw signs of all features to start from, of shape (n, d): vertical stripes."""
        _, width = self.sides
        signs = noise.sign(self.n_channels * width).view(-1, self.n_channels, 1, width)
        return signs.expand(-1, *self.grid.shape).flatten(1)

    def first_bumps(self, noise):
        """Draw perturbations to start from, of shape (n, d): tiles of bumps."""
        side = max(1, min(self.sides) // _TILES_PER_SIDE)
        n_rows, n_columns = (length // side for length in self.sides)
        signs = noise.sign(self.n_channels * n_rows * n_columns)
        tile = _bump(side).to(signs)
        tiles = torch.kron(signs.view(-1, self.n_channels, n_rows, n_columns), tile)
        image = signs.new_zeros(len(signs), *self.grid.shape)
        top, left = ((length % side) // 2 for length in self.sides)
        image[:, :, top : top + n_rows * side, left : left + n_columns * side] = tiles
        return image.flatten(1)

    def bump(self, noise, side):
        """Draw a pattern for each window, of shape (n, k), in each channel of size 1.

        The bumps are horizontal or vertical, and up or down.
        """
        index = noise.below(4, self.n_channels)
        return self._patterns(side, noise.numbers)[index].flatten(1)

    def _patterns(self, side, like):
        """Return horizontal and vertical bumps, down and up, of shape (4, side * side)."""
        if side not in self._bumps:
            bump = _bump(side).to(like)
            bump /= self.size_of(bump.view(1, -1))
            forms = [sign * form for form in (bump, bump.T) for sign in (-1, 1)]
            self._bumps[side] = torch.stack(forms).flatten(1)
        return self._bumps[side]


class SubsetWindows:
    """Random sets of features, for samples whose features are not neighbours of each other.

    The features of a set are spread evenly over those that can change, from a random one on.

    Parameters
    ----------
    shape, free, size_of
        As for :class:`SquareWindows`.

    Attributes
    ----------
    n_free : int
        Number of features that can change.
    """

    n_channels = 1

    def __init__(self, shape, free, size_of):
        self.free, self.size_of = free, size_of
        self.features = free.nonzero()[:, 0]
        self.n_free = len(self.features)

    def flip_size(self, share, query):
        """Return the number of features in a set.

        The share soon means single features, which end at a point that no single change improves.
        Larger sets lead on: every second query has at least two features, every fourth at least
        three, and so on.
        """
        return min(max(round(share * self.n_free), _ruler(query)), self.n_free)

    def bump_size(self, share, query):
        """Return the number of features in a set for bumps: one more, to share the budget."""
        return min(max(round(share * self.n_free), 1 + _ruler(query)), self.n_free)

    def draw(self, noise, size, n_windows):
        """Draw sets for each row: int64 tensor of shape (n, n_windows, size)."""
        first = noise.below(self.n_free, n_windows).unsqueeze(2)
        u = noise.uniform(n_windows * size).view(-1, n_windows, size)
        edges = torch.arange(size + 1, device=u.device) * self.n_free // size
        width = edges.diff()
        within = torch.minimum((u * width).long(), width - 1)
        return self.features[within.add_(edges[:-1]).add_(first).remainder_(self.n_free)]

    def flip(self, noise, size):
        """Return None: each feature goes to its other end."""

    def first_flips(self, noise):
        """Draw signs of all features to start from, of shape (n, d)."""
        return noise.sign(len(self.free))

    def first_bumps(self, noise):
        """Draw perturbations to start from, of shape (n, d): equal changes of all features."""
        return noise.sign(len(self.free)).mul_(self.free)

    def bump(self, noise, size):
        """Draw a pattern of size 1 for each set, of shape (n, size): random signs."""
        signs = noise.sign(size)
        return signs.div_(self.size_of(signs))


def _ruler(query):
    """Return the ruler sequence 1, 2, 1, 3, 1, 2, 1, 4, ..."""
    return (query & -query).bit_length()


def _bump(side):
    """Return two bumps side by side, one up and one down (Andriushchenko et al. 2020, eq. (2))."""
    half = side // 2
    if half == 0:
        return torch.ones(1, 1, dtype=torch.float64)
    return torch.cat([_half_bump(side, half), -_half_bump(side, side - half)], 1)


def _half_bump(height, width):
    """Return a bump over a rectangle: concentric rings that grow towards the middle."""
    middle = height // 2
    row = (torch.arange(height) - middle).abs().unsqueeze(1)
    column = (torch.arange(width) - width // 2).abs()
    ring = middle - torch.maximum(row, column)
    rings = (middle + 1 - torch.arange(middle + 1, dtype=torch.float64)) ** -2
    return rings.cumsum(0)[ring]
