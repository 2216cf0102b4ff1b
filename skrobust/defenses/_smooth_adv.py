"""Adversarial training of smoothed classifiers (Salman et al. 2019)."""

from numbers import Integral

from torch.nn.functional import cross_entropy, logsigmoid

from ..attacks.core._losses import CrossEntropy
from ..utils._sklearn import Interval
from ._inner_ascent import InnerAscentDefense
from ._noise import SIGMA, gaussian_noise


class SmoothAdv(InnerAscentDefense):
    """Adversarial training of the smoothed classifier: attacked inputs with Gaussian noise.

    Parameters
    ----------
    sigma : float or array-like of shape (n_features,), default=0.25
        Standard deviation of the noise, in units of X. Inside
        :class:`~skrobust.SmoothedClassifier` it is set to the noise level of that classifier.

    n_noise : int, default=2
        Noisy copies of each input. All steps of the attack and the loss use the same noise. With
        more copies, the attack approximates an attack on the smoothed classifier better. Training
        time is proportional to the number of copies.

    n_steps : int, default=4
        Steps of projected gradient ascent on each batch. Each step costs a forward pass and a
        backward pass to the input for all copies.

    step_size : float, default=None
        Step size in units of X. None means the decreasing step sizes of
        :class:`~skrobust.attacks.PGD`.

    See Also
    --------
    GaussianAugmentation : Noise alone: faster, but with smaller radii in most cases.
    AdversarialTraining : The same without noise.

    Notes
    -----
    With noise ``d_1, ..., d_m`` from ``N(0, sigma^2)`` and the probabilities ``p`` of the network,
    the attack looks for the maximum of

    ``J(z) = -log(mean_j p_y(z + d_j))``

    in the feasible set of the classifier ([1]_, section 3): ball, box and mask. It starts at the
    input and attacks the present network in evaluation mode. The loss is the mean cross-entropy of
    the points ``z + d_j``. The noise is added after the attack, so ``z + d_j`` can be outside of
    ``bounds`` and ``mask``. The gradient of ``J`` with respect to the logits of copy ``j`` is
    ``w_j (p(z + d_j) - e_y)`` with ``w_j = p_y(z + d_j) / sum_k p_y(z + d_k)``. Callbacks that
    score the training data get the logits of the first copy.

    References
    ----------
    .. [1] H. Salman, G. Yang, J. Li, P. Zhang, H. Zhang, I. Razenshteyn and S. Bubeck, "Provably
       robust deep learning via adversarially trained smoothed classifiers", NeurIPS 2019.

    Examples
    --------
    >>> from skrobust import RobustClassifier, SmoothedClassifier
    >>> from skrobust.defenses import SmoothAdv
    >>> net = RobustClassifier(defense=SmoothAdv(n_steps=2), eps=0.5, norm="l2")
    >>> clf = SmoothedClassifier(net, sigma=0.5)
    """

    _parameter_constraints: dict = {
        **InnerAscentDefense._parameter_constraints,
        "sigma": SIGMA,
        "n_noise": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, sigma=0.25, *, n_noise=2, n_steps=4, step_size=None):
        self.sigma = sigma
        self.n_noise = n_noise
        self.n_steps = n_steps
        self.step_size = step_size

    def loss(self, model, x, y, threat, generator):
        """Compute the loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        noise = gaussian_noise(x, self.sigma, self.n_noise, generator)
        y_copies = y.repeat(self.n_noise)
        grad_logits = SmoothedCrossEntropy(y_copies, self.n_noise).grad_logits
        x_adv = self._attack(model, x, threat, grad_logits, noise=noise)
        logits = model((x_adv + noise).flatten(0, 1))
        losses = cross_entropy(logits, y_copies, reduction="none")
        return losses.view(self.n_noise, -1).mean(0), logits[: len(x)]


class SmoothedCrossEntropy:
    """Cross-entropy of the prediction averaged over noisy copies.

    Parameters
    ----------
    labels : int64 tensor of shape (n_copies * n_samples,)
        Class indices of all copies, the whole batch of the first copy first.

    n_copies : int
        Number of copies.
    """

    def __init__(self, labels, n_copies):
        self.cross_entropy = CrossEntropy(labels)
        self.n_copies = n_copies

    def grad_logits(self, logits):
        """Return the gradient with respect to the logits, up to a positive factor per sample.

        The gradient of one copy is ``p_y (1 - p_y) (q - e_y)``, where ``q`` is the softmax over the
        other classes. The factors ``p_y (1 - p_y)`` are computed as logarithms from the log-odds
        ``r`` of an error, ``log p_y = logsigmoid(-r)``, and normalised over the copies by a
        softmax: they cannot underflow for all copies at once.
        """
        log_odds = self.cross_entropy.value(logits)
        factors = (logsigmoid(log_odds) + logsigmoid(-log_odds)).view(self.n_copies, -1).softmax(0)
        return self.cross_entropy.grad_logits(logits).mul_(factors.view(-1, 1))
