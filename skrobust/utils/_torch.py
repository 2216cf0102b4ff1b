"""Devices and dtypes of modules, evaluation mode, and outputs for an array."""

from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from ._batching import batch_slices, resolve_batch_size


def is_fitted(estimator):
    """Return whether an estimator is fitted; modules always are."""
    if isinstance(estimator, torch.nn.Module):
        return True
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def resolve_device(device):
    """Return a torch.device; ``"auto"`` means the GPU if there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device is {str(device)!r}, but torch finds no CUDA device. Use device='cpu', or "
            "device='auto', which takes the GPU if there is one."
        )
    return device


def input_options(module):
    """Return the dtype and device of inputs for ``module``.

    They are taken from its first floating-point tensor in the order of the computation, because the
    first step of a pipeline gets the input.
    """
    for child in module.modules():
        for tensor in chain(child._parameters.values(), child._buffers.values()):
            if tensor is not None and tensor.is_floating_point():
                return {"dtype": tensor.dtype, "device": tensor.device}
    return {"dtype": torch.get_default_dtype(), "device": torch.device("cpu")}


@contextmanager
def evaluation_mode(module):
    """Set all submodules to evaluation mode inside the block, and restore each mode afterwards."""
    training = [child for child in module.modules() if child.training]
    for child in training:
        child.training = False
    try:
        yield
    finally:
        for child in training:
            child.training = True


@contextmanager
def frozen(module):
    """Set evaluation mode and disable gradients of parameters inside the block.

    A gradient step of an attack then costs only a forward pass and a backward pass to the input.
    The mode of every submodule and every ``requires_grad`` are restored afterwards, even if an
    estimator's ``predict`` has changed the mode inside the block.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    with evaluation_mode(module):
        for parameter in trainable:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)


def outputs(module, X):
    """Compute the outputs of a module for an array, in evaluation mode and in batches.

    Parameters
    ----------
    module : torch.nn.Module
        Module to evaluate.

    X : array-like of shape (n_samples, ...)
        Inputs.

    Returns
    -------
    outputs : ndarray of shape (n_samples, ...)
    """
    X = np.asarray(X)
    options = input_options(module)
    parts = []
    with torch.no_grad(), evaluation_mode(module):
        for rows in batch_slices(len(X), resolve_batch_size("auto", X.shape[1:])):
            parts.append(module(torch.tensor(X[rows], **options)).cpu().numpy())
    return np.concatenate(parts)
