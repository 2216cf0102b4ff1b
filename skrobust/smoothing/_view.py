"""How a smoothed classifier looks in torch: for attacks by gradients."""

from math import log

import torch
from torch.nn.functional import log_softmax

from ..differentiable import to_torch
from ..differentiable._modules import View
from ..exceptions import NotDifferentiableError
from ..utils._random import make_generator
from ..utils._torch import input_options
from ._noise import AdditiveNoise

# Noise vectors to average over. Passes and memory of an attack grow with them.
_N_NOISE = 16


class SmoothedView(View):
    """Logarithm of the probabilities of a view, averaged over noise.

    Votes have no gradients, and the mean of the probabilities has those of [1]_. The noise vectors
    are always the same, so that the view is a function: its largest logit is the class with most
    votes but where the vote is close.

    Parameters
    ----------
    estimator : classifier or torch.nn.Module
        The classifier inside, which has a view.

    noise : Noise
        Fitted.

    shape : tuple of int
        Shape of a sample.

    seed : int
        For the noise.

    References
    ----------
    .. [1] H. Salman et al., "Provably robust deep learning via adversarially trained smoothed
       classifiers", NeurIPS 2019, equation (6).
    """

    def __init__(self, estimator, noise, shape, seed):
        super().__init__()
        if not isinstance(noise, AdditiveNoise):
            raise NotDifferentiableError(
                f"SmoothedClassifier with {type(noise).__name__} has no differentiable view: such "
                "noise leaves no gradients. Use an attack that needs none, such as HopSkipJump."
            )
        view = to_torch(estimator)
        options = input_options(view)
        vectors = torch.empty((_N_NOISE, *shape), **options)
        generator = make_generator(seed, options["device"])
        noise.sampler(**options)(vectors, vectors.new_zeros(shape), 0, generator)
        # First of all, as the first tensor tells in which precision the input is taken.
        self.register_buffer("vectors", vectors)
        self.view = view
        self.training = view.training

    def forward(self, x):
        noisy = x.to(self.vectors).unsqueeze(1) + self.vectors
        logits = self.view(noisy.flatten(0, 1))
        log_proba = log_softmax(logits, dim=1).unflatten(0, (-1, _N_NOISE))
        return log_proba.logsumexp(dim=1) - log(_N_NOISE)
