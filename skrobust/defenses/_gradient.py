"""Input-gradient regularisation (Ross & Doshi-Velez 2018, Simon-Gabriel et al. 2019)."""

from numbers import Real

import torch
from torch.nn.functional import cross_entropy

from ..utils._sklearn import Interval
from ._base import BaseDefense


class InputGradientRegularization(BaseDefense):
    """Cross-entropy plus its largest increase in the ball, to first order.

    Parameters
    ----------
    weight : float, default=1.0
        Weight of the penalty. With 1 the loss is a first-order approximation of the largest
        cross-entropy in the ball. Larger weights also penalise the curvature that this
        approximation ignores.

    See Also
    --------
    AdversarialTraining : Attacks each batch in several steps: more robust, but slower.

    Notes
    -----
    The loss is ``L(x) + weight * max_{‖d / eps‖ <= 1} <grad_x L(x), d>``. The maximum is the dual
    norm of ``eps * grad_x L`` [2]_: l1 for linf, l2 for l2, linf for l1. [1]_ penalises the squared
    l2 norm instead. ``mask`` is respected, ``bounds`` are not used. Training needs second
    derivatives. In a ReLU network these come from the cross-entropy alone, because the activation
    has none.

    References
    ----------
    .. [1] A. S. Ross and F. Doshi-Velez, "Improving the adversarial robustness and
       interpretability of deep neural networks by regularizing their input gradients", AAAI 2018.
    .. [2] C.-J. Simon-Gabriel, Y. Ollivier, L. Bottou, B. Schölkopf and D. Lopez-Paz, "First-order
       adversarial vulnerability of neural networks and input dimension", ICML 2019.

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.defenses import InputGradientRegularization
    >>> clf = RobustClassifier(defense=InputGradientRegularization(weight=2.0))
    """

    _parameter_constraints: dict = {"weight": [Interval(Real, 0, None, closed="left")]}

    def __init__(self, weight=1.0):
        self.weight = weight

    def loss(self, model, x, y, threat, generator):
        """Compute the loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        x = x.detach().requires_grad_()
        logits = model(x)
        losses = cross_entropy(logits, y, reduction="none")
        (grad,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
        return losses + self.weight * threat.dual_norm(grad).to(losses), logits
