"""Convolutions: the plain one, and one with a faster gradient for few input channels."""

from math import prod

import torch
from torch.nn import functional

from ._memory_format import prefers_channels_last, to_channels_last
from ._ops import LayerOp

_aten = torch.ops.aten


class ConvolutionOp(LayerOp):
    """Two-dimensional convolution that pads with zeros.

    Parameters
    ----------
    weight : tensor of shape (n_out, n_in // groups, height, width)

    bias : tensor of shape (n_out,) or None

    window : tuple
        Stride, padding and dilation, each a pair of integers.

    groups : int
    """

    allocates = True

    def __init__(self, weight, bias, window, groups):
        self.weight, self.bias, self.window, self.groups = weight, bias, window, groups

    def forward(self, x):
        return torch.conv2d(x, self.weight, self.bias, *self.window, self.groups), x

    def vjp(self, grad, saved):
        # The mask asks for the gradient of the input alone, not of weight and bias.
        return _aten.convolution_backward(
            grad,
            saved,
            self.weight,
            None,
            *self.window,
            False,
            (0, 0),
            self.groups,
            (True, False, False),
        )[0]


class FoldedConvolutionOp(ConvolutionOp):
    """Convolution whose input gradient is one matrix product and a sum of shifted planes.

    The kernel is cut into blocks of the size of the stride; zeros fill up the blocks at its end.
    One matrix product gives the contribution of every output pixel to every block. All pixels at
    the same position in a block form a plane. Blocks that are neighbors in the kernel contribute
    to the same plane, shifted by one pixel against each other. After the sum over blocks, the
    planes are interleaved to the gradient.
    """

    def __init__(self, weight, bias, window, groups):
        super().__init__(weight, bias, window, groups)
        n_out, n_in, height, width = weight.shape
        (rows, columns), *_ = window
        self.n_blocks = -(-height // rows), -(-width // columns)
        below, right = self.n_blocks[0] * rows - height, self.n_blocks[1] * columns - width
        padded = functional.pad(weight, (0, right, 0, below))
        blocks = padded.reshape(n_out, n_in, self.n_blocks[0], rows, self.n_blocks[1], columns)
        self.weight_by_block = blocks.permute(2, 4, 1, 3, 5, 0).reshape(-1, n_out)

    def vjp(self, grad, saved):
        planes = self._sum_blocks(grad, saved.shape)
        return self._interleave(planes, saved.shape)

    def _sum_blocks(self, grad, input_shape):
        """Sum up the blocks to planes of shape (n_in, *stride, n, n_rows, n_columns)."""
        n, n_in, *size = input_shape
        stride, padding, _ = self.window
        n_out, height, width = grad.shape[1:]
        positions = n_in, *stride
        pixels = grad.permute(0, 2, 3, 1).reshape(-1, n_out)
        parts = torch.mm(self.weight_by_block, pixels.T)
        parts = parts.view(*self.n_blocks, prod(positions), n, height, width)
        # A plane has room for all blocks, and for the padded input where that is larger.
        plane_size = [
            max(n_outputs + n_blocks - 1, -(-(length + pad) // step))
            for n_outputs, n_blocks, length, pad, step in zip(
                (height, width), self.n_blocks, size, padding, stride, strict=True
            )
        ]
        planes = parts.new_zeros(prod(positions), n, *plane_size)
        for i in range(self.n_blocks[0]):
            for j in range(self.n_blocks[1]):
                planes[:, :, i : i + height, j : j + width] += parts[i, j]
        return planes.view(*positions, n, *plane_size)

    def _interleave(self, planes, input_shape):
        """Copy the planes to their pixels of the input, without the padding."""
        stride, padding, _ = self.window
        image = planes.new_empty(input_shape)
        for i in range(stride[0]):
            top, y = _skip_padding(i, stride[0], padding[0])
            for j in range(stride[1]):
                left, x = _skip_padding(j, stride[1], padding[1])
                part = image[:, :, y :: stride[0], x :: stride[1]]
                plane = planes[:, i, j, :, top : top + part.shape[2], left : left + part.shape[3]]
                part.copy_(plane.transpose(0, 1))
        return image


def _skip_padding(position, stride, padding):
    """Return the first index of a plane behind the padding, and its pixel of the input."""
    n_skipped = -(-(padding - position) // stride)
    return n_skipped, stride * n_skipped + position - padding


def fastest_convolution(op):
    """Return a convolution in the fastest memory format, with the faster of the two gradients."""
    weight, dilation = op.weight, op.window[2]
    if not prefers_channels_last(weight):
        return op
    kind = FoldedConvolutionOp if folds(weight, op.groups, dilation) else ConvolutionOp
    return kind(to_channels_last(weight), op.bias, op.window, op.groups)


def folds(weight, groups, dilation):
    """Return whether the folded gradient is faster than the one of oneDNN.

    oneDNN computes 16 input channels even if there are fewer, so its time does not depend on them.
    The time of the folded gradient is proportional to them. Of ten shapes, it takes 0.3 to 0.9 of
    the time for the six that this rule selects, and 0.9 to 1.6 for the others, on one thread and
    on two (benchmarks/settings.py).
    """
    n_out, n_in = weight.shape[:2]
    few = n_in * (n_out + 40) < 8 * n_out
    return few and groups == 1 and all(step == 1 for step in dilation)
