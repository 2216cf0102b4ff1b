"""Adversarial training of smoothed classifiers (Salman et al. 2019)."""

from numbers import Integral, Real

from torch.nn.functional import cross_entropy, logsigmoid

from ..attacks._losses import CrossEntropy
from ..attacks._pgd import step_fractions
from ..utils._sklearn import Interval
from ._adversarial import ascend
from ._base import BaseDefense
from ._noise import SIGMA, gaussian_noise


class SmoothAdv(BaseDefense):
    """Adversarial training of the smoothed classifier: noise around an input attacked under noise.

    Parameters
    ----------
    sigma : float or array-like of shape (n_features,), default=0.25
        Standard deviation of the noise, in units of X.
        :class:`~skrobust.SmoothedClassifier` sets it to its own.

    n_noise : int, default=2
        Noisy copies of each input, the same ones in all steps of the attack and in training. More
        make an attack that is closer to one on the smoothed classifier; the time grows with them.

    n_steps : int, default=4
        Steps of projected gradient ascent on each batch; each costs one pass forward and one to
        the input of all copies.

    step_size : float, default=None
        Length of each step in units of X. None means the decreasing schedule of
        :class:`~skrobust.attacks.PGD`.

    See Also
    --------
    GaussianAugmentation : Noise alone: faster, and mostly certifies less.
    AdversarialTraining : The same without noise.

    Notes
    -----
    With noise ``d_1, ..., d_m`` from ``N(0, sigma^2)`` and probabilities ``p`` of the network, an
    attacked input approaches the maximum of

    ``J(z) = -log(mean_j p_y(z + d_j))``

    over ball, box and mask of the classifier ([1]_, section 3): it starts at the input and
    attacks the present model in evaluation mode. The loss is the cross-entropy at ``z + d_j``, its
    mean over the copies. The noise is added to what the attacker hands in, and heeds neither
    ``bounds`` nor ``mask``. The gradient of ``J`` with respect to the logits of copy ``j`` is
    ``w_j (p(z + d_j) - e_y)``, where the weights ``w_j`` are the shares of the copies in the sum of
    the ``p_y``. The logits that count in the history are those of the first copy.

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
        "sigma": SIGMA,
        "n_noise": [Interval(Integral, 1, None, closed="left")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "step_size": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(self, sigma=0.25, *, n_noise=2, n_steps=4, step_size=None):
        self.sigma = sigma
        self.n_noise = n_noise
        self.n_steps = n_steps
        self.step_size = step_size

    def loss(self, model, x, y, threat, generator):
        """Loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        noise = gaussian_noise(x, self.sigma, self.n_noise, generator)
        y_copies = y.repeat(self.n_noise)
        smoothed = SmoothedCrossEntropy(y_copies, self.n_noise)
        fractions = step_fractions(self.n_steps, self.step_size, threat.eps)
        region = threat.around(x)
        z = ascend(model, region, x.clone(), smoothed.direction, fractions, noise=noise)
        logits = model((z + noise).flatten(0, 1))
        losses = cross_entropy(logits, y_copies, reduction="none")
        return losses.view(self.n_noise, -1).mean(0), logits[: len(x)]


class SmoothedCrossEntropy:
    """Cross-entropy of the mean prediction of noisy copies, those of a batch one after the other.

    Parameters
    ----------
    labels : int64 tensor of shape (n_copies * n,)

    n_copies : int
    """

    def __init__(self, labels, n_copies):
        self.cross_entropy = CrossEntropy(labels)
        self.n_copies = n_copies

    def direction(self, logits):
        """Gradient with respect to the logits, up to a positive factor for each sample.

        Where ``r`` is the log-odds of an error and ``q`` the softmax of the other logits, that is
        ``p_y (1 - p_y) (q - e_y)`` with ``log p_y = logsigmoid(-r)``: normalised over the copies
        by a softmax, the factors vanish nowhere for all of them.
        """
        log_odds = self.cross_entropy.value(logits)
        factors = (logsigmoid(log_odds) + logsigmoid(-log_odds)).view(self.n_copies, -1).softmax(0)
        return self.cross_entropy.direction(logits).mul_(factors.view(-1, 1))
