"""How convolutions are laid out and cut up: rules from measurements, all in this one place.

They depend on nothing but shapes, precision and device, so that the same seed gives the same bits.
The figures are times relative to the alternative, on two cores with AVX-512 and oneDNN;
``benchmarks/settings.py`` measures them again.
"""

import torch

# Rows are sent through a chain in pieces of which no layer has more values than this (8 MB): what
# one layer writes is still in the cache for the next, and the allocator gives the same blocks
# again. 0.85 for 334 rows through LeNet, 0.75 for 256 images of 3 x 32 x 32 through four layers of
# 32 and 64 channels, at worst 1.02; four times as many gain less, a quarter as many cost 1.1.
_VALUES_A_PIECE = 2**21

# Precisions of which oneDNN computes the convolutions.
_CHANNELS_LAST = {torch.float32}

# Of so many convolutions at least, outputs alone are computed in oneDNN's own layout.
_WORTH_BLOCKS = 2


def n_pieces(n_rows, n_values, device):
    """Number of pieces for so many rows of so many values, those of the widest layer."""
    if device.type != "cpu":  # an accelerator has no use for little work
        return 1
    return max(1, min(n_rows, -(-n_rows * n_values // _VALUES_A_PIECE)))


def convolution_format(weight):
    """Memory format for a convolution with this weight, and for what is between two of them.

    For oneDNN, which does those in float32, it is channels last: 0.86 for a pass forward and back,
    0.3 to 1.0 over 140 shapes (1 to 16 channels to 8 to 64, kernels of 3 to 7, strides of 1 and
    2), and 0.15 for max pooling. Others, those of float64 first of all, take up to 4 times as long.
    """
    if weight.dtype in _CHANNELS_LAST and _has_one_dnn(weight):
        return torch.channels_last
    return torch.contiguous_format


def _has_one_dnn(weight):
    available = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return available and weight.device.type == "cpu"


def suits_blocks(weights):
    """Whether a pass forward through convolutions with these weights is in oneDNN's own layout.

    There channels lie in blocks as wide as the registers, and no convolution rearranges what the
    one before it leaves: 0.5 to 1.2 of the time with channels last, 0.95 in the middle, for fifteen
    networks of two to six convolutions with and without pooling, from 16 and 256 rows on one thread
    and on two. A single convolution gains nothing (0.9 to 1.3).
    """
    weights = list(weights)
    return len(weights) >= _WORTH_BLOCKS and all(
        weight.dtype == torch.float32 and _has_one_dnn(weight) for weight in weights
    )


def folds(weight, groups, dilation):
    """Whether the gradient to the input is a matrix product and a sum of shifted images.

    oneDNN computes 16 channels of the input even if there are fewer, so that its time does not
    depend on them, while that of the sum is proportional: of ten shapes 0.3 to 0.9 for the six of
    this rule, 1.0 to 1.6 for the rest, on one thread and on two.
    """
    n_out, n_in = weight.shape[:2]
    few = n_in * (n_out + 40) < 8 * n_out
    usual = groups == 1 and all(step == 1 for step in dilation)
    return few and usual and convolution_format(weight) is torch.channels_last


def channels_last(x):
    """Copy to channels last; the strides say so also where there is one channel only."""
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def format_of(x):
    """Memory format to give a tensor that goes with this one."""
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format
