"""View of Gaussian naive Bayes."""

import math

import torch
from sklearn.naive_bayes import GaussianNB

from ._modules import View, as_buffer
from ._registry import to_torch


@to_torch.register(GaussianNB)
def _(estimator):
    return GaussianLogLikelihood(estimator.theta_, estimator.var_, estimator.class_prior_)


class GaussianLogLikelihood(View):
    """Joint log-likelihood of classes with independent Gaussian features.

    The square in ``-(x - mean)^2 / (2 var)`` is expanded, so that it takes two matrix products.
    Centering the input first avoids cancellation between the terms.
    """

    def __init__(self, means, variances, priors):
        super().__init__()
        means, variances, priors = map(as_buffer, (means, variances, priors))
        center = means.mean(dim=0)
        means = means - center
        constant = means.square() / variances + torch.log(2 * math.pi * variances)
        self.register_buffer("center", center)
        self.register_buffer("quadratic", (-0.5 / variances).T.contiguous())
        self.register_buffer("linear", (means / variances).T.contiguous())
        self.register_buffer("bias", priors.log() - 0.5 * constant.sum(dim=1))

    def forward(self, x):
        x = x.to(self.center) - self.center
        logits = torch.addmm(self.bias, x, self.linear)
        return torch.addmm(logits, x * x, self.quadratic)
