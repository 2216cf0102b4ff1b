"""Building blocks of views: few and small modules, so that verifiers can handle each of them."""

import numpy as np
import torch
from scipy.sparse import issparse
from torch import nn


def as_buffer(values):
    """Copy an array or a sparse matrix to a float64 tensor."""
    values = values.toarray() if issparse(values) else values
    return torch.from_numpy(np.array(values, dtype=np.float64))


class View(nn.Module):
    """Base class of views: in evaluation mode from the start, and its own view."""

    def __init__(self, *args):
        super().__init__(*args)
        self.training = False

    def __to_torch__(self):
        return self


class Chain(View, nn.Sequential):
    """Modules applied one after the other; in training mode if one of them is."""

    def __init__(self, *modules):
        super().__init__(*modules)
        self.training = any(module.training for module in self)


class Concat(View):
    """Outputs of several modules for the same input, concatenated along the features."""

    def __init__(self, branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Identity(View):
    """Identity function."""

    def forward(self, x):
        return x


class Float64(View):
    """Conversion to float64, in front of modules without tensors."""

    def __init__(self):
        super().__init__()
        # Callers find the dtype and the device of a view by its first tensor (input_options).
        self.register_buffer("like", torch.empty(0, dtype=torch.float64))

    def forward(self, x):
        return x.to(self.like)


class Reshape(View):
    """Change of the shape of every sample."""

    def __init__(self, shape):
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x):
        return x.reshape(-1, *self.shape)


class Select(View):
    """Selection of columns by index."""

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
    """Clipping to the interval from `low` to `high`."""

    def __init__(self, low, high):
        super().__init__()
        self.low = low
        self.high = high

    def forward(self, x):
        return x.clamp(self.low, self.high)


class Squared(View):
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
            # A row of zeros in the weight is cheaper than a column added to the output.
            weight = np.vstack([np.zeros_like(weight), weight])
            bias = np.append(0.0, bias)
        return cls(weight, bias)

    def forward(self, x):
        return nn.functional.linear(x.to(self.weight), self.weight, self.bias)
