"""The DeepFool attack."""

from numbers import Integral, Real

import torch

from ..utils._sklearn import Interval, StrOptions
from .core._linearization import linearize_boundary
from .core._minimum_norm import MinimumNormAttack
from .core._search import NormSearch

# Least share of the distance to the hyperplane that a step covers where the box blocks features.
# Covering all of it ends farther away: inside bounds such steps are long, and the model is not
# linear over their length.
_LEAST_SHARE = 0.5

# After this number of such steps, the others cover the whole distance inside the box.
_N_CLIPPED = 25


class DeepFool(MinimumNormAttack):
    """DeepFool: steps to the boundary of the linearised model until the label changes.

    Each step linearises the model at the present point and goes to the closest boundary with
    another class. The attack ends where the label changes, mostly after two or three steps, so that
    it is fast; it does not look for a closer point.

    Parameters
    ----------
    {estimator}

    {eps}

    norm : {"l2", "linf"}, default="l2"
        Norm to minimise.

    {bounds}

    {mask}

    n_steps : int, default=50
        Largest number of steps. Each costs one pass forward and one to the input for each class
        that is compared.

    overshoot : float, default=0.02
        Share of the distance to the boundary by which a point goes beyond it.

    n_target_classes : int, default=10
        Number of other classes to compare in each step: the likeliest at the present point. None
        means all. A targeted attack ignores it.

    {batch_size}

    {verbose}

    random_state : int, RandomState instance or None, default=None
        Seed for models that are random themselves; the attack is not.

    Attributes
    ----------
    {estimator_}

    {n_features_in_}

    {feature_names_in_}

    See Also
    --------
    FAB : Closer points along the boundary, at more cost.

    Notes
    -----
    With ``f_k`` the logit of class k less the logit of the label and ``w_k`` its gradient, a step
    leads from ``u`` to the closest point of the hyperplane ``f_k + <w_k, . - u> = 0``, where k has
    the smallest ``|f_k| / ||w_k||_*`` [1]_, Algorithm 2. The steps add up to ``r``, and the next
    point is ``(1 + overshoot) r``.

    In the paper there is no box. Here a step is clipped to the box, and where that leaves less than
    half of the distance, the features that are not at their bound compensate for the others. The
    next steps do the rest; after 25 steps, each covers the whole distance inside the box. (Doing
    that from the beginning ends 10 % farther away on MNIST.) A targeted attack steps to the
    boundary of the target with its strongest rival.

    On a linear model with two classes the result is ``1 + overshoot`` times as far away as the
    closest adversarial point, or at bounds slightly less. On other models nothing is guaranteed:
    the distance is an upper bound, and there may be no success.

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
        super().__init__(estimator, eps, norm, bounds, mask, batch_size, verbose, random_state)
        self.n_steps = n_steps
        self.overshoot = overshoot
        self.n_target_classes = n_target_classes

    def _attack_batch(self, batch):
        search = NormSearch(batch)
        # The first adversarial point is the result, at any distance.
        search.enough = torch.finfo(batch.feasible_set.x.dtype).max
        total, u = batch.feasible_set.zeros(), batch.feasible_set.zeros()
        for k in range(self.n_steps):
            _, value, w, _ = linearize_boundary(search, u, self.n_target_classes)
            kept = search.drop()
            if kept is not None:
                total, u, value, w = (x[kept] for x in (total, u, value, w))
            if not len(search):
                break
            plane = search.feasible_set.hyperplane(w)
            if k < _N_CLIPPED:
                step = plane.clipped_step(-value, u, _LEAST_SHARE)
            else:
                step = plane.step(-value, u)
            # Rows that are done but not dropped yet do not move: when they are dropped depends on
            # the other rows.
            total += step.mul_(search.closest()[1] == torch.inf)
            u = search.feasible_set.clip_(total * (1 + self.overshoot))
        search.try_points(u)
        return search.result()
