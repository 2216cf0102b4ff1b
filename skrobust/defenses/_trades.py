"""TRADES (Zhang et al. 2019)."""

from numbers import Real

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from ..utils._sklearn import Interval
from ..utils._torch import evaluation_mode
from ._inner_ascent import InnerAscentDefense


class TRADES(InnerAscentDefense):
    """TRADES: cross-entropy of clean inputs plus divergence of the predictions under attack.

    Parameters
    ----------
    beta : float, default=6.0
        Weight of the divergence: larger values trade accuracy for robustness. It is 1 / lambda in
        the paper.

    n_steps : int, default=10
        Steps of projected gradient ascent on each batch. Each step costs a forward pass and a
        backward pass to the input.

    step_size : float, default=None
        Step size in units of X. None means the decreasing step sizes of
        :class:`~skrobust.attacks.PGD`.

    See Also
    --------
    AdversarialTraining : Cross-entropy of attacked inputs.

    Notes
    -----
    The loss is ``L(f(x), y) + beta * max_{z in B(x)} KL(p(x) || p(z))`` with the probabilities
    ``p`` of the network ([1]_, algorithm 1). ``B(x)`` is the feasible set around ``x``: ball, box
    and mask of the classifier. The ascent starts at a random point of the ball, because the
    gradient of the divergence is zero at ``x``.

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
        **InnerAscentDefense._parameter_constraints,
        "beta": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, beta=6.0, *, n_steps=10, step_size=None):
        self.beta = beta
        self.n_steps = n_steps
        self.step_size = step_size

    def loss(self, model, x, y, threat, generator):
        """Compute the loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        with evaluation_mode(model), torch.no_grad():
            target = model(x).softmax(1)

        def grad_divergence(logits):
            """Gradient of KL(target || softmax(logits)) with respect to the logits."""
            return logits.softmax(1).sub_(target)

        x_adv = self._attack(model, x, threat, grad_divergence, generator=generator)
        logits, logits_adv = model(torch.cat([x, x_adv])).chunk(2)
        divergence = kl_div(
            log_softmax(logits_adv, 1), log_softmax(logits, 1), reduction="none", log_target=True
        )
        losses = cross_entropy(logits, y, reduction="none")
        return losses + self.beta * divergence.sum(1), logits
