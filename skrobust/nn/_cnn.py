"""Small convolutional network."""

from torch import nn

from ._layers import Layers, make_activation


class CNN(Layers):
    """Small convolutional network for small images.

    Each block halves height and width by a 4 x 4 convolution with stride 2. A hidden linear layer
    and the layer of the logits follow. The defaults are the MNIST network of [1]_.

    Parameters
    ----------
    input_shape : tuple of int (channels, height, width)
        Shape of one image.

    n_classes : int
        Number of logits.

    channels : tuple of int, default=(16, 32)
        Number of channels after each block.

    hidden : int, default=100
        Width of the linear layer before the logits.

    activation : {"relu", "tanh", "gelu", "silu"}, default="relu"
        Activation after each layer.

    Raises
    ------
    ValueError
        ``input_shape`` is not the shape of an image, or the image is too small for the blocks.

    References
    ----------
    .. [1] E. Wong and J. Z. Kolter, "Provable defenses against adversarial examples via the convex
       outer adversarial polytope", ICML 2018.

    Examples
    --------
    >>> import torch
    >>> from skrobust.nn import CNN
    >>> CNN((1, 28, 28), 10)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self, input_shape, n_classes, *, channels=(16, 32), hidden=100, activation="relu"):
        if len(input_shape) != 3 or min(input_shape[1:]) < 2 ** len(channels):
            raise ValueError(
                "CNN needs input_shape=(channels, height, width) with images of at least "
                f"{2 ** len(channels)} x {2 ** len(channels)} pixels; got {tuple(input_shape)}. "
                "Set input_shape to the shape of one image. For other data use another module, "
                "such as MLP."
            )
        blocks = []
        depth, height, width = input_shape
        for next_depth in channels:
            blocks += [
                nn.Conv2d(depth, next_depth, kernel_size=4, stride=2, padding=1),
                make_activation(activation),
            ]
            depth, height, width = next_depth, height // 2, width // 2
        head = [
            nn.Flatten(),
            nn.Linear(depth * height * width, hidden),
            make_activation(activation),
        ]
        super().__init__(*blocks, *head, nn.Linear(hidden, n_classes))
