"""Adversarial training (Madry et al. 2018) and TRADES (Zhang et al. 2019)."""

from numbers import Integral, Real

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from ..attacks._losses import CrossEntropy
from ..attacks._pgd import step_fractions
from ..differentiable.runtime import logits_and_vjp
from ..utils._random import GeneratorNoise
from ..utils._sklearn import Interval
from ..utils._torch import evaluation_mode
from ._base import BaseDefense


class AdversarialTraining(BaseDefense):
    """Adversarial training: the cross-entropy at the end of an attack on each batch.

    Parameters
    ----------
    n_steps : int, default=10
        Steps of projected gradient ascent on each batch; each costs one pass forward and one to
        the input. Training takes about ``1 + 2 / 3 * n_steps`` times as long as without.

    step_size : float, default=None
        Length of each step in units of X. None means the decreasing schedule of
        :class:`~skrobust.attacks.PGD`.

    random_start : bool, default=True
        Start at a point drawn uniformly from the ball; else at the input.

    See Also
    --------
    TRADES : Trades accuracy for robustness by a parameter.

    Notes
    -----
    Minimises ``mean_i max_{z in B(x_i)} L(f(z), y_i)`` [1]_, eq. (2.1); the inner maximum is
    approached by :class:`~skrobust.attacks.PGD` against the present model in evaluation mode, in
    the ball, box and mask of the classifier.

    References
    ----------
    .. [1] A. Madry, A. Makelov, L. Schmidt, D. Tsipras and A. Vladu, "Towards deep learning models
       resistant to adversarial attacks", ICLR 2018.

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.defenses import AdversarialTraining
    >>> clf = RobustClassifier(defense=AdversarialTraining(n_steps=5), eps=0.1)
    """

    _parameter_constraints: dict = {
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "step_size": [Interval(Real, 0, None, closed="neither"), None],
        "random_start": ["boolean"],
    }

    def __init__(self, *, n_steps=10, step_size=None, random_start=True):
        self.n_steps = n_steps
        self.step_size = step_size
        self.random_start = random_start

    def loss(self, model, x, y, threat, generator):
        """Loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        region = threat.around(x)
        start = region.random(GeneratorNoise(x, generator)) if self.random_start else x.clone()
        direction = CrossEntropy(y).direction
        fractions = step_fractions(self.n_steps, self.step_size, threat.eps)
        logits = model(ascend(model, region, start, direction, fractions))
        return cross_entropy(logits, y, reduction="none"), logits


class TRADES(BaseDefense):
    """TRADES: cross-entropy of the clean input plus divergence from it at an adversarial one.

    Parameters
    ----------
    beta : float, default=6.0
        Weight of the divergence: the larger, the more accuracy is given up for robustness.
        (1 / lambda of the paper.)

    n_steps : int, default=10
        Steps of projected gradient ascent on each batch; each costs one pass forward and one to
        the input.

    step_size : float, default=None
        Length of each step in units of X. None means the decreasing schedule of
        :class:`~skrobust.attacks.PGD`.

    See Also
    --------
    AdversarialTraining : The cross-entropy of adversarial inputs.

    Notes
    -----
    The loss is ``L(f(x), y) + beta max_{z in B(x)} KL(p(x) || p(z))`` with the probabilities ``p``
    [1]_, algorithm 1. The inner ascent starts at a random point of the ball, as the
    divergence is flat at ``x``.

    References
    ----------
    .. [1] H. Zhang, Y. Yu, J. Jiao, E. Xing, L. El Ghaoui and M. I. Jordan, "Theoretically
       principled trade-off between robustness and accuracy", ICML 2019.

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.defenses import TRADES
    >>> clf = RobustClassifier(defense=TRADES(beta=3.0), eps=0.1)
    """

    _parameter_constraints: dict = {
        "beta": [Interval(Real, 0, None, closed="left")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "step_size": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(self, beta=6.0, *, n_steps=10, step_size=None):
        self.beta = beta
        self.n_steps = n_steps
        self.step_size = step_size

    def loss(self, model, x, y, threat, generator):
        """Loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        region = threat.around(x)
        with evaluation_mode(model), torch.no_grad():
            target = model(x).softmax(1)
        z = ascend(
            model,
            region,
            region.random(GeneratorNoise(x, generator)),
            # Gradient of KL(target || softmax(logits)) with respect to the logits.
            lambda logits: logits.softmax(1).sub_(target),
            step_fractions(self.n_steps, self.step_size, threat.eps),
        )
        logits, logits_adv = model(torch.cat([x, z])).chunk(2)
        divergence = kl_div(
            log_softmax(logits_adv, 1), log_softmax(logits, 1), reduction="none", log_target=True
        )
        losses = cross_entropy(logits, y, reduction="none")
        return losses + self.beta * divergence.sum(1), logits


def ascend(model, region, z, direction, fractions, noise=None):
    """Projected gradient ascent in place, for who needs no more than the last point.

    Parameters
    ----------
    model : torch.nn.Module
        From inputs to logits; attacked in evaluation mode.

    region : Region
        The admissible points.

    z : tensor of shape (n, ...)
        Where to start.

    direction : callable
        From logits to the gradient of the loss with respect to them, up to a positive factor.

    fractions : list of float
        Length of each step as a share of the radius.

    noise : None or tensor of shape (n_copies, n, ...), default=None
        What is added to the points of all steps: they follow the gradients of all noisy copies
        together, and ``direction`` gets the logits of one copy after the other.

    Returns
    -------
    z : tensor of shape (n, ...)
        Without the noise.
    """
    with evaluation_mode(model):
        evaluate = logits_and_vjp(model)
        for fraction in fractions:
            logits, vjp = evaluate(z if noise is None else (z + noise).flatten(0, 1))
            grad = vjp(direction(logits))
            if noise is not None:
                grad = grad.unflatten(0, noise.shape[:2]).sum(0)
            region.step_(z, grad, fraction)
    return z
