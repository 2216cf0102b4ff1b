"""From the modules of a view to the ops that run them."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional

from .._modules import Chain, Identity, Linear, Reshape, Scale
from .._nets import Net
from ._convolution import ConvolutionOp
from ._ops import (
    ActivationOp,
    AutogradOp,
    AveragePoolOp,
    BatchNormOp,
    CastOp,
    FlattenOp,
    LinearOp,
    MaxPoolOp,
    ReLUOp,
    ReshapeOp,
    ScaleOp,
)

_aten = torch.ops.aten

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def layer_ops(view):
    """Return the ops of a view that is a chain of known layers.

    Parameters
    ----------
    view : torch.nn.Module
        In evaluation mode.

    Returns
    -------
    ops : list of LayerOp, or None
        In the order of the computation. None if some layer is unknown.
    """
    ops = capture(view)
    return None if any(isinstance(op, AutogradOp) for op in ops) else ops


def capture(view):
    """List the ops of a view; everything from the first unknown part on is one AutogradOp."""
    parts = list(view) if type(view) is Chain and not _has_hooks(view) else [view]
    ops: list = []
    for i, part in enumerate(parts):
        try:
            ops += _ops_of(part)
        except _UnknownLayerError:
            return [*ops, AutogradOp(Chain(*parts[i:]) if i else view)]
    return ops


class _UnknownLayerError(Exception):
    """A layer needs autograd."""


def _has_hooks(module):
    return any(getattr(module, hooks) for hooks in _HOOKS)


def _ops_of(module):
    """List the ops of one module."""
    # Exact types only: a subclass can have another forward.
    kind = type(module)
    if _has_hooks(module):
        raise _UnknownLayerError
    if kind is Net:
        return _net(module)
    if kind in _LAYERS:
        return [_LAYERS[kind](module)]
    if kind is Linear:
        return [_cast_to(module.weight), LinearOp(module.weight, module.bias)]
    if kind is Scale:
        return [_cast_to(module.scale), ScaleOp(module.scale, module.shift)]
    if isinstance(module, nn.Sequential) and kind.forward is nn.Sequential.forward:
        return [op for child in module for op in _ops_of(child)]
    if kind in (nn.Identity, Identity):
        return []
    if kind in (nn.Dropout, nn.Dropout2d) and not module.training:
        return []
    raise _UnknownLayerError


def _net(net):
    ops = _ops_of(net.module)
    last = ops[-1] if ops else None
    # A single output needs a second column, which Net adds.
    if net.link is not None or not isinstance(last, LinearOp) or len(last.weight) < 2:
        raise _UnknownLayerError
    return [CastOp(net._cast), *ops]


def _cast_to(tensor):
    return CastOp(lambda x: x.to(tensor))


def _reshape(module):
    return ReshapeOp(lambda x: x.reshape(len(x), *module.shape))


def _flatten(module):
    if module.start_dim < 1:
        raise _UnknownLayerError
    if (module.start_dim, module.end_dim) == (1, -1):
        return FlattenOp()
    return ReshapeOp(lambda x: x.flatten(module.start_dim, module.end_dim))


def _unflatten(module):
    if not isinstance(module.dim, int) or module.dim < 1:
        raise _UnknownLayerError
    return ReshapeOp(lambda x: x.unflatten(module.dim, module.unflattened_size))


def _convolution(layer):
    padding = layer.padding
    if padding == "valid":
        padding = (0, 0)
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        if any(values % 2 for values in total):
            raise _UnknownLayerError
        padding = tuple(values // 2 for values in total)
    if layer.padding_mode != "zeros":
        raise _UnknownLayerError
    window = layer.stride, padding, layer.dilation
    return ConvolutionOp(layer.weight, layer.bias, window, layer.groups)


def _batch_norm(layer):
    if layer.training or layer.running_mean is None:
        raise _UnknownLayerError
    return BatchNormOp(layer)


def _max_pool(layer):
    if layer.return_indices:
        raise _UnknownLayerError
    return MaxPoolOp(layer)


def _elu(layer):
    # The derivative of the in-place version differs in the last bits.
    if layer.inplace:
        raise _UnknownLayerError
    return ActivationOp(
        partial(functional.elu, alpha=layer.alpha),
        lambda grad, x: _aten.elu_backward(grad, layer.alpha, 1, 1, False, x),
    )


def _gelu(layer):
    options = {"approximate": layer.approximate}
    return ActivationOp(
        partial(functional.gelu, **options), partial(_aten.gelu_backward, **options)
    )


def _leaky_relu(layer):
    slope = layer.negative_slope
    return ActivationOp(
        partial(functional.leaky_relu, negative_slope=slope),
        lambda grad, x: _aten.leaky_relu_backward(grad, x, slope, False),
    )


def _softplus(layer):
    options = layer.beta, layer.threshold
    return ActivationOp(
        lambda x: functional.softplus(x, *options),
        lambda grad, x: _aten.softplus_backward(grad, x, *options),
    )


_LAYERS = {
    Reshape: _reshape,
    nn.AvgPool2d: AveragePoolOp,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.Conv2d: _convolution,
    nn.ELU: _elu,
    nn.Flatten: _flatten,
    nn.GELU: _gelu,
    nn.LeakyReLU: _leaky_relu,
    nn.Linear: lambda layer: LinearOp(layer.weight, layer.bias),
    nn.MaxPool2d: _max_pool,
    nn.ReLU: lambda layer: ReLUOp(),
    nn.SiLU: lambda layer: ActivationOp(functional.silu, _aten.silu_backward),
    nn.Sigmoid: lambda layer: ActivationOp(torch.sigmoid, _aten.sigmoid_backward, "output"),
    nn.Softplus: _softplus,
    nn.Tanh: lambda layer: ActivationOp(torch.tanh, _aten.tanh_backward, "output"),
    nn.Unflatten: _unflatten,
}
