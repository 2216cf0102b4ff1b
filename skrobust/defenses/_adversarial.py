"""Adversarial training (Madry et al. 2018)."""

from torch.nn.functional import cross_entropy

from ..attacks.core._losses import CrossEntropy
from ._inner_ascent import InnerAscentDefense


class AdversarialTraining(InnerAscentDefense):
    """Adversarial training: cross-entropy of inputs that are attacked in every batch.

    Parameters
    ----------
    n_steps : int, default=10
        Steps of projected gradient ascent on each batch. Each step costs a forward pass and a
        backward pass to the input. Training takes about ``1 + 2 / 3 * n_steps`` times as long as
        standard training.

    step_size : float, default=None
        Step size in units of X. None means the decreasing step sizes of
        :class:`~skrobust.attacks.PGD`.

    random_start : bool, default=True
        Whether the ascent starts at a random point of the ball. If False, it starts at the input.

    See Also
    --------
    TRADES : Balances accuracy and robustness by a parameter.

    Notes
    -----
    Training minimises ``mean_i max_{z in B(x_i)} L(f(z), y_i)`` ([1]_, eq. (2.1)), where ``B(x)``
    is the feasible set around ``x``: ball, box and mask of the classifier. The inner maximum is
    approximated by projected gradient ascent against the present network in evaluation mode.

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
        **InnerAscentDefense._parameter_constraints,
        "random_start": ["boolean"],
    }

    def __init__(self, *, n_steps=10, step_size=None, random_start=True):
        self.n_steps = n_steps
        self.step_size = step_size
        self.random_start = random_start

    def loss(self, model, x, y, threat, generator):
        """Compute the loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        grad_logits = CrossEntropy(y).grad_logits
        generator = generator if self.random_start else None
        logits = model(self._attack(model, x, threat, grad_logits, generator=generator))
        return cross_entropy(logits, y, reduction="none"), logits
