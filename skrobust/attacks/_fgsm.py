"""The fast gradient sign method, in every norm."""

from ..utils._sklearn import StrOptions
from ._base import BaseAttack
from ._losses import LOSSES
from ._search import Search


class FGSM(BaseAttack):
    """Fast gradient sign method: one steepest step to the edge of the admissible set.

    The gradient is taken once, at the input, and the attack goes to the admissible point that is
    best if the loss were linear. For linf that is ``x + eps sign(g)`` clipped to the box [1]_; for
    l2 and l1, too, box and mask are part of the optimisation and not clipped to afterwards. On a
    linear binary model no attack is stronger.

    Parameters
    ----------
    estimator : estimator object or torch.nn.Module, default=None
        Classifier to attack when used as a transformer. A fitted one is used as it is; ``clone``
        (and with it ``GridSearchCV``) would return an unfitted copy, which
        :class:`sklearn.frozen.FrozenEstimator` prevents. One that is not fitted is cloned and
        fitted by :meth:`fit`. None means a :class:`~sklearn.linear_model.LogisticRegression`, as a
        substitute whose adversarial examples may transfer. :meth:`perturb` does not use it.

    eps : float or array-like of shape (n_features,), default=0.1
        Radius of the ball, or budget of each feature, in units of X.
        See :class:`~skrobust.threat.ThreatModel`.

    norm : {"linf", "l2", "l1"}, default="linf"
        Norm of the ball.

    bounds : None or pair (low, high), default=None
        Box of valid inputs, in units of X; each side a number or an array of shape (n_features,).

    mask : None, str or array-like, default=None
        Features that the attack can change: booleans, indices or column names. None means all.

    loss : {"ce", "margin", "dlr"}, default="ce"
        Loss to climb; see :class:`PGD`.

    batch_size : int or "auto", default="auto"
        Samples a batch; it bounds the memory. Apart from rounding, results do not depend on it.

    verbose : int, default=0
        With 1, a progress bar over the batches.

    random_state : int, RandomState instance or None, default=None
        Seed for models that are random themselves; the attack is not.

    Attributes
    ----------
    estimator_ : estimator
        The fitted classifier under attack (after :meth:`fit`).

    n_features_in_ : int
        Number of features seen during :meth:`fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen during :meth:`fit`, where X has names that are all strings.

    See Also
    --------
    PGD : Many small steps: stronger on everything that is not linear.

    Notes
    -----
    Where the step does not help, the input itself is returned. FGSM is a quick look: a model that
    withstands it may well fall to :class:`PGD`.

    References
    ----------
    .. [1] I. J. Goodfellow, J. Shlens and C. Szegedy, "Explaining and harnessing adversarial
       examples", ICLR 2015.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skrobust.attacks import FGSM
    >>> X, y = load_wine(return_X_y=True)
    >>> clf = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    >>> X_adv = FGSM(eps=0.3 * X.std(axis=0)).perturb(clf, X, y)
    >>> print(f"{clf.score(X, y):.3f} {clf.score(X_adv, y):.3f}")
    1.000 0.764
    """

    _parameter_constraints: dict = {
        **BaseAttack._parameter_constraints,
        "loss": [StrOptions(set(LOSSES))],
    }

    def __init__(
        self,
        estimator=None,
        *,
        eps=0.1,
        norm="linf",
        bounds=None,
        mask=None,
        loss="ce",
        batch_size="auto",
        verbose=0,
        random_state=None,
    ):
        self.estimator = estimator
        self.eps = eps
        self.norm = norm
        self.bounds = bounds
        self.mask = mask
        self.loss = loss
        self.batch_size = batch_size
        self.verbose = verbose
        self.random_state = random_state

    def _attack_batch(self, model, region, labels, *, seed, targeted, stop_on_success):
        search = Search(model, region, LOSSES[self.loss](labels, targeted=targeted))
        _, grad, _ = search.gradient(region.x.clone())
        search.look(region.steepest(grad))
        return search.result()
