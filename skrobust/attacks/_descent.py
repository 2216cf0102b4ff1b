"""What the attacks share that go down to the nearest adversarial point: schedules and starts."""

from math import cos, pi

import torch

from ._losses import CrossEntropy, Margin

# What the runs climb by turns. The margin is that of one class, and which one it is changes on the
# way; the cross-entropy heads for all of them, and finds points that are closer by one per cent on
# ordinarily trained networks for MNIST. Each finds some that the other does not.
LOSSES_BY_TURNS = (CrossEntropy, Margin)

# Distances are not above this, so that their squares are finite.
_LONGEST = 1e16

# Where the model is linear the boundary is met exactly, and rounding would decide on which side.
_BEYOND = 1.001


def falling(k, n_steps, end=0.01):
    """Factor of step ``k`` of ``n_steps``: from 1 down to ``end`` along half a cosine."""
    return end + (1 - end) * (1 + cos(pi * k / n_steps)) / 2


def first_distance(space, margin, slope):
    """Estimated distance to just beyond the boundary, by the linearised margin, of shape (n, 1).

    ``slope`` is the dual size of the margin's gradient.
    """
    # At zero, on the boundary itself, nothing measured by it could ever move.
    distance = torch.maximum(margin.abs().mul_(_BEYOND).div_(slope), space.resolution)
    return distance.clamp_max_(_LONGEST).minimum(space.farthest)


def movable(space, u, grad):
    """The gradient without the features that the box holds back."""
    if space.bottom is None:
        return grad
    # Comparisons written into floats: on a CPU boolean masks take several times as long.
    most = torch.finfo(u.dtype).max
    down = torch.gt(u, space.bottom, out=torch.empty_like(u)).mul_(-most)
    up = torch.lt(u, space.top, out=torch.empty_like(u)).mul_(most)
    return grad.clamp(down, up)


def rate_of_radius(gamma, back, n_steps, share=0.3):
    """Rate at which the radius changes at first, of shape (n, 1).

    It is ``gamma``, or more where the logarithm of the radius has to fall by ``back``, since a
    restart begins outside the best ball: so much that it does in this share of the steps.
    """
    return (back * (2 / share / n_steps)).clamp_min_(gamma)


def start_again(search, u, noise, share=1.0):
    """A random point around the best one, from which to go down again.

    What is added to each feature is uniform, up to this share of the largest change of any
    feature. Where nothing has been found yet, the point is drawn around the input, up to the
    largest change of ``u``.

    Returns
    -------
    u : tensor of shape (n, d)

    amplitude : tensor of shape (n, 1)

    shrink : tensor of shape (n, 1)
        Logarithm of the size of the new point over that of the best; zero where there is none.
    """
    best, size = search.best()
    found = size < torch.inf
    amplitude = torch.where(found, share * best, u).abs().amax(1, keepdim=True)
    spread = noise.uniform(u.shape[1]).mul_(2).sub_(1).mul_(amplitude)
    u = search.space.clip_(spread.add_(best))  # zero where there is none
    ratio = search.space.size(u) / size.clamp_min(torch.finfo(size.dtype).tiny)
    return u, amplitude, torch.where(found, ratio.clamp_min(1).log_(), 0.0)
