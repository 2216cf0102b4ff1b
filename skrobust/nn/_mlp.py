"""Multi-layer perceptron."""

from numbers import Integral

from torch import nn

from ._layers import Layers, make_activation


class MLP(Layers):
    """Multi-layer perceptron: linear layers with an activation between them.

    Parameters
    ----------
    n_features : int
        Number of input features. Inputs with more than one axis are flattened.

    n_classes : int
        Number of logits.

    hidden : int or tuple of int, default=(128, 128)
        Widths of the hidden layers. An empty tuple gives a linear model.

    activation : {"relu", "tanh", "gelu", "silu"}, default="relu"
        Activation after each hidden layer.

    dropout : float, default=0.0
        Probability of dropping a hidden unit during training.

    Examples
    --------
    >>> import torch
    >>> from skrobust.nn import MLP
    >>> MLP(4, 3, hidden=(8,))(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(self, n_features, n_classes, *, hidden=(128, 128), activation="relu", dropout=0.0):
        layers = [nn.Flatten()]
        width = n_features
        for next_width in (hidden,) if isinstance(hidden, Integral) else hidden:
            layers += [nn.Linear(width, next_width), make_activation(activation)]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            width = next_width
        super().__init__(*layers, nn.Linear(width, n_classes))
