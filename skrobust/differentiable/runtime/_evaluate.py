"""Evaluation of a view together with its vector-Jacobian products."""

from functools import partial

import torch

from ._capture import capture
from ._fusion import fuse


@torch.no_grad()
def logits_and_vjp(view):
    """Prepare to evaluate a view together with its vector-Jacobian products (vjp).

    A chain of known layers is run layer by layer, forward and backward, by the kernels that
    autograd would call, without the cost of recording a graph. Convolutions run in the memory
    format in which they are fastest. From the first unknown layer on, a view goes through autograd.

    Parameters
    ----------
    view : torch.nn.Module
        View of a classifier, in evaluation mode. It is not changed. The result is valid as long as
        the mode, the structure and the weights of the view stay the same.

    Returns
    -------
    evaluate : callable
        ``logits, vjp = evaluate(z)`` takes a batch `z` of shape `(n_samples, ...)`. It gives

        - `logits`: tensor of shape `(n_samples, n_classes)`, detached;
        - `vjp`: callable that takes `grad_logits`, of the shape and dtype of `logits`, and returns
          the gradient of ``<grad_logits, logits>`` with respect to `z`, in the shape, dtype and
          device of `z`. It may be called any number of times.

        ``evaluate.logits(z)`` gives the logits alone and keeps nothing.

    Notes
    -----
    No gradients of parameters are computed. The intermediate values that `vjp` needs are kept in
    memory as long as `vjp` exists: delete it after the last call.

    Without convolutions and batch normalization, the results have the same bits as those of
    autograd. With them, they agree up to rounding. Where rounding moves the input of a ReLU across
    zero, which happens to about one value in ten million in float32, the gradient is that of the
    other side. The same batch gives the same bits under the same settings of torch.

    Forward and backward pass together take 0.4 to 0.85 of the time of autograd for the networks in
    ``benchmarks/settings.py``.

    Examples
    --------
    >>> import torch
    >>> from skrobust import to_torch
    >>> from skrobust.differentiable.runtime import logits_and_vjp
    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> evaluate = logits_and_vjp(to_torch(module.eval()))
    >>> z = torch.rand(5, 4)
    >>> logits, vjp = evaluate(z)
    >>> logits.shape
    torch.Size([5, 3])
    >>> grad_logits = torch.zeros_like(logits)
    >>> grad_logits[:, 0] = 1  # gradient of the first logit of every sample
    >>> vjp(grad_logits).shape
    torch.Size([5, 4])
    >>> torch.equal(evaluate.logits(z), logits)
    True
    """
    return _Evaluator(fuse(capture(view)))


class _Evaluator:
    """The callable that :func:`logits_and_vjp` returns."""

    def __init__(self, ops):
        self.ops = ops

    @torch.no_grad()
    def __call__(self, z):
        saved = []
        for op in self.ops:
            z, values = op.forward(z)
            saved.append(values)
        return z, partial(_vjp, self.ops, saved)

    @torch.no_grad()
    def logits(self, z):
        for op in self.ops:
            z = op.output(z)
        return z


@torch.no_grad()
def _vjp(ops, saved, grad):
    for op, values in zip(reversed(ops), reversed(saved), strict=True):
        grad = op.vjp(grad, values)
    return grad.contiguous()
