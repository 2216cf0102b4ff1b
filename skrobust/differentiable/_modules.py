"""The modules that views are made of: few and small, so that verifiers can walk through them."""

import numpy as np
import torch
from scipy.sparse import issparse
from torch import nn


def as_buffer(values):
    """Copy an array, which may be sparse, to a float64 tensor."""
    values = values.toarray() if issparse(values) else values
    return torch.from_numpy(np.array(values, dtype=np.float64))


class View(nn.Module):
    """Base of the views: in evaluation mode, and its own view."""

    def __init__(self, *args):
        super().__init__(*args)
        self.training = False

    def __to_torch__(self):
        return self


class Chain(View, nn.Sequential):
    """One module after the other; in training mode if one of them is."""

    def __init__(self, *modules):
        super().__init__(*modules)
        self.training = any(module.training for module in self)


class Concat(View):
    """The outputs of several modules for the same input, side by side."""

    def __init__(self, branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Identity(View):
    """The input as it is."""

    def forward(self, x):
        return x


class Float64(View):
    """The input in float64, for modules without tensors of their own."""

    def __init__(self):
        super().__init__()
        # A buffer also tells the precision and the device of the view to those who ask for them.
        self.register_buffer("like", torch.empty(0, dtype=torch.float64))

    def forward(self, x):
        return x.to(self.like)


class Reshape(View):
    """Every sample in another shape."""

    def __init__(self, shape):
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x):
        return x.reshape(-1, *self.shape)


class Select(View):
    """Some of the columns."""

    def __init__(self, indices):
        super().__init__()
        self.register_buffer("indices", torch.tensor(indices, dtype=torch.long))

    def forward(self, x):
        return x.to(self.indices.device).index_select(1, self.indices)


class Scale(View):
    """``x * scale + shift`` in one operation."""

    def __init__(self, scale, shift=0.0):
        super().__init__()
        self.register_buffer("scale", as_buffer(scale))
        self.register_buffer("shift", as_buffer(shift))

    def forward(self, x):
        return torch.addcmul(self.shift, x.to(self.scale), self.scale)


class Clip(View):
    """``x`` limited to the interval from `low` to `high`."""

    def __init__(self, low, high):
        super().__init__()
        self.low = low
        self.high = high

    def forward(self, x):
        return x.clamp(self.low, self.high)


class Square(View):
    """``x * x``."""

    def forward(self, x):
        return x * x


class Linear(View):
    """``x @ weight.T + bias``: :class:`torch.nn.Linear` with buffers in place of parameters."""

    def __init__(self, weight, bias=0.0):
        super().__init__()
        self.register_buffer("weight", as_buffer(weight))
        self.register_buffer("bias", as_buffer(np.broadcast_to(bias, len(self.weight))))

    @classmethod
    def to_logits(cls, weight, bias):
        """Build the last layer of a classifier; a single score `s` becomes ``[0, s]``."""
        weight = weight.toarray() if issparse(weight) else np.atleast_2d(weight)
        if len(weight) == 1:
            # The row of zeros is cheaper than to put a column in front of the output.
            weight = np.vstack([np.zeros_like(weight), weight])
            bias = np.append(0.0, bias)
        return cls(weight, bias)

    def forward(self, x):
        return nn.functional.linear(x.to(self.weight), self.weight, self.bias)
