"""The memory format of convolutions while they are trained."""

from contextlib import contextmanager

import torch
from torch import nn

from ..utils._torch import evaluation_mode
from ._memory_format import channels_last, convolution_format
from ._pullback import known_steps


@contextmanager
def training_format(view):
    """Lay out weights as training takes the least time; puts them back afterwards.

    Convolutions give their output the format of their weight, and with it all that follows: 0.65 to
    0.8 of the time of a training step for networks that pool, and 0.96 to 1.01 for others
    (benchmarks/settings.py). Modules that might look at their activations by ``Tensor.view``, which
    cannot be done then, stay as they are.
    """
    with evaluation_mode(view):
        known = known_steps(view) is not None
    layers = [m for m in view.modules() if isinstance(m, nn.Conv2d)] if known else []
    weights = [m.weight for m in layers if convolution_format(m.weight) is torch.channels_last]
    for weight in weights:
        weight.data = channels_last(weight.data)
    try:
        yield
    finally:
        for weight in weights:
            like = torch.empty_like(weight.data, memory_format=torch.contiguous_format)
            weight.data = like.copy_(weight.data)
