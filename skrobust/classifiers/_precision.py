"""Predictions that depend neither on what passes beside a row nor on the processor."""

from copy import deepcopy

import torch

from ..differentiable import _steps as steps
from ..differentiable._nets import Net
from ..differentiable._pullback import known_steps
from ..utils._torch import evaluation_mode


def precise(module):
    """A float32 module in float64, where that costs little; others as they are.

    In float32 the last bits of a row depend on how many rows there are, on some processors even on
    its place among them. In float64 they do, too, but once the result is rounded to float32 hardly
    ever. That costs little without convolutions, and is done where all layers are known.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    module : torch.nn.Module
        Itself, or a copy.
    """
    weights = list(module.parameters())
    if not weights or any(
        w.dtype is not torch.float32 or w.device.type not in ("cpu", "cuda") for w in weights
    ):
        return module
    with evaluation_mode(module):
        chain = known_steps(Net(module))
    if chain is None or any(isinstance(step, steps.Convolution) for step in chain):
        return module
    return deepcopy(module).double()
