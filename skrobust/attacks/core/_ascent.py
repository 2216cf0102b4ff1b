"""Projected gradient ascent: the one loop of attacks, defenses and validation."""

from math import cos, pi

import numpy as np
import torch


def ascend(oracle, z, fractions, momentum=0.0):
    """Climb by projected gradient steps.

    Parameters
    ----------
    oracle : object
        Has the ``feasible_set`` around the present rows, their number as ``len(oracle)``, and a
        method ``gradient(z)``, which returns points, gradients there, and None or the positions
        of the rows that remain: see :meth:`MarginSearch.gradient`.

    z : tensor of shape (n, ...)
        Starting points in the feasible set; overwritten.

    fractions : iterable of float
        Length of each step as a share of the radius.

    momentum : float, default=0.0
        Share of the accumulated direction that is added to each gradient, which is first divided
        by its l1 norm [1]_.

    Returns
    -------
    z : tensor of shape (n_left, ...)
        Points after the last step, which the oracle has not seen.

    References
    ----------
    .. [1] Y. Dong et al., "Boosting adversarial attacks with momentum", CVPR 2018.
    """
    velocity = torch.zeros_like(z if momentum else z[:0])
    for fraction in fractions:
        if not len(oracle):
            break
        z, grad, kept = oracle.gradient(z)
        if momentum:
            velocity = velocity if kept is None else velocity[kept]
            size = grad.flatten(1).abs().sum(1).clamp_min_(torch.finfo(grad.dtype).tiny)
            velocity.mul_(momentum).add_(grad / size.view(-1, *[1] * (grad.ndim - 1)))
            grad = velocity.clone()
        z = oracle.feasible_set.step_(z, grad, fraction)
    return z


def step_fractions(n_steps, step_size, eps):
    """Return the length of each step as a share of the radius.

    Parameters
    ----------
    n_steps : int

    step_size : None or float
        In units of ``eps``. None means the decreasing schedule ``1 + cos(pi k / n_steps)``.

    eps : float or array-like of shape (n_features,)

    Returns
    -------
    fractions : list of float
    """
    if step_size is None:
        return [1 + cos(pi * k / n_steps) for k in range(n_steps)]
    radius = float(np.max(eps))
    return [step_size / radius if radius > 0 else 0.0] * n_steps
