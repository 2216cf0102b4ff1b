"""The fast adaptive boundary attack."""

from numbers import Integral, Real

import torch

from ..utils._random import RowNoise
from ..utils._sklearn import Interval
from ._hyperplane import Hyperplane, linearize_boundary
from ._losses import likeliest_others
from ._minimum_norm import MinimumNormAttack, NormSearch

# Passes with which the way from the input to the best point is searched at the end.
_N_FINAL = 3


class FAB(MinimumNormAttack):
    """Fast adaptive boundary attack: the closest adversarial point, by following the boundary.

    Each step takes the model for linear about the present point, and goes to the hyperplane that
    stands for the decision boundary, by the shortest way inside the box, drawn towards the point of
    this hyperplane that is closest to the input. Once across the boundary, the point moves back
    towards the input, and the search goes on from there.

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

    norm : {"linf", "l2", "l1"}, default="linf"
        Norm that is made small.

    bounds : None or pair (low, high), default=None
        Box of valid inputs, in units of X; each side a number or an array of shape (n_features,).

    mask : None, str or array-like, default=None
        Features that the attack can change: booleans, indices or column names. None means all.

    n_steps : int, default=100
        Steps a run. Each costs one pass forward and one to the input (with
        ``n_target_classes=None``, one to the input for each class but one).

    n_restarts : int, default=1
        Runs for each target class: the first from the input, the others from random points half as
        far away as the best point known.

    n_target_classes : int, default=9
        How many other classes to head for, one after the other, beginning with the likeliest; the
        runs multiply. None means one run only, which takes in each step the class whose boundary is
        the closest, as in the original attack. A targeted attack ignores it.

    alpha_max : float, default=0.1
        Largest share of the way that leads to the input's own projection.

    eta : float, default=1.05
        Length of a step, as a multiple of the way to the hyperplane.

    beta : float, default=0.9
        Where a point is adversarial, the share of its perturbation to go on with.

    batch_size : int or "auto", default="auto"
        Samples a batch; it bounds the memory. Apart from rounding, results do not depend on it.

    verbose : int, default=0
        With 1, a progress bar over the batches.

    random_state : int, RandomState instance or None, default=None
        Seed of the restarts. What a sample draws depends on the seed and on its values alone, not
        on the samples beside it.

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
    AutoAttack : An ensemble that contains this attack.

    Notes
    -----
    Let ``f`` be the logit of another class less that of the label, ``w`` its gradient at the
    present point ``u`` (a perturbation; the input is 0), and ``p(v)`` the projection of ``v`` onto
    the hyperplane ``f + <w, . - u> = 0`` inside the box, in the norm of the attack. A step is [1]_,
    Algorithm 1::

        u <- clip((1 - a) (u + eta (p(u) - u)) + a eta p(0)),
        a = min(|p(u) - u| / (|p(u) - u| + |p(0)|), alpha_max),

    and ``u <- beta u`` where this is adversarial. The projection is exact. At the end the segment
    from the input to the best point is searched by a few more passes.

    It differs from the paper in one thing. There the point that went back is linearised anew; here
    the hyperplane of the adversarial point, which is nearer to the boundary, serves in its place.
    That saves one pass forward a step, and finds points that are as close in l2, and closer by one
    to three per cent in linf.

    With ``n_target_classes`` as with None, any class but the label is a success. On a linear
    model with two classes, the result is the closest adversarial point in each of the norms,
    box and mask included, up to 0.5 % of its distance; with more classes it is if the closest
    is among the target classes. On other models nothing is guaranteed: the distance found is an
    upper bound.

    References
    ----------
    .. [1] F. Croce and M. Hein, "Minimally distorted adversarial examples with a fast adaptive
       boundary attack", ICML 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skrobust.attacks import FAB
    >>> X, y = load_wine(return_X_y=True)
    >>> clf = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    >>> attack = FAB(eps=X.std(axis=0), n_steps=20)
    >>> X_adv = attack.perturb(clf, X, y)
    >>> print(f"{np.median(attack.perturbation_norm(X, X_adv)):.3f}")
    0.519
    """

    _parameter_constraints: dict = {
        **MinimumNormAttack._parameter_constraints,
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "n_restarts": [Interval(Integral, 1, None, closed="left")],
        "n_target_classes": [Interval(Integral, 1, None, closed="left"), None],
        "alpha_max": [Interval(Real, 0, 1, closed="both")],
        "eta": [Interval(Real, 1, None, closed="left")],
        "beta": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        estimator=None,
        *,
        eps=None,
        norm="linf",
        bounds=None,
        mask=None,
        n_steps=100,
        n_restarts=1,
        n_target_classes=9,
        alpha_max=0.1,
        eta=1.05,
        beta=0.9,
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
        self.n_restarts = n_restarts
        self.n_target_classes = n_target_classes
        self.alpha_max = alpha_max
        self.eta = eta
        self.beta = beta
        self.batch_size = batch_size
        self.verbose = verbose
        self.random_state = random_state

    def _attack_batch(self, model, space, labels, *, seed, targeted, stop_on_success):
        search = NormSearch(
            model, space, labels, targeted=targeted, stop_on_success=stop_on_success
        )
        if targeted or self.n_target_classes is None:
            targets = [None]
        else:
            logits = search.linearize(space.zeros())[0]
            search.drop()
            targets = likeliest_others(logits, labels, self.n_target_classes).split(1, dim=1)
        for k, target in enumerate(targets):
            u = search.space.zeros()
            for restart in range(self.n_restarts):
                if restart:
                    noise = RowNoise(search.space.x, seed + k * self.n_restarts + restart)
                    u = _random_start(search, u, noise)
                u = self._follow_boundary(search, u, target)
        search_segment(search, _N_FINAL)
        return search.result()

    def _follow_boundary(self, search, u, target):
        """One run from ``u``; where it ends, for the rows that are left."""
        for _ in range(self.n_steps):
            if not len(search):
                return u
            share, value, w, along = linearize_boundary(search, u, target, self.beta)
            kept = search.drop()
            if kept is not None:
                u, share, value, w, along = (t[kept] for t in (u, share, value, w, along))
            u = u * share
            plane = Hyperplane(search.space, w)
            step = plane.step(along * (1 - share) - value, u)
            own = plane.step(along - value)
            length, own_length = search.space.size(step), search.space.size(own)
            total = (length + own_length).clamp_min_(torch.finfo(u.dtype).tiny)
            alpha = length.div_(total).clamp_max_(self.alpha_max)
            u = torch.lerp(u.add_(step, alpha=self.eta), own.mul_(self.eta), alpha)
            search.space.clip_(u)
        search.look(u)
        return u


def search_segment(search, n_passes):
    """Look for adversarial points on the ways from the inputs to the best points.

    The zero of the margin is interpolated (regula falsi), and missed a little on the far side.
    """
    u = search.best()[0].clone()
    outside = search.look(u)
    with torch.no_grad():
        inside = search.loss.margin(search.model.logits(search.space.x))
    low, high = torch.zeros_like(inside), torch.ones_like(inside)
    for _ in range(n_passes):
        share = (inside / (inside - outside)).nan_to_num_(0.5).clamp_(0.05, 1)
        share = torch.lerp(share, torch.ones_like(share), 0.02)
        middle = torch.lerp(low, high, share)
        margin = search.look(u * middle)
        found = margin > 0
        low, inside = torch.where(found, low, middle), torch.where(found, inside, margin)
        high, outside = torch.where(found, middle, high), torch.where(found, margin, outside)


def _random_start(search, u, noise):
    """Random points half as far away as the best ones, or as ``u`` where there is none."""
    space = search.space
    distance = search.best()[1].clamp_max(space.radius)
    distance = torch.where(distance < torch.inf, distance, space.size(u))
    return space.clip_(_random_in_ball(space, noise).mul_(distance.mul_(0.5)))


def _random_in_ball(space, noise):
    """Points drawn uniformly from the unit ball."""
    n_features = space.zeros().shape[1]
    small = torch.finfo(space.x.dtype).eps / 2  # the functions below are finite inside (0, 1) only
    u = noise.uniform(n_features).clamp_(small, 1 - small)
    if space.norm == "l1":
        u = u.log_().mul_(noise.uniform(n_features).sub_(0.5).sign_())
    else:
        u = u.mul_(2).sub_(1)
    if space.norm == "l2":
        u = u.erfinv_()
    if space.norm != "linf":
        u.div_(space.size(u)).mul_(noise.uniform(1).pow_(1 / n_features))
    return u
