"""Passes over a list of ops that make it cheaper to run.

Each pass takes a list of ops and returns a new one, with the same results up to rounding.
"""

from ._convolution import ConvolutionOp, fastest_convolution
from ._memory_format import prefers_channels_last
from ._ops import (
    ActivationOp,
    AveragePoolOp,
    BatchNormOp,
    ChannelsLastLinearOp,
    FlattenOp,
    LinearOp,
    MaxPoolOp,
    ReLUOp,
    ReshapeOp,
)


def fuse(ops):
    """Run all passes."""
    for run in (
        fold_batch_norm,
        pool_before_relu,
        reorder_flattened_linear,
        choose_convolutions,
        relu_in_place,
    ):
        ops = run(ops)
    return ops


def fold_batch_norm(ops):
    """Multiply the scale of a batch normalization into the convolution before it."""
    fused: list = []
    for op in ops:
        last = fused[-1] if fused else None
        if isinstance(op, BatchNormOp) and isinstance(last, ConvolutionOp):
            weight = last.weight * op.scale.view(-1, 1, 1, 1)
            bias = op.shift if last.bias is None else op.shift.addcmul(last.bias, op.scale)
            fused[-1] = ConvolutionOp(weight, bias, last.window, last.groups)
        else:
            fused.append(op)
    return fused


def pool_before_relu(ops):
    """Swap ReLU and the max pooling behind it: ``max_pool(relu(x)) == relu(max_pool(x))``.

    Pooling first leaves fewer values to rectify. The gradients are the same, too: where ReLU makes
    several values of a window equal, their gradient is zero.
    """
    fused: list = []
    for op in ops:
        if isinstance(op, MaxPoolOp) and fused and isinstance(fused[-1], ReLUOp):
            fused.insert(-1, op)
        else:
            fused.append(op)
    return fused


def reorder_flattened_linear(ops):
    """Apply the linear layer behind convolutions to their values in channels-last order.

    The columns of its weight are reordered once, so that flattening moves no values.
    """
    fused: list = []
    for op in ops:
        flattens = bool(fused) and isinstance(fused[-1], FlattenOp)
        n_channels = _n_channels(fused[:-1]) if flattens and isinstance(op, LinearOp) else None
        if n_channels is not None and prefers_channels_last(op.weight):
            weight = op.weight.unflatten(1, (n_channels, -1)).transpose(1, 2).flatten(1)
            fused[-1] = ChannelsLastLinearOp(weight, op.bias)
        else:
            fused.append(op)
    return fused


def _n_channels(ops):
    """Return the number of channels of the output, if convolutions gave it, otherwise None."""
    channelwise = BatchNormOp, MaxPoolOp, AveragePoolOp, ReLUOp, ActivationOp
    for op in reversed(ops):
        if isinstance(op, ConvolutionOp):
            return len(op.weight)
        if not isinstance(op, channelwise):
            break
    return None


def choose_convolutions(ops):
    """Give convolutions the memory format and the kind of gradient that are fastest."""
    return [fastest_convolution(op) if isinstance(op, ConvolutionOp) else op for op in ops]


def relu_in_place(ops):
    """Let a ReLU overwrite its input and its gradient where no other op refers to them.

    That takes half the time of a ReLU that allocates its output. Reshapes on either side do not
    matter, as they keep nothing but shapes.
    """
    computing = [op for op in ops if not isinstance(op, ReshapeOp)]
    replaced = {
        id(op)
        for before, op, after in zip(computing, computing[1:], computing[2:], strict=False)
        if isinstance(op, ReLUOp) and before.allocates and after.allocates
    }
    return [ReLUOp(in_place=True) if id(op) in replaced else op for op in ops]
