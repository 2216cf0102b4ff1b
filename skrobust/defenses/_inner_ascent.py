"""Inner maximisation of adversarial training: projected gradient ascent on each batch."""

from numbers import Integral, Real

from ..attacks._pgd import step_fractions
from ..differentiable._pullback import pullback
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
            See :func:`climb`.

        Returns
        -------
        x_adv : tensor of shape (n_samples, ...)
        """
        feasible_set = threat.around(x)
        if generator is None:
            start = x.clone()
        else:
            start = feasible_set.random(GeneratorNoise(x, generator))
        fractions = step_fractions(self.n_steps, self.step_size, threat.eps)
        return climb(model, feasible_set, start, grad_logits, fractions, noise)


def climb(model, feasible_set, start, grad_logits, fractions, noise=None):
    """Climb a loss by projected gradient ascent, and return the last point.

    Parameters
    ----------
    model : torch.nn.Module
        Maps inputs to logits. It is attacked in evaluation mode.

    feasible_set : Region
        Feasible points around the batch.

    start : tensor of shape (n_samples, ...)
        Starting points; they are overwritten.

    grad_logits : callable
        Maps logits to the gradient of the loss with respect to them, up to a positive factor for
        each sample.

    fractions : list of float
        Step sizes, as fractions of the radius of the ball.

    noise : tensor of shape (n_copies, n_samples, ...), default=None
        Noise that is added to the points in every step. All copies of a sample move together, by
        the sum of their gradients. ``grad_logits`` gets the logits of all copies in one tensor, the
        whole batch of the first copy first.

    Returns
    -------
    z : tensor of shape (n_samples, ...)
        Last points, without noise.
    """
    z = start
    with evaluation_mode(model):
        linearize = pullback(model)
        for fraction in fractions:
            logits, vjp = linearize(z if noise is None else (z + noise).flatten(0, 1))
            grad = vjp(grad_logits(logits))
            if noise is not None:
                grad = grad.unflatten(0, noise.shape[:2]).sum(0)
            feasible_set.step_(z, grad, fraction)
    return z
