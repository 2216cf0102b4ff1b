"""Base class and activations of the networks."""

from torch import nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}


class Layers(nn.Sequential):
    """Sequence of layers. A slice of it is a plain ``nn.Sequential``."""

    def __getitem__(self, index):
        if isinstance(index, slice):
            return nn.Sequential(*list(self)[index])
        return super().__getitem__(index)


def make_activation(name):
    """Return a new activation layer by its name."""
    if name not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}; got {name!r}."
        )
    return ACTIVATIONS[name]()
