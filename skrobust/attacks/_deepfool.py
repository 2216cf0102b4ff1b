"""DeepFool."""

from numbers import Integral, Real

import torch

from ..utils._sklearn import Interval, StrOptions
from ._hyperplane import Hyperplane, linearize_boundary
from ._minimum_norm import MinimumNormAttack, NormSearch

# Share of the way to the hyperplane that a step goes at least, where the box holds it back. Whole
# ways lead farther off: with bounds they are long, and the model is not linear over their length.
_LEAST_SHARE = 0.5

# Where so many of these steps do not suffice, the others go the whole way inside the box.
_N_CLIPPED = 25


class DeepFool(MinimumNormAttack):
    """DeepFool: from one linear model to the next until the boundary is crossed.

    Each step takes the model for linear about the present point and goes the shortest way to the
    closest boundary with another class. The attack ends where the label changes, which mostly takes
    two or three steps, so that it is fast; it does not look for a closer point.

    Parameters
    ----------
    estimator : estimator object or torch.nn.Module, default=None
        Classifier to attack when used as a transformer. A fitted one is used as it is; ``clone``
        (and with it ``GridSearchCV``) would return an unfitted copy, which
        :class:`sklearn.frozen.FrozenEstimator` prevents. One that is not fitted is cloned and
        fitted by :meth:`fit`. None means a :class:`~sklearn.linear_model.LogisticRegression`, as a
        substitute whose adversarial examples may transfer. :meth:`perturb` does not use it.

    eps : None, float or array-like of shape (n_features,), default=None
        Radius up to which a point counts as a success, in units of X; None means any. With one
        value per feature, the norm of the perturbation divided by it is what is made small, and 1
        is the radius.

    norm : {"l2", "linf"}, default="l2"
        Norm that is made small.

    bounds : None or pair (low, high), default=None
        Box of valid inputs, in units of X; each side a number or an array of shape (n_features,).

    mask : None, str or array-like, default=None
        Features that the attack can change: booleans, indices or column names. None means all.

    n_steps : int, default=50
        Largest number of steps. Each costs one pass forward and one to the input for each class
        that is compared.

    overshoot : float, default=0.02
        By which share the way to the boundary is exceeded.

    n_target_classes : int, default=10
        How many other classes to compare in each step: the likeliest at the present point. None
        means all. A targeted attack ignores it.

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
    FAB : Follows the boundary to closer points, at more cost.

    Notes
    -----
    With ``f_k`` the logit of class k less that of the label and ``w_k`` its gradient, a step
    leads from ``u`` to the closest point of the hyperplane ``f_k + <w_k, . - u> = 0``, where k
    has the smallest ``|f_k| / ||w_k||_*`` [1]_, Algorithm 2. The steps add up to ``r``, and
    what is judged and linearised next is ``(1 + overshoot) r``.

    In the paper there is no box. Here a step is clipped to it, and where that leaves less than
    half of the way, the features that are not at their bound make up for the others. The next
    steps do the rest, in the second 25 by the whole way inside the box. (To go that at once
    ends 10 % farther off on MNIST.) A targeted attack steps to the boundary of the target with
    its strongest rival.

    On a linear model with two classes the result is ``1 + overshoot`` times as far away as the
    closest adversarial point, or at bounds a little less. On other models nothing is
    guaranteed: the distance is an upper bound, and there may be no success.

    References
    ----------
    .. [1] S.-M. Moosavi-Dezfooli, A. Fawzi and P. Frossard, "DeepFool: a simple and accurate method
       to fool deep neural networks", CVPR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skrobust.attacks import DeepFool
    >>> X, y = load_wine(return_X_y=True)
    >>> clf = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    >>> attack = DeepFool(mask=[0, 6, 9])
    >>> X_adv = attack.perturb(clf, X, y)
    >>> print(f"{np.median(attack.perturbation_norm(X, X_adv)):.2f}")
    2.59
    """

    _parameter_constraints: dict = {
        **MinimumNormAttack._parameter_constraints,
        "norm": [StrOptions({"l2", "linf"})],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "overshoot": [Interval(Real, 0, None, closed="left")],
        "n_target_classes": [Interval(Integral, 1, None, closed="left"), None],
    }

    def __init__(
        self,
        estimator=None,
        *,
        eps=None,
        norm="l2",
        bounds=None,
        mask=None,
        n_steps=50,
        overshoot=0.02,
        n_target_classes=10,
        batch_size="auto",
        verbose=0,
        random_state=None,
    ):
        self.estimator = estimator
        self.eps = eps
        self.norm = norm
        self.bounds = bounds
        self.mask = mask
        self.n_steps = n_steps
        self.overshoot = overshoot
        self.n_target_classes = n_target_classes
        self.batch_size = batch_size
        self.verbose = verbose
        self.random_state = random_state

    def _attack_batch(self, model, space, labels, *, seed, targeted, stop_on_success):
        search = NormSearch(model, space, labels, targeted=targeted)
        search.enough = torch.finfo(space.x.dtype).max  # the first adversarial point is the result
        total, u = space.zeros(), space.zeros()
        for k in range(self.n_steps):
            _, value, w, _ = linearize_boundary(search, u, self.n_target_classes)
            kept = search.drop()
            if kept is not None:
                total, u, value, w = (x[kept] for x in (total, u, value, w))
            if not len(search):
                break
            plane = Hyperplane(search.space, w)
            if k < _N_CLIPPED:
                step = plane.clipped_step(-value, u, _LEAST_SHARE)
            else:
                step = plane.step(-value, u)
            # Those that are not dropped yet stay where they are, whatever the others do.
            total += step.mul_(search.best()[1] == torch.inf)
            u = search.space.clip_(total * (1 + self.overshoot))
        search.look(u)
        return search.result()
