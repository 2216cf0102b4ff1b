"""Layers that run forward and backward without autograd, by the kernels that it would call."""

import torch
from torch import nn
from torch.nn import functional

from ._memory_format import memory_format_of, prefers_channels_last, to_channels_last

_aten = torch.ops.aten


class LayerOp:
    """One layer of a chain.

    Attributes
    ----------
    allocates : bool
        Whether the output of `forward` and the gradient from `vjp` are always new tensors that
        nothing else refers to, so that the next op may overwrite them.
    """

    allocates = False

    def forward(self, x):
        """Return the output, and the values that `vjp` needs."""
        raise NotImplementedError

    def vjp(self, grad, saved):
        """Return the gradient with respect to the input; `saved` is not modified."""
        raise NotImplementedError

    def output(self, x):
        """Return the output alone."""
        return self.forward(x)[0]


class AutogradOp(LayerOp):
    """A module that goes through autograd, because some of its layers are unknown."""

    def __init__(self, module):
        self.module = module
        # A convolution gives its output the memory format of its input, so converting the input is
        # enough for a whole network: 0.7 to 0.97 of the time forward and backward, except for very
        # small networks (1.07).
        convolutions = (m for m in module.modules() if isinstance(m, nn.Conv2d))
        self.channels_last = any(prefers_channels_last(m.weight) for m in convolutions)

    def output(self, x):
        return self._run(x, requires_grad=False)[1]

    def forward(self, x):
        with torch.enable_grad():
            leaf, out = self._run(x, requires_grad=True)
        return out.detach(), (leaf, out)

    def vjp(self, grad, saved):
        leaf, out = saved
        return torch.autograd.grad(out, leaf, grad, retain_graph=True)[0]

    def _run(self, x, requires_grad):
        if self.channels_last and x.ndim == 4:
            leaf = to_channels_last(x.detach()).requires_grad_(requires_grad)
            try:
                return leaf, self.module(leaf)
            except RuntimeError:
                # Tensor.view inside the module fails on channels-last activations.
                self.channels_last = False
        leaf = x.detach().requires_grad_(requires_grad)
        return leaf, self.module(leaf)


class CastOp(LayerOp):
    """Conversion to the dtype and device of the next layer."""

    def __init__(self, cast):
        self.cast = cast

    def forward(self, x):
        return self.cast(x), (x.device, x.dtype)

    def vjp(self, grad, saved):
        return grad.to(*saved)


class ReshapeOp(LayerOp):
    """Change of the shape of every sample, with its values in the order of a contiguous tensor."""

    def __init__(self, function):
        self.function = function

    def forward(self, x):
        return self.function(x), (x.shape, memory_format_of(x))

    def vjp(self, grad, saved):
        shape, memory_format = saved
        return grad.reshape(shape).contiguous(memory_format=memory_format)


class FlattenOp(ReshapeOp):
    """Change of the shape of every sample to a vector."""

    def __init__(self):
        super().__init__(lambda x: x.flatten(1))


class LinearOp(LayerOp):
    """``x @ weight.T + bias``."""

    allocates = True

    def __init__(self, weight, bias):
        self.weight, self.bias = weight, bias

    def forward(self, x):
        return functional.linear(x, self.weight, self.bias), None

    def vjp(self, grad, saved):
        return torch.matmul(grad, self.weight)


class ChannelsLastLinearOp(LinearOp):
    """Linear layer of flattened images, with the columns of `weight` in channels-last order."""

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        return super().forward(x.flatten(1))[0], x.shape

    def vjp(self, grad, saved):
        return super().vjp(grad, None).view(saved).permute(0, 3, 1, 2)


class ScaleOp(LayerOp):
    """``x * scale + shift``."""

    allocates = True

    def __init__(self, scale, shift):
        self.scale, self.shift = scale, shift

    def forward(self, x):
        return torch.addcmul(self.shift, x, self.scale), None

    def vjp(self, grad, saved):
        return grad * self.scale


class BatchNormOp(LayerOp):
    """Batch normalization by running statistics, as one scale and shift of each channel."""

    allocates = True

    def __init__(self, layer):
        self.scale = torch.rsqrt(layer.running_var + layer.eps)
        if layer.affine:
            self.scale = self.scale * layer.weight
        self.shift = -layer.running_mean * self.scale
        if layer.affine:
            self.shift = self.shift + layer.bias

    def forward(self, x):
        shape = (-1, *[1] * (x.ndim - 2))
        scale = self.scale.view(shape)
        return torch.addcmul(self.shift.view(shape), x, scale), scale

    def vjp(self, grad, saved):
        return grad * saved


class _PoolingOp(LayerOp):
    """Base of pooling layers."""

    allocates = True

    @staticmethod
    def _input_like(grad, shape, memory_format):
        """Uninitialized input: the backward kernels read only its shape and memory format."""
        return torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=memory_format)


class MaxPoolOp(_PoolingOp):
    """Max pooling."""

    def __init__(self, layer):
        self.window = layer.kernel_size, layer.stride, layer.padding, layer.dilation
        self.ceil_mode = layer.ceil_mode

    def forward(self, x):
        out, indices = _aten.max_pool2d_with_indices(x, *self.window, self.ceil_mode)
        return out, (indices, x.shape, memory_format_of(x))

    def vjp(self, grad, saved):
        indices, *like = saved
        x = self._input_like(grad, *like)
        return _aten.max_pool2d_with_indices_backward(
            grad, x, *self.window, self.ceil_mode, indices
        )


class AveragePoolOp(_PoolingOp):
    """Average pooling."""

    def __init__(self, layer):
        window = layer.kernel_size, layer.stride, layer.padding
        self.options = *window, layer.ceil_mode, layer.count_include_pad, layer.divisor_override

    def forward(self, x):
        return functional.avg_pool2d(x, *self.options), (x.shape, memory_format_of(x))

    def vjp(self, grad, saved):
        return _aten.avg_pool2d_backward(grad, self._input_like(grad, *saved), *self.options)


class ReLUOp(LayerOp):
    """Rectified linear unit; it overwrites its input and the incoming gradient if `in_place`."""

    def __init__(self, in_place=False):
        self.in_place = in_place

    def forward(self, x):
        out = torch.relu_(x) if self.in_place else torch.relu(x)
        return out, out

    def vjp(self, grad, saved):
        if self.in_place:
            return _aten.threshold_backward.grad_input(grad, saved, 0, grad_input=grad)
        return _aten.threshold_backward(grad, saved, 0)


class ActivationOp(LayerOp):
    """Elementwise function, with a derivative that reads its input or its output.

    Parameters
    ----------
    function : callable
        From a tensor to a tensor of the same shape.

    derivative : callable
        ``derivative(grad, saved)`` gives the gradient with respect to the input.

    saves : {"input", "output"}, default="input"
        The tensor that `derivative` gets as `saved`.
    """

    def __init__(self, function, derivative, saves="input"):
        self.function, self.derivative, self.saves = function, derivative, saves

    def forward(self, x):
        out = self.function(x)
        return out, x if self.saves == "input" else out

    def vjp(self, grad, saved):
        return self.derivative(grad, saved)
