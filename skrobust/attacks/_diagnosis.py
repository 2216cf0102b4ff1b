"""Warnings that tell when an attack is weaker than it looks."""

import warnings

import numpy as np
import torch

from ..exceptions import (
    MaskedGradientsWarning,
    ProbabilitiesWarning,
    RandomizedModelWarning,
    UnboundedRobustnessWarning,
    ZeroGradientsWarning,
)
from ..utils._threat_parameters import mask_to_bool

# So many points, spread over the data, are looked at: one pass there and back and one more forward.
_N_PROBES = 16


def diagnose_model(attack, model, array):
    """Warn of what misleads an attack by gradients: found out on a few of the inputs."""
    rows = np.unique(np.linspace(0, len(array) - 1, _N_PROBES).astype(int))
    x = torch.from_numpy(array[rows]).to(**model.options)
    logits, pull = model(x)
    top, order = logits.topk(2, dim=1)
    grad = pull(torch.zeros_like(logits).scatter_(1, order, torch.tensor([-1.0, 1.0]).to(top)
                                                  .expand_as(top)))  # fmt: skip
    name = type(attack).__name__
    if getattr(attack, "eot_samples", 1) == 1 and not torch.equal(logits, model.logits(x)):
        _warn_if_random(name, logits, model.logits(x))
    total = logits.sum(1)
    if logits.min() >= 0 and torch.allclose(total, torch.ones_like(total), rtol=0, atol=1e-4):
        _warn(
            ProbabilitiesWarning,
            f"{name} expects logits, and what the model gives looks like probabilities: rows of "
            "non-negative numbers that sum to 1. Their gradients vanish where the model is sure. "
            "Hand in the module without its softmax, or end it in torch.nn.LogSoftmax.",
        )
    share = (grad.flatten(1) == 0).all(1).double().mean().item()
    if share >= 0.5:
        _warn(
            ZeroGradientsWarning,
            f"The gradient of the model is exactly zero at {share:.0%} of {len(x)} inputs that "
            f"{name} looked at, so that it has no direction to go. Add an attack without "
            "gradients, such as Square; mark a step that swallows them by "
            "skrobust.differentiable.straight_through; look for saturated activations.",
        )


def _warn_if_random(name, logits, again):
    # The kernels of some devices round differently from run to run.
    scale = logits.abs().amax().clamp_min(torch.finfo(logits.dtype).tiny)
    if ((logits - again).abs().amax() / scale).item() > 1e3 * torch.finfo(logits.dtype).eps:
        _warn(
            RandomizedModelWarning,
            f"The model gives another output for the same input: it is random, and {name} follows "
            "the gradient of one draw at a time. Set eot_samples to average over several (PGD, "
            "APGD), or use AutoAttack(version='rand').",
        )


def diagnose_result(attack, threat, array, success):
    """Warn of points that withstand an attack which may change them at will."""
    if success.all() or not is_unbounded(threat, array):
        return
    _warn(
        UnboundedRobustnessWarning,
        f"{type(attack).__name__} found nothing for {np.sum(~success)} of {len(success)} points, "
        "although eps lets it change them at will: no classifier is robust to that, so the attack "
        "is too weak for this model, or its gradients mislead. Do not trust the robust accuracy at "
        "smaller eps either; try more steps and restarts, AutoAttack, and attacks without "
        "gradients.",
    )


def warn_masked(attack, n_found, n_points):
    """Warn of points that fall to scores alone and not to gradients."""
    _warn(
        MaskedGradientsWarning,
        f"Square, which sees scores only, found adversarial examples for {n_found} of {n_points} "
        f"points at which the members of {type(attack).__name__} that follow gradients had "
        "failed. The gradients of the model mislead, and its robust accuracy is likely lower than "
        "measured: look for steps that hide them, and try more queries.",
    )


def is_unbounded(threat, array):
    """Whether every point of the box, or all of space, is admissible around every input."""
    n_features = array[0].size
    if threat.mask is not None and not mask_to_bool(threat.mask, n_features).all():
        return False
    eps = np.broadcast_to(threat.eps, n_features) if np.ndim(threat.eps) == 0 else threat.eps
    if np.isinf(eps).all():
        return True
    if threat.bounds is None:
        return False
    low, high = (np.broadcast_to(side, (n_features,)) for side in threat.bounds)
    width = high - low
    if threat.norm == "l0":
        return bool(threat.eps >= n_features)
    scaled = np.divide(width, eps, out=np.full(n_features, np.inf), where=eps > 0)
    scaled[width == 0] = 0
    order = {"linf": np.inf, "l2": 2, "l1": 1}[threat.norm]
    return bool(np.linalg.norm(scaled, order) <= 1)


def _warn(category, message):
    warnings.warn(message, category, stacklevel=2)
