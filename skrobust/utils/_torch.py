"""Devices, precisions, and the promise to leave a module as it was."""

from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from ._batching import batch_slices, resolve_batch_size


def is_fitted(estimator):
    """Whether an estimator is fitted; a module always is."""
    if isinstance(estimator, torch.nn.Module):
        return True
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


def resolve_device(device):
    """Device that ``device`` means: ``"auto"`` is the accelerator where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device is {str(device)!r}, and torch finds no CUDA device. Use device='auto' for the "
            "best there is, or 'cpu'."
        )
    return device


def input_options(module):
    """Dtype and device in which ``module`` takes its input.

    They are those of its first floating-point tensor in the order of the computation: the first
    step of a pipeline decides, because that is where the input arrives.
    """
    for child in module.modules():
        for tensor in chain(child._parameters.values(), child._buffers.values()):
            if tensor is not None and tensor.is_floating_point():
                return {"dtype": tensor.dtype, "device": tensor.device}
    return {"dtype": torch.get_default_dtype(), "device": torch.device("cpu")}


@contextmanager
def evaluation_mode(module):
    """Put every submodule in evaluation mode inside the block, and each back as it was after."""
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
    """Evaluation mode and parameters without gradients inside the block.

    A step of an attack then costs one pass forward and one to the input, whatever the module's
    state; the mode of every submodule and every ``requires_grad`` are put back afterwards, also
    when an estimator's ``predict`` changed the mode meanwhile.
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
    """Outputs of a module for an array, in evaluation mode and in batches.

    Parameters
    ----------
    module : torch.nn.Module

    X : array-like of shape (n_samples, ...)

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
