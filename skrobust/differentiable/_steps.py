"""The layers that are run without autograd, forward and back, by the kernels that it would call.

``forward`` gives a layer's output and what ``backward`` needs, which leaves that as it is: it may
be called again.
"""

from math import prod

import torch
from torch import nn
from torch.nn.modules.utils import _pair

from ._memory_format import channels_last, convolution_format, folds, format_of

_aten = torch.ops.aten
_threshold_backward_out = _aten.threshold_backward.grad_input


class Step:
    """Base of the steps; `writes` where output and gradient are always memory of their own."""

    writes = False

    def prepare(self):
        """Step for the present weights."""
        return self

    def in_blocks(self):
        """Function that gives the output from an input in oneDNN's own layout; None without one."""
        return

    def value(self, x):
        """Output alone."""
        return self.forward(x)[0]

    def forward(self, x):
        raise NotImplementedError

    def backward(self, grad, kept):
        raise NotImplementedError


class Autograd(Step):
    """A module of which nothing is known."""

    def __init__(self, module):
        self.module = module
        # As convolutions give their output the format of their input, that alone does for a
        # network: 0.7 to 0.97 of the time forward and back, except for very small ones (1.07).
        self.convolution = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)

    def value(self, x):
        return self._run(x, requires_grad=False)[1]

    def forward(self, x):
        with torch.enable_grad():
            leaf, out = self._run(x, requires_grad=True)
        return out.detach(), (leaf, out)

    def backward(self, grad, kept):
        leaf, out = kept
        return torch.autograd.grad(out, leaf, grad, retain_graph=True)[0]

    def _run(self, x, requires_grad):
        convolution = self.convolution if x.ndim == 4 else None
        if (
            convolution is not None
            and convolution_format(convolution.weight) is torch.channels_last
        ):
            leaf = channels_last(x.detach()).requires_grad_(requires_grad)
            try:
                return leaf, self.module(leaf)
            except RuntimeError:  # it may look at its activations by Tensor.view
                self.convolution = None
        leaf = x.detach().requires_grad_(requires_grad)
        return leaf, self.module(leaf)


class Cast(Step):
    """The input in the precision and on the device of a module."""

    def __init__(self, cast):
        self.cast = cast

    def forward(self, x):
        return self.cast(x), (x.device, x.dtype)

    def backward(self, grad, kept):
        return grad.to(*kept)


class View(Step):
    """Other dimensions, in the order of a contiguous tensor."""

    def __init__(self, function):
        self.function = function

    def forward(self, x):
        return self.function(x), (x.shape, format_of(x))

    def backward(self, grad, kept):
        shape, memory_format = kept
        return grad.reshape(shape).contiguous(memory_format=memory_format)


class Flatten(View):
    """A row for each sample."""

    def __init__(self):
        super().__init__(lambda x: x.flatten(1))


class Affine(Step):
    writes = True

    def __init__(self, layer):
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias), None

    def backward(self, grad, kept):
        return torch.matmul(grad, self.weight)


class FlattenedAffine(Step):
    """What follows convolutions: a linear layer of all pixels and channels."""

    writes = True

    def __init__(self, layer, n_channels):
        self.layer, self.n_channels = layer, n_channels

    def prepare(self):
        weight, bias = self.layer.weight, self.layer.bias
        if convolution_format(weight) is torch.contiguous_format:
            return self.of_contiguous()
        # In the order in which the convolutions leave the values, so that none of them moves.
        weight = weight.unflatten(1, (self.n_channels, -1)).transpose(1, 2).flatten(1)
        return _AffineOfPixels(weight, bias, (0, 2, 3, 1))

    def of_contiguous(self):
        """Step for the present weights, for an input in contiguous memory."""
        return _AffineOfPixels(self.layer.weight, self.layer.bias, (0, 1, 2, 3))


class _AffineOfPixels(Step):
    def __init__(self, weight, bias, order):
        self.weight, self.bias, self.order = weight, bias, order
        self.back = tuple(order.index(i) for i in range(4))

    def forward(self, x):
        x = x.permute(self.order)
        return nn.functional.linear(x.flatten(1), self.weight, self.bias), x.shape

    def backward(self, grad, kept):
        return torch.matmul(grad, self.weight).view(kept).permute(self.back)


class Scaling(Step):
    writes = True

    def __init__(self, scale, shift):
        self.scale, self.shift = scale, shift

    def forward(self, x):
        return torch.addcmul(self.shift, x, self.scale), None

    def backward(self, grad, kept):
        return grad * self.scale


class Normalization(Step):
    """Batch normalization by running statistics."""

    writes = True

    def __init__(self, layer):
        self.layer = layer

    def scale_and_shift(self):
        layer = self.layer
        scale = torch.rsqrt(layer.running_var + layer.eps)
        if layer.affine:
            scale = scale * layer.weight
        shift = -layer.running_mean * scale
        return scale, shift + layer.bias if layer.affine else shift

    def prepare(self):
        return _ChannelScaling(*self.scale_and_shift())


class _ChannelScaling(Step):
    def __init__(self, scale, shift):
        self.scale, self.shift = scale, shift

    def forward(self, x):
        shape = (-1, *[1] * (x.ndim - 2))
        scale = self.scale.view(shape)
        return torch.addcmul(self.shift.view(shape), x, scale), scale

    def backward(self, grad, kept):
        return grad * kept


class Convolution(Step):
    """Convolution, and the batch normalization after it if there is one."""

    writes = True

    def __init__(self, layer, padding):
        self.layer = layer
        self.padding = padding
        self.normalization = None

    def prepare(self):
        weight, bias = self._weight_and_bias()
        # Of the weight, too, only a copy is converted: a few microseconds for every pass.
        if convolution_format(weight) is torch.channels_last:
            weight = channels_last(weight)
        layer = self.layer
        window = (layer.stride, self.padding, layer.dilation)
        kind = _Folded if folds(weight, layer.groups, layer.dilation) else _Plain
        return kind(weight, bias, window, layer.groups)

    def in_blocks(self):
        weight, bias = self._weight_and_bias()
        window = (self.layer.stride, self.padding, self.layer.dilation, self.layer.groups)
        weight = weight.to_mkldnn()
        return lambda x: torch.conv2d(x, weight, bias, *window)

    def _weight_and_bias(self):
        weight, bias = self.layer.weight, self.layer.bias
        if self.normalization is not None:
            scale, shift = self.normalization.scale_and_shift()
            weight = weight * scale.view(-1, 1, 1, 1)
            bias = shift if bias is None else torch.addcmul(shift, bias, scale)
        return weight, bias


class _Plain(Step):
    def __init__(self, weight, bias, window, groups):
        self.weight, self.bias, self.window, self.groups = weight, bias, window, groups

    def forward(self, x):
        return torch.conv2d(x, self.weight, self.bias, *self.window, self.groups), x

    def backward(self, grad, kept):
        to_input = (True, False, False)
        return _aten.convolution_backward(
            grad, kept, self.weight, None, *self.window, False, (0, 0), self.groups, to_input
        )[0]


class _Folded(_Plain):
    """With a gradient to the input by one matrix product, and a sum of images that are shifted.

    The kernel is cut into blocks of the size of the stride, the last of them filled up with zeros:
    what an output hands to one block are neighbours in the input, and the next output's lie beside
    them. So the sum over blocks is over planes, one for each place in a block, that are a pixel
    apart; the planes are interleaved at the end.
    """

    def __init__(self, weight, bias, window, groups):
        super().__init__(weight, bias, window, groups)
        n_out, n_in, height, width = weight.shape
        (rows, columns), *_ = window
        self.blocks = -(-height // rows), -(-width // columns)
        below, right = self.blocks[0] * rows - height, self.blocks[1] * columns - width
        whole = nn.functional.pad(weight, (0, right, 0, below))
        cut = whole.reshape(n_out, n_in, self.blocks[0], rows, self.blocks[1], columns)
        self.by_block = cut.permute(2, 4, 1, 3, 5, 0).reshape(-1, n_out)

    def backward(self, grad, kept):
        (n, n_in, *size), (stride, padding, _) = kept.shape, self.window
        n_out, height, width = grad.shape[1:]
        pixels = grad.permute(0, 2, 3, 1).reshape(-1, n_out)
        places = n_in, *stride
        parts = torch.mm(self.by_block, pixels.T)
        parts = parts.view(*self.blocks, prod(places), n, height, width)
        # As far as the blocks reach, or the input and what pads it.
        n_rows, n_columns = (
            max(n_outputs + n_blocks - 1, -(-(length + pad) // step))
            for n_outputs, n_blocks, length, pad, step in zip(
                (height, width), self.blocks, size, padding, stride, strict=True
            )
        )
        planes = parts.new_zeros(prod(places), n, n_rows, n_columns)
        for i in range(self.blocks[0]):
            for j in range(self.blocks[1]):
                planes[:, :, i : i + height, j : j + width] += parts[i, j]
        planes = planes.view(*places, n, n_rows, n_columns)
        image = parts.new_empty(n, n_in, *size)
        for i in range(stride[0]):
            top, y = _first_pixel(i, stride[0], padding[0])
            for j in range(stride[1]):
                left, x = _first_pixel(j, stride[1], padding[1])
                part = image[:, :, y :: stride[0], x :: stride[1]]
                plane = planes[:, i, j, :, top : top + part.shape[2], left : left + part.shape[3]]
                part.copy_(plane.transpose(0, 1))
        return image


def _first_pixel(place, stride, padding):
    """Where in a plane the padding ends, and the pixel that stands there."""
    n_skipped = -(-(padding - place) // stride)
    return n_skipped, stride * n_skipped + place - padding


class Blocks(Step):
    """Steps in oneDNN's own layout, for outputs alone."""

    def __init__(self, functions):
        self.functions = functions

    def value(self, x):
        x = x.to_mkldnn()
        for function in self.functions:
            x = function(x)
        return x.to_dense()


class Pooling(Step):
    writes = True

    @staticmethod
    def _like_input(grad, kept):
        # The kernels ask the input for its shape and format only; so it need not be kept.
        shape, memory_format = kept
        return torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=memory_format)


class MaxPooling(Pooling):
    def __init__(self, layer):
        windows = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        self.window = (*map(_pair, windows), layer.ceil_mode)

    def forward(self, x):
        out, indices = _aten.max_pool2d_with_indices(x, *self.window)
        return out, (indices, x.shape, format_of(x))

    def in_blocks(self):
        *_, dilation, _ = self.window
        if tuple(dilation) != (1, 1):
            return None
        return lambda x: torch.max_pool2d(x, *self.window)

    def backward(self, grad, kept):
        indices, *like = kept
        x = self._like_input(grad, like)
        return _aten.max_pool2d_with_indices_backward(grad, x, *self.window, indices)


class AveragePooling(Pooling):
    def __init__(self, layer):
        windows = (layer.kernel_size, layer.stride, layer.padding)
        options = (layer.ceil_mode, layer.count_include_pad, layer.divisor_override)
        self.window = (*map(_pair, windows), *options)

    def forward(self, x):
        return nn.functional.avg_pool2d(x, *self.window), (x.shape, format_of(x))

    def in_blocks(self):
        *_, ceil_mode, _, divisor = self.window
        # oneDNN counts what lies behind the padding, and knows no divisor.
        if ceil_mode or divisor:
            return None
        return lambda x: nn.functional.avg_pool2d(x, *self.window)

    def backward(self, grad, kept):
        return _aten.avg_pool2d_backward(grad, self._like_input(grad, kept), *self.window)


class ReLU(Step):
    """Rectifier; in place where nobody else holds the memory, which saves half of its time."""

    in_place = False

    def forward(self, x):
        out = torch.relu_(x) if self.in_place else torch.relu(x)
        return out, out

    def backward(self, grad, kept):
        if self.in_place:
            return _threshold_backward_out(grad, kept, 0, grad_input=grad)
        return _aten.threshold_backward(grad, kept, 0)

    def in_blocks(self):
        return torch.relu_


class Activation(Step):
    """Elementwise function whose derivative is known from its output or from its input."""

    def __init__(self, function, derivative, of="input"):
        self.function, self.derivative, self.of = function, derivative, of

    def forward(self, x):
        out = self.function(x)
        return out, x if self.of == "input" else out

    def backward(self, grad, kept):
        return self.derivative(grad, kept)
