"""Predictions that do not depend on the other rows of a batch, or on the processor."""

from copy import deepcopy

import torch
from torch import nn

from ..differentiable._nets import Net
from ..differentiable.runtime import layer_ops
from ..utils._torch import evaluation_mode


def precise(module):
    """Return a copy of a float32 module in float64 where that costs little, else the module.

    In float32, the last bits of a row depend on the number of rows, and on some processors even on
    its position among them. They do in float64, too, but hardly ever after rounding to float32.
    Only modules of known layers without convolutions are converted: float64 costs little there.

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
        known = layer_ops(Net(module)) is not None
    if not known or any(isinstance(layer, nn.Conv2d) for layer in module.modules()):
        return module
    return deepcopy(module).double()
