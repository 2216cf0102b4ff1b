"""Warnings of models and results for which an attack is weaker than it looks."""

import warnings

import numpy as np
import torch

from ...exceptions import (
    MaskedGradientsWarning,
    ProbabilitiesWarning,
    RandomizedModelWarning,
    UnboundedRobustnessWarning,
    ZeroGradientsWarning,
)

# Number of inputs to look at, spread over the data: two forward passes and one backward pass.
_N_PROBES = 16


def diagnose_model(attack, model, array):
    """Warn of properties of a model that mislead an attack by gradients.

    Parameters
    ----------
    attack : BaseAttack

    model : GradientAccess

    array : ndarray of shape (n_samples, ...)
        Inputs, of which a few are looked at.
    """
    rows = np.unique(np.linspace(0, len(array) - 1, _N_PROBES).astype(int))
    x = torch.from_numpy(array[rows]).to(**model.options)
    logits, vjp = model(x)
    name = type(attack).__name__
    if getattr(attack, "eot_samples", 1) == 1:
        _warn_if_random(name, logits, model.logits(x))
    _warn_of_probabilities(name, logits)
    _warn_of_zero_gradients(name, logits, vjp)


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


def _warn_of_probabilities(name, logits):
    total = logits.sum(1)
    if logits.min() >= 0 and torch.allclose(total, torch.ones_like(total), rtol=0, atol=1e-4):
        _warn(
            ProbabilitiesWarning,
            f"{name} expects logits, and the outputs of the model look like probabilities: rows of "
            "non-negative numbers that sum to 1. Their gradients vanish where the model is "
            "confident. Hand in the module without its softmax, or end it in torch.nn.LogSoftmax.",
        )


def _warn_of_zero_gradients(name, logits, vjp):
    """Warn if the gradient of the difference of the two largest logits is zero at most inputs."""
    top, order = logits.topk(2, dim=1)
    signs = torch.tensor([-1.0, 1.0]).to(top).expand_as(top)
    grad = vjp(torch.zeros_like(logits).scatter_(1, order, signs))
    share = (grad.flatten(1) == 0).all(1).double().mean().item()
    if share >= 0.5:
        _warn(
            ZeroGradientsWarning,
            f"The gradient of the model is exactly zero at {share:.0%} of {len(logits)} inputs "
            f"that {name} looked at, so that it has no direction to follow. Add an attack without "
            "gradients, such as Square; mark a step that swallows them by "
            "skrobust.differentiable.straight_through; look for saturated activations.",
        )


def diagnose_result(attack, threat, array, success):
    """Warn of points that withstand an attack which may change them at will.

    Parameters
    ----------
    attack : BaseAttack

    threat : ThreatModel

    array : ndarray of shape (n_samples, ...)
        Inputs.

    success : bool ndarray of shape (n_samples,)
    """
    if success.all() or not threat.is_unbounded(array[0].size):
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
    """Warn of points that fall to an attack by scores, but not to attacks by gradients.

    Parameters
    ----------
    attack : AutoAttack

    n_found : int
        Number of points that fell to scores only.

    n_points : int
        Number of points under attack.
    """
    _warn(
        MaskedGradientsWarning,
        f"Square, which sees scores only, found adversarial examples for {n_found} of {n_points} "
        f"points at which the members of {type(attack).__name__} that follow gradients had "
        "failed. The gradients of the model mislead, and its robust accuracy is likely lower than "
        "measured: look for steps that hide them, and try more queries.",
    )


def _warn(category, message):
    warnings.warn(message, category, stacklevel=2)
