"""Context managers for many passes through one module."""

from contextlib import contextmanager

import torch
from torch import nn

from ...utils._torch import evaluation_mode
from ._capture import layer_ops
from ._memory_format import prefers_channels_last, to_channels_last


@contextmanager
def training_memory_format(view):
    """Store weights in the memory format in which training takes the least time.

    The weights of convolutions are in channels last inside the block, and contiguous again
    afterwards. A convolution gives its output the memory format of its weight, and the layers
    behind it keep that format. A training step takes 0.65 to 0.8 of the time for networks with
    pooling, and 0.92 to 1.01 for others (``benchmarks/settings.py``).

    Parameters
    ----------
    view : torch.nn.Module
        It is left as it is if some of its layers are unknown: ``Tensor.view`` inside a module fails
        on activations in channels last.
    """
    with evaluation_mode(view):
        known = layer_ops(view) is not None
    layers = [m for m in view.modules() if isinstance(m, nn.Conv2d)] if known else []
    weights = [m.weight for m in layers if prefers_channels_last(m.weight)]
    for weight in weights:
        weight.data = to_channels_last(weight.data)
    try:
        yield
    finally:
        for weight in weights:
            like = torch.empty_like(weight.data, memory_format=torch.contiguous_format)
            weight.data = like.copy_(weight.data)


@contextmanager
def deterministic_convolutions():
    """Set ``torch.backends.cudnn.deterministic`` inside the block, and restore it afterwards.

    cuDNN then sums in one order. Without it, the gradients of convolutions on a GPU can have
    other bits in every run. On an H100, attacks took 0.8 to 1.2 of the time with it.
    """
    cudnn = torch.backends.cudnn
    deterministic = cudnn.deterministic
    cudnn.deterministic = True
    try:
        yield
    finally:
        cudnn.deterministic = deterministic
