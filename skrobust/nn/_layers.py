"""What the networks of this package have in common."""

from torch import nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}


class Layers(nn.Sequential):
    """Sequence of layers whose slices are plain sequences."""

    def __getitem__(self, index):
        if isinstance(index, slice):
            return nn.Sequential(*list(self)[index])
        return super().__getitem__(index)


def make_activation(name):
    """Activation layer of that name."""
    if name not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}; got {name!r}."
        )
    return ACTIVATIONS[name]()
