"""Inner maximisation of adversarial training: projected gradient ascent on each batch."""

from numbers import Integral, Real

from ..attacks.core._ascent import ascend, step_fractions
from ..differentiable.runtime import logits_and_vjp
from ..utils._random import GeneratorNoise
from ..utils._sklearn import Interval
from ..utils._torch import evaluation_mode
from ._base import BaseDefense


class InnerAscentDefense(BaseDefense):
    """Base class of defenses that attack each batch by projected gradient ascent.

    Subclasses have the parameters ``n_steps`` and ``step_size``.
    """

    _parameter_constraints: dict = {
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "step_size": [Interval(Real, 0, None, closed="neither"), None],
    }

    def _attack(self, model, x, threat, grad_logits, *, generator=None, noise=None):
        """Return the last point of an ascent around each input.

        Parameters
        ----------
        model, x, threat
            See :meth:`BaseDefense.loss`.

        grad_logits : callable
            Maps logits to the gradient of the loss with respect to them, up to a positive factor
            for each sample.

        generator : torch.Generator, default=None
            Source of a random start in the feasible set. None means to start at the inputs.

        noise : tensor of shape (n_copies, n_samples, ...), default=None
            Noise of the copies whose gradients are summed; see :class:`BatchGradients`.

        Returns
        -------
        x_adv : tensor of shape (n_samples, ...)
        """
        feasible_set = threat.feasible_set(x)
        if generator is None:
            start = x.clone()
        else:
            start = feasible_set.random_start(GeneratorNoise(x, generator))
        fractions = step_fractions(self.n_steps, self.step_size, threat.eps)
        with evaluation_mode(model):
            return ascend(BatchGradients(model, feasible_set, grad_logits, noise), start, fractions)


class BatchGradients:
    """Gradients of a loss at points around a batch, for the loop of gradient ascent.

    Parameters
    ----------
    model : torch.nn.Module
        Maps inputs to logits; in evaluation mode.

    feasible_set : FeasibleSet
        Feasible points around the batch.

    grad_logits : callable
        Maps logits to the gradient of the loss with respect to them, up to a positive factor for
        each sample.

    noise : tensor of shape (n_copies, n_samples, ...), default=None
        Noise that is added to the points in every step. All copies of a sample move together, by
        the sum of their gradients. ``grad_logits`` gets the logits of all copies in one tensor, the
        whole batch of the first copy first.
    """

    def __init__(self, model, feasible_set, grad_logits, noise=None):
        self.evaluate = logits_and_vjp(model)
        self.feasible_set, self.grad_logits, self.noise = feasible_set, grad_logits, noise

    def __len__(self):
        return len(self.feasible_set.x)

    def gradient(self, z):
        """Return the points, the gradients there, and None: no row is ever dropped."""
        copies = z if self.noise is None else (z + self.noise).flatten(0, 1)
        logits, vjp = self.evaluate(copies)
        grad = vjp(self.grad_logits(logits))
        if self.noise is not None:
            grad = grad.unflatten(0, self.noise.shape[:2]).sum(0)
        return z, grad, None
