"""Gradients of a view at the least cost."""

from functools import cached_property, partial
from itertools import takewhile

import torch
from torch import nn
from torch.nn import functional

from . import _steps as steps
from ._memory_format import n_pieces, suits_blocks
from ._modules import Chain, Identity, Linear, Reshape, Scale
from ._nets import Net

_aten = torch.ops.aten

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def pullback(view):
    """Prepare to evaluate a view together with its gradients.

    A chain of known layers is run layer by layer and back again by the kernels that autograd would
    call, without its bookkeeping, and convolutions in the memory format that suits them: small
    networks of linear layers take 0.6 of the time, convolutional ones 0.4 to 0.8. Other modules go
    through autograd.

    Parameters
    ----------
    view : torch.nn.Module
        In evaluation mode. It is not changed. What is prepared holds while neither its mode nor
        its structure nor its weights change.

    Returns
    -------
    linearize : callable
        ``logits, pull = linearize(z)`` gives the detached outputs for a batch, and a function that
        may be called any number of times: from a direction of the shape of the logits to the
        gradient of ``<direction, logits>`` with respect to ``z``. No gradients of parameters are
        computed. What backward passes need is kept as long as ``pull``: delete it when done.

        ``linearize.logits(z)`` gives the outputs alone and keeps nothing.

    Notes
    -----
    Chains of linear layers, scalings and activations, and what goes through autograd but for
    modules with convolutions, give the same bits as autograd. With other layers outputs and
    gradients are the same up to rounding; where that takes the input of a rectifier across zero,
    as happens to one in about ten million in float32, the gradient is that of the other side.
    Outputs alone may come from another memory format than those with gradients, and differ as much.
    The same batch gives the same bits under the same settings of torch.
    """
    return _Linearization(_tuned(list(_chain(view))))


class _Linearization:
    def __init__(self, chain):
        self.chain = chain
        # Matrix products of fewer rows may give other bits.
        self.in_pieces = any(isinstance(step, steps.Convolution) for step in chain) and not any(
            isinstance(step, steps.Autograd) for step in chain
        )
        self.widest = {}

    @cached_property
    @torch.no_grad()
    def both_ways(self):
        """The steps with the weights in the memory format for passes forward and back."""
        return [step.prepare() for step in self.chain]

    @cached_property
    @torch.no_grad()
    def forward_alone(self):
        """The steps for passes forward, with convolutions in oneDNN's own layout if that pays."""
        chain = self.chain
        convolutions = [i for i, step in enumerate(chain) if isinstance(step, steps.Convolution)]
        if not suits_blocks(chain[i].layer.weight for i in convolutions):
            return self.both_ways
        start = convolutions[0]
        blocks = list(takewhile(bool, (step.in_blocks() for step in chain[start:])))
        end = start + len(blocks)
        if convolutions[-1] >= end:  # something else is between them
            return self.both_ways
        behind = [
            step.of_contiguous() if isinstance(step, steps.FlattenedAffine) else step.prepare()
            for step in chain[end:]
        ]
        return [*(step.prepare() for step in chain[:start]), steps.Blocks(blocks), *behind]

    @torch.no_grad()
    def __call__(self, z):
        chain = self.both_ways
        outputs: list = []
        kept: list = []
        for x in self._pieces(z):
            kept.append([])
            for step in chain:
                x, needed = step.forward(x)
                kept[-1].append(needed)
            outputs.append(x)
        return _joined(outputs), partial(_pull, chain, kept)

    @torch.no_grad()
    def logits(self, z):
        chain = self.forward_alone
        return _joined([_value(chain, x) for x in self._pieces(z)])

    def _pieces(self, z):
        if not self.in_pieces:
            return (z,)
        if z.shape[1:] not in self.widest:
            x, widest = z[:1], 0
            for step in self.both_ways:
                x = step.value(x)
                widest = max(widest, x.numel())
            self.widest[z.shape[1:]] = widest
        return z.tensor_split(n_pieces(len(z), self.widest[z.shape[1:]], z.device))


@torch.no_grad()
def _pull(chain, kept, direction):
    grads = []
    directions = (direction,) if len(kept) == 1 else direction.tensor_split(len(kept))
    for grad, needs in zip(directions, kept, strict=True):
        for step, needed in zip(reversed(chain), reversed(needs), strict=True):
            grad = step.backward(grad, needed)
        grads.append(grad)
    return _joined(grads).contiguous()


def _value(chain, x):
    for step in chain:
        x = step.value(x)
    return x


def _joined(pieces):
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def known_steps(view):
    """The steps of a view, in evaluation mode, that is a chain of known layers; None for others."""
    chain = list(_chain(view))
    return None if any(isinstance(step, steps.Autograd) for step in chain) else chain


class _OtherLayerError(Exception):
    """A layer that is not run without autograd."""


def _chain(view):
    """The steps of a view; from the first part that is not known on, the rest is one of them."""
    parts = list(view) if type(view) is Chain and not _has_hooks(view) else [view]
    for i, part in enumerate(parts):
        try:
            known = list(_known(part))
        except _OtherLayerError:
            yield steps.Autograd(Chain(*parts[i:]) if i else view)
            return
        yield from known


def _has_hooks(module):
    return any(getattr(module, hooks) for hooks in _HOOKS)


def _known(module):
    """The steps of a module from its input on."""
    kind = type(module)
    if _has_hooks(module):
        raise _OtherLayerError
    if kind is Net:
        inner = list(_known(module.module))
        last = inner[-1] if inner else None
        if module.link is not None or not isinstance(last, steps.Affine) or len(last.weight) < 2:
            raise _OtherLayerError
        yield steps.Cast(module._cast)
        yield from inner
    elif kind in (Linear, Scale):  # they cast their input themselves
        like = next(module.buffers())
        yield steps.Cast(lambda x: x.to(like))
        yield (
            steps.Affine(module) if kind is Linear else steps.Scaling(module.scale, module.shift)
        )
    elif kind in _LAYERS:
        yield _LAYERS[kind](module)
    elif isinstance(module, nn.Sequential) and kind.forward is nn.Sequential.forward:
        for child in module:
            yield from _known(child)
    elif not (
        kind in (nn.Identity, Identity)
        or (kind in (nn.Dropout, nn.Dropout2d) and not module.training)
    ):
        raise _OtherLayerError


def _reshape(module):
    return steps.View(lambda x: x.reshape(len(x), *module.shape))


def _flatten(module):
    if module.start_dim < 1:
        raise _OtherLayerError
    if (module.start_dim, module.end_dim) == (1, -1):
        return steps.Flatten()
    return steps.View(lambda x: x.flatten(module.start_dim, module.end_dim))


def _unflatten(module):
    if not isinstance(module.dim, int) or module.dim < 1:
        raise _OtherLayerError
    return steps.View(lambda x: x.unflatten(module.dim, module.unflattened_size))


def _convolution(layer):
    padding = layer.padding
    if padding == "valid":
        padding = (0, 0)
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        if any(values % 2 for values in total):
            raise _OtherLayerError
        padding = tuple(values // 2 for values in total)
    if layer.padding_mode != "zeros":
        raise _OtherLayerError
    return steps.Convolution(layer, padding)


def _normalization(layer):
    if layer.training or layer.running_mean is None:
        raise _OtherLayerError
    return steps.Normalization(layer)


def _max_pooling(layer):
    if layer.return_indices:
        raise _OtherLayerError
    return steps.MaxPooling(layer)


def _elu(layer):
    if layer.inplace:  # has another derivative, to the last bits
        raise _OtherLayerError
    return steps.Activation(
        partial(functional.elu, alpha=layer.alpha),
        lambda grad, x: _aten.elu_backward(grad, layer.alpha, 1, 1, False, x),
    )


def _gelu(layer):
    how = {"approximate": layer.approximate}
    return steps.Activation(partial(functional.gelu, **how), partial(_aten.gelu_backward, **how))


def _leaky_relu(layer):
    slope = layer.negative_slope
    return steps.Activation(
        partial(functional.leaky_relu, negative_slope=slope),
        lambda grad, x: _aten.leaky_relu_backward(grad, x, slope, False),
    )


def _softplus(layer):
    shape = (layer.beta, layer.threshold)
    return steps.Activation(
        lambda x: functional.softplus(x, *shape),
        lambda grad, x: _aten.softplus_backward(grad, x, *shape),
    )


_LAYERS = {
    Reshape: _reshape,
    nn.AvgPool2d: steps.AveragePooling,
    nn.BatchNorm1d: _normalization,
    nn.BatchNorm2d: _normalization,
    nn.Conv2d: _convolution,
    nn.ELU: _elu,
    nn.Flatten: _flatten,
    nn.GELU: _gelu,
    nn.LeakyReLU: _leaky_relu,
    nn.Linear: steps.Affine,
    nn.MaxPool2d: _max_pooling,
    nn.ReLU: lambda layer: steps.ReLU(),
    nn.SiLU: lambda layer: steps.Activation(functional.silu, _aten.silu_backward),
    nn.Sigmoid: lambda layer: steps.Activation(torch.sigmoid, _aten.sigmoid_backward, "output"),
    nn.Softplus: _softplus,
    nn.Tanh: lambda layer: steps.Activation(torch.tanh, _aten.tanh_backward, "output"),
    nn.Unflatten: _unflatten,
}


_BY_CHANNEL = (steps.Normalization, steps.Pooling, steps.ReLU, steps.Activation, steps.Flatten)


def _tuned(chain):
    """Put together what is cheaper together, in another order or in place."""
    tuned: list = []
    n_channels = None  # behind a convolution
    for step in chain:
        last = tuned[-1] if tuned else None
        if (
            isinstance(step, steps.Normalization)
            and isinstance(last, steps.Convolution)
            and last.normalization is None
        ):
            last.normalization = step
        elif isinstance(step, steps.MaxPooling) and isinstance(last, steps.ReLU):
            # The largest of the rectified is the largest rectified, which are fewer; and the
            # derivative is zero where those that rectification makes equal would share it.
            tuned.insert(-1, step)
        elif isinstance(step, steps.Affine) and isinstance(last, steps.Flatten) and n_channels:
            tuned[-1] = steps.FlattenedAffine(step, n_channels)
        else:
            tuned.append(step)
        if isinstance(step, steps.Convolution):
            n_channels = step.layer.out_channels
        elif not isinstance(step, _BY_CHANNEL):
            n_channels = None
    calculating = [step for step in tuned if not isinstance(step, steps.View)]
    for before, step, after in zip(calculating, calculating[1:], calculating[2:], strict=False):
        if isinstance(step, steps.ReLU):
            step.in_place = before.writes and after.writes
    return tuned
