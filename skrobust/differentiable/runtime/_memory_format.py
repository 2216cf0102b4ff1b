"""Memory formats of convolutions and of the activations between them.

The rule depends on nothing but dtype and device, so the same seed gives the same bits. Figures are
times relative to the alternative, on two cores with AVX-512 and oneDNN; ``benchmarks/settings.py``
measures them again.
"""

import torch

# Dtypes whose convolutions oneDNN computes.
_CHANNELS_LAST = {torch.float32}


def prefers_channels_last(weight):
    """Return whether a layer with this weight is faster in channels last than contiguous.

    It is for oneDNN, which computes float32 convolutions on the CPU: 0.86 of the time forward and
    backward, 0.3 to 1.0 over 140 shapes (1 to 16 input channels, 8 to 64 output channels, kernels
    of 3 to 7, strides of 1 and 2), and 0.15 for max pooling. Other kernels, those for float64 first
    of all, take up to 4 times as long in channels last.
    """
    one_dnn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return weight.dtype in _CHANNELS_LAST and one_dnn and weight.device.type == "cpu"


def to_channels_last(x):
    """Copy a tensor to channels last.

    Unlike ``x.contiguous(memory_format=torch.channels_last)``, this also sets the strides of
    channels last where there is one channel only.
    """
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def memory_format_of(x):
    """Return the memory format of a tensor; contiguous where it has both or neither."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format
