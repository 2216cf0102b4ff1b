"""Views of torch modules and skorch nets."""

import math
from functools import partial

import torch
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from ..exceptions import NotDifferentiableError
from ._modules import View
from ._registry import suggest_fix, to_torch


class Net(View):
    """Logits of a module that is shared, not copied, and computes in its own precision.

    Parameters
    ----------
    module : torch.nn.Module
        Its output, or the first output of a tuple, has the shape `(n_samples, n_outputs)` or
        `(n_samples,)`.

    link : callable, default=None
        From the output to logits. None means that the output is logits.

    threshold : float, default=0.0
        A single output above this logit means the second class.
    """

    def __init__(self, module, link=None, threshold=0.0):
        super().__init__()
        self.module = module
        self.link = link
        self.threshold = threshold
        # Code that saves and restores the mode of the view then restores the mode of the module.
        self.training = module.training
        self._like = _first_floating(module)

    def forward(self, x):
        logits = self.module(self._cast(x))
        if isinstance(logits, tuple):
            logits = logits[0]
        if self.link is not None:
            logits = self.link(logits)
        if logits.ndim == 2 and logits.shape[1] > 1:
            return logits
        if logits.ndim == 1 or (logits.ndim == 2 and logits.shape[1] == 1):
            return nn.functional.pad(logits.reshape(-1, 1), (1, 0), value=self.threshold)
        raise ValueError(
            f"{type(self.module).__name__} must give logits of shape (n_samples, n_classes), "
            f"(n_samples, 1) or (n_samples,), got {tuple(logits.shape)}."
        )

    def _cast(self, x):
        # Looked up at every call: the module can be converted or moved between calls.
        if self._like is None:
            return x
        tensors, name = self._like
        return x.to(tensors[name])


def _first_floating(module):
    """Find the first floating-point tensor of a module: its dictionary and its name there."""
    for child in module.modules():
        for tensors in (child._parameters, child._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and tensor.is_floating_point():
                    return tensors, name
    return None


@to_torch.register(nn.Module)
def _(module):
    # A module that ends in probabilities has its logits one layer earlier.
    return Net(_before(nn.Softmax, module) or _before(nn.Sigmoid, module) or module)


@to_torch.register(NeuralNetClassifier)
def _(net):
    return Net(*_module_and_link(net))


@to_torch.register(NeuralNetBinaryClassifier)
def _(net):
    if not 0 < net.threshold < 1:
        raise NotDifferentiableError(
            f"{type(net).__name__} with threshold={net.threshold!r} predicts one class only. "
            "Set a threshold between 0 and 1."
        )
    module, link = _module_and_link(net)
    return Net(module, link, threshold=math.log(net.threshold / (1 - net.threshold)))


def _module_and_link(net):
    """Return the module and the link of a skorch net, by the rules of skorch's predict_proba."""
    if type(net).infer not in (NeuralNet.infer, NeuralNetBinaryClassifier.infer):
        raise NotDifferentiableError(
            f"{type(net).__name__} has no differentiable view, because it has an infer() of its "
            f"own, which the view would not call. {suggest_fix(net)}"
        )
    module, nonlinearity = net.module_, net.predict_nonlinearity
    if callable(nonlinearity):
        if _is_softmax(nonlinearity):
            return module, None
        binary = isinstance(net, NeuralNetBinaryClassifier)
        return module, partial(_after_nonlinearity, nonlinearity=nonlinearity, binary=binary)

    criterion = getattr(net, "criterion_", None)
    criterion = getattr(criterion, "_orig_mod", criterion)  # of a compiled net
    if isinstance(criterion, nn.NLLLoss) and not _ends_in(nn.LogSoftmax, module):
        logits = _before(nn.Softmax, module)
        return (module, _log) if logits is None else (logits, None)
    if isinstance(criterion, nn.BCELoss):
        logits = _before(nn.Sigmoid, module)
        return (module, _logit) if logits is None else (logits, None)
    return module, None


def _is_softmax(function):
    function = function.func if isinstance(function, partial) else function
    return function in (torch.softmax, nn.functional.softmax) or isinstance(function, nn.Softmax)


def _ends_in(layer_class, module):
    # Exact types only: a subclass can have another forward.
    return type(module) is nn.Sequential and len(module) > 1 and type(module[-1]) is layer_class


def _before(layer_class, module):
    """Return the layers before the last one if the last one is a `layer_class`, else None."""
    if not _ends_in(layer_class, module):
        return None
    before = module[:-1]
    before.training = module.training
    return before


def _log(probabilities):
    """Logarithm that stays finite at 0."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def _logit(probability):
    """Log-odds that stay finite at 0 and 1."""
    limits = torch.finfo(probability.dtype)
    # 1 - eps / 2 is the largest number below 1.
    return torch.logit(probability.clamp(limits.tiny, 1 - limits.eps / 2))


def _after_nonlinearity(output, *, nonlinearity, binary):
    """Return logits from the probabilities that a `predict_nonlinearity` gives."""
    probabilities = nonlinearity(output)
    return _logit(probabilities[:, 1]) if binary else _log(probabilities)
