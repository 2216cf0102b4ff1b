"""Differentiable view of a smoothed classifier, for gradient-based attacks."""

from math import log

import torch
from torch.nn.functional import log_softmax

from ..differentiable import to_torch
from ..differentiable._modules import View
from ..exceptions import NotDifferentiableError
from ..utils._random import make_generator
from ..utils._torch import input_options
from ._noise import AdditiveNoise

# Number of noise vectors to average over. The cost and the memory of an attack grow with it.
_N_NOISE = 16


class SmoothedView(View):
    """Logarithm of the mean class probabilities of a view under fixed noise vectors.

    Votes have no gradient; mean probabilities have one [1]_. The noise vectors never change, so
    that the view is a deterministic function. Its largest logit belongs to the top class, except
    where the vote is close.

    Parameters
    ----------
    estimator : classifier or torch.nn.Module
        The inner classifier; it must have a view.

    noise : Noise
        Fitted distribution.

    shape : tuple of int
        Shape of a sample.

    seed : int
        Seed of the noise vectors.

    References
    ----------
    .. [1] H. Salman et al., "Provably robust deep learning via adversarially trained smoothed
       classifiers", NeurIPS 2019, equation (6).
    """

    def __init__(self, estimator, noise, shape, seed):
        super().__init__()
        if not isinstance(noise, AdditiveNoise):
            raise NotDifferentiableError(
                f"SmoothedClassifier with {type(noise).__name__} has no differentiable view: only "
                "additive noise has gradients. Use an attack that needs no gradients, "
                "such as HopSkipJump."
            )
        view = to_torch(estimator)
        options = input_options(view)
        vectors = torch.empty((_N_NOISE, *shape), **options)
        generator = make_generator(seed, options["device"])
        noise.sampler(**options)(vectors, vectors.new_zeros(shape), 0, generator)
        # Register the vectors first: the first tensor of a module sets the dtype of its input.
        self.register_buffer("vectors", vectors)
        self.view = view
        self.training = view.training

    def forward(self, x):
        noisy = x.to(self.vectors).unsqueeze(1) + self.vectors
        logits = self.view(noisy.flatten(0, 1))
        log_proba = log_softmax(logits, dim=1).unflatten(0, (-1, _N_NOISE))
        return log_proba.logsumexp(dim=1) - log(_N_NOISE)
