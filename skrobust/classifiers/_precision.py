"""Predictions that do not depend on the batch or on the processor."""

from copy import deepcopy

import torch
from torch import nn

from ..differentiable._nets import Net
from ..differentiable.runtime import layer_ops
from ..utils._torch import evaluation_mode


def precise(module):
    """Convert a float32 module to float64 for predictions, where this costs little time.

    In float32 the last bits of a row's logits depend on the number of rows in the batch, and on
    some processors on the position of the row. Logits that are computed in float64 and rounded to
    float32 almost never differ. Convolutions would be slow in float64, so the conversion is limited
    to modules without convolutions whose layers are all known.

    Parameters
    ----------
    module : torch.nn.Module
        Trained module.

    Returns
    -------
    module : torch.nn.Module
        A float64 copy, or ``module`` itself.
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
