"""The linear function whose zero is the closest decision boundary."""

import torch

from ._losses import likeliest_others

# Differences of logits up to this number of roundings of the largest logit count as zero.
_ROUNDINGS = 64


def linearize_boundary(search, u, others=None, beta=1.0):
    """Rank points, and return the linear function that is zero on the closest boundary.

    Parameters
    ----------
    search : NormSearch

    u : tensor of shape (n, d)
        Points in units of the feasible set.

    others : None, int or int64 tensor of shape (n_all, k), default=None
        Classes whose boundaries with the label are compared: all; this number of the likeliest; or
        the classes given. For a targeted attack, the boundary of the target with its strongest
        rival.

    beta : float, default=1.0
        Where ``u`` is adversarial, distances are measured from ``beta u``.

    Returns
    -------
    share : tensor of shape (n, 1)
        ``beta`` for adversarial points, else 1.

    value : tensor of shape (n, 1)
        The function at ``u``; negative where ``u`` is not adversarial.

    w : tensor of shape (n, d)
        Slopes of the function.

    along : tensor of shape (n, 1)
        ``<w, u>``.
    """
    logits, margin, vjp = search.linearize(u)
    share = torch.where(margin > 0, beta, 1.0)
    if search.loss.targeted:
        w = vjp(search.loss.grad_logits(logits))
        return share, *_beyond_rounding(search, logits, margin, w, u)
    best = None
    for column in _columns(search, logits, others):
        grad_logits = torch.zeros_like(logits).scatter_(1, column, 1)
        grad_logits.scatter_(1, search.loss.index, -1)
        w = vjp(grad_logits)
        value = (logits * grad_logits).sum(1, keepdim=True)
        found = _beyond_rounding(search, logits, value, w, u)
        best = found if best is None else _closer(search, share, found, best)
    return share, *best


def _columns(search, logits, others):
    """Return the classes to compare, as a list of tensors of shape (n, 1)."""
    if isinstance(others, torch.Tensor):
        others = others if search.rows is None else others[search.rows]
    else:
        n_classes = logits.shape[1] if others is None else others
        others = likeliest_others(logits, search.loss.index[:, 0], n_classes)
    return others.split(1, dim=1)


def _beyond_rounding(search, logits, value, w, u):
    """Return value, slopes and ``<w, u>`` of a function, moved below zero by its rounding.

    Exactly on the boundary, the way to it would be zero, and no step would ever leave it.
    """
    rounding = logits.abs().amax(1, keepdim=True) * (_ROUNDINGS * torch.finfo(logits.dtype).eps)
    resolution = search.feasible_set.resolution * search.feasible_set.dual_size(w)
    along = torch.linalg.vecdot(w, u).unsqueeze(1)
    return value - torch.maximum(rounding, resolution), w, along


def _closer(search, share, found, best):
    """Return for each row the function of two whose zero is closer."""
    distance, nearest = (
        (value + (share - 1) * along).abs_() / search.feasible_set.dual_size(w)
        for value, w, along in (found, best)
    )
    return tuple(torch.where(distance < nearest, *pair) for pair in zip(found, best, strict=True))
