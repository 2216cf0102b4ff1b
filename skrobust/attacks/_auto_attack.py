"""AutoAttack: an ensemble, of which each member attacks what the others have left."""

import numpy as np
import torch

from ..utils._batching import batch_slices, resolve_batch_size
from ..utils._containers import is_dataframe, like, take_rows
from ..utils._random import draw_seed, isolated_rng
from ..utils._sklearn import StrOptions
from ._access import find_access
from ._apgd import APGD
from ._base import AttackResult, BaseAttack, make_goal
from ._diagnosis import diagnose_result, warn_masked
from ._fab import FAB
from ._fmn import FMN
from ._hop_skip_jump import HopSkipJump
from ._losses import Margin
from ._pgd import PGD
from ._square import Square

# Beyond this share of the points, what scores alone find and gradients do not is no accident. The
# short runs of "fast" leave more behind.
_MASKED_SHARE = {"standard": 0.01, "fast": 0.05, "rand": 0.01}


class AutoAttack(BaseAttack):
    """Ensemble of attacks without parameters to tune, each on the points that still stand.

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

    version : {"standard", "fast", "rand"}, default="standard"
        The members, for an estimator with gradients:

        - "standard" [1]_, [2]_: :class:`APGD` on the cross-entropy, targeted :class:`APGD` on the
          difference of logits ratio, targeted :class:`FAB`, :class:`FMN`, :class:`Square`; 100
          steps and one restart for each of up to nine target classes, 5,000 queries, and of FMN,
          which the papers do not have, 200 steps, and 1,000 and 1,500 more where the margin has
          come down to 0.8 and 0.3 of the input's.
        - "fast": nearly always the same verdict, at a fraction of the cost; see Notes.
        - "rand", for models that are random themselves: :class:`APGD` on the cross-entropy and on
          the difference of logits ratio, gradients averaged over 20 passes.

        An estimator without gradients is attacked through its scores, by :class:`Square` and then
        :class:`HopSkipJump`, with 5,000 queries each ("fast": 1,000), or, where it has none,
        through its decisions, by :class:`HopSkipJump` with 15,000 queries ("fast": 3,000). With
        ``norm="l1"``, which :class:`HopSkipJump` does not know, scores are needed, and
        :class:`Square` is alone.

    batch_size : int or "auto", default="auto"
        Samples a batch; it bounds the memory. Apart from rounding, results do not depend on it.

    verbose : int, default=0
        With 1, a progress bar over the batches.

    random_state : int, RandomState instance or None, default=None
        Seed of all members. What a sample draws depends on the seed and on its values alone, not on
        the samples beside it.

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
    skrobust.metrics.robust_accuracy_score : Accuracy under this attack, by default.
    skrobust.exceptions.MaskedGradientsWarning : Square finds what the others do not.

    Notes
    -----
    Members stop at the first success for each point. :meth:`run` and :meth:`perturb` return for
    each point the adversarial example of the first member that found one, and where none did
    the point of the largest margin that any of them returned.

    "fast" takes 30 steps of :class:`APGD` and short runs of :class:`PGD` that start again at the
    best point, which find more on models that hide their gradients than long runs or other
    losses do. What is dear is only for points near the boundary, whose margin has come down to
    a fifth of the input's or so: :class:`FMN` (in l2 and l1 for more of them, and the longer the
    nearer), and after 300 queries of :class:`Square` another 5,000 (8 for each feature, where that
    is less). Of what only a long search finds, nearly all is there, and these members have the
    seeds that they have in "standard", so that both find the same. On 1,000 points and an
    adversarially trained network for MNIST it had the verdict of "standard" on 99.9 to 100 % of the
    points (linf 0.3, l2 2.0, l1 10; two seeds), in about a quarter of the CPU time of the standard
    ensemble of another library (benchmarks/RESULTS.md).

    :class:`FMN` is in "standard" because it is by far the strongest in l2 and l1: on that
    network it left 2 % standing at l2 2.0, where the other four left 10 %.

    With two classes, the difference of logits ratio is replaced by the margin, which has the
    same direction as the cross-entropy: the second member is then another run of the first from
    other starting points. With three classes its denominator is the difference of the first and
    the third logit.

    References
    ----------
    .. [1] F. Croce and M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
       diverse parameter-free attacks", ICML 2020.
    .. [2] F. Croce and M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
       classifiers", ICML 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skrobust.attacks import AutoAttack
    >>> X, y = load_wine(return_X_y=True)
    >>> attack = AutoAttack(eps=0.2 * X.std(axis=0), version="fast", random_state=0)
    >>> linear = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    >>> forest = RandomForestClassifier(20, random_state=0).fit(X, y)
    >>> for clf in (linear, forest):
    ...     print(f"{clf.score(X, y):.2f} {clf.score(attack.perturb(clf, X, y), y):.2f}")
    1.00 0.92
    1.00 0.91
    """

    _parameter_constraints: dict = {
        **BaseAttack._parameter_constraints,
        "version": [StrOptions({"standard", "fast", "rand"})],
    }

    def __init__(
        self,
        estimator=None,
        *,
        eps=0.1,
        norm="linf",
        bounds=None,
        mask=None,
        version="standard",
        batch_size="auto",
        verbose=0,
        random_state=None,
    ):
        self.estimator = estimator
        self.eps = eps
        self.norm = norm
        self.bounds = bounds
        self.mask = mask
        self.version = version
        self.batch_size = batch_size
        self.verbose = verbose
        self.random_state = random_state

    def run(self, estimator, X, y=None, *, y_target=None, stop_on_success=True):
        """Attack and say where it succeeded.

        Parameters
        ----------
        estimator, X, y, y_target
            As for :meth:`perturb`.

        stop_on_success : bool, default=True
            Has no effect: the members always stop.

        Returns
        -------
        result : AttackResult
            ``X_adv`` is an ndarray, and ``success`` the verdict of the estimator's ``predict``.
        """
        self._validate_params()
        target, array, threat = self._check_inputs(estimator, X)
        access = find_access(target, X, array)
        seed = draw_seed(self.random_state)
        with isolated_rng(seed, access.options["device"]):
            goal = make_goal(target, X, array, y, y_target)
            X = X if is_dataframe(X) else array
            best = _Best(access, goal, array, resolve_batch_size(self.batch_size, array.shape[1:]))
            n_found: dict = {}
            for member, nearly in self._members(access, seed, array[0].size):
                rows = best.standing(nearly)
                if not len(rows):
                    continue
                labels = {"y_target" if goal.targeted else "y": goal.labels[rows]}
                result = member.run(estimator, take_rows(X, rows), **labels, stop_on_success=True)
                best.update(rows, result)
                n_found[type(member)] = n_found.get(type(member), 0) + result.success.sum()
            # Of the whole, as whoever gets it will ask: the members saw parts of it.
            predicted = target.predict(like(X, best.X_adv))
            success = goal.reached(predicted, np.arange(len(array)))
        if not goal.targeted:
            diagnose_result(self, threat, array, success)
            by_scores = n_found.get(Square, 0) if "gradients" in access.gives else 0
            if by_scores > max(1, _MASKED_SHARE[self.version] * len(array)):
                warn_masked(self, by_scores, len(array))
        return AttackResult(best.X_adv, success)

    def _members(self, access, seed, n_features):
        """The attacks, in the order in which they are run, and which points each is for."""
        if "gradients" in access.gives:
            kinds = _FAST[self.norm] if self.version == "fast" else _MEMBERS[self.version]
        else:
            kinds = self._members_without_gradients(access)
        members = []
        for i, (kind, parameters, *nearly) in enumerate(kinds):
            # Seeds from the last of a kind on, which is the longest: what two versions have in
            # common finds the same in both.
            n_alike = sum(later is kind for later, *_ in kinds[i + 1 :])
            if nearly and kind is Square:
                most = parameters["n_queries"]
                parameters = {"n_queries": min(most, _QUERIES_PER_FEATURE * n_features)}
            member = kind(
                eps=self.eps,
                norm=self.norm,
                bounds=self.bounds,
                mask=self.mask,
                batch_size=self.batch_size,
                verbose=self.verbose,
                random_state=seed + _SEEDS_A_MEMBER * n_alike,
                **parameters,
            )
            # One says what there is to say of the model, and the ensemble speaks of the result.
            member._diagnoses = () if i else ("model",)
            members.append((member, *(nearly or [None])))
        return members

    def _members_without_gradients(self, access):
        version = "fast" if self.version == "fast" else "standard"
        if "scores" in access.gives:
            members = _MEMBERS_BY_SCORES[version]
            return members[:1] if self.norm == "l1" else members
        if self.norm == "l1":
            raise TypeError(
                "AutoAttack with norm='l1' needs gradients or scores of the estimator: a "
                "differentiable view (skrobust.to_torch), or decision_function or predict_proba "
                "with one column for each class. This one gives neither. Use norm='linf' or 'l2', "
                "for which decisions suffice."
            )
        return _MEMBERS_BY_DECISIONS[version]


class _Best:
    """The best point of each row so far: one that fools predict, else that of the largest margin.

    Margins are of the access, and are not asked where it gives decisions alone.
    """

    def __init__(self, access, goal, array, batch_size):
        self.access, self.goal, self.batch_size = access, goal, batch_size
        self.X_adv = array.copy()
        self.success = np.zeros(len(array), dtype=bool)
        self.at_input = self._margins(array, np.arange(len(array)))
        self.margin = self.at_input.copy()

    def standing(self, nearly):
        """Rows that stand; with a number, those whose margin is this share of the input's or less.

        Of what only a long search can still find, nearly all is there.
        """
        standing = ~self.success
        if nearly is not None:
            standing &= self.margin >= nearly * self.at_input
        return np.flatnonzero(standing)

    def update(self, rows, result):
        margin = self._margins(result.X_adv, rows)
        better = result.success | (margin > self.margin[rows])
        self.success[rows] = result.success
        rows = rows[better]
        self.X_adv[rows], self.margin[rows] = result.X_adv[better], margin[better]

    def _margins(self, array, rows):
        margins = np.full(len(rows), -np.inf)
        if "scores" not in self.access.gives:
            return margins
        with self.access.prepared(min(len(rows), self.batch_size)), torch.no_grad():
            for part in batch_slices(len(rows), self.batch_size):
                z = torch.tensor(array[part], **self.access.options)
                index = torch.as_tensor(self.goal.index[rows[part]], device=z.device)
                margin = Margin(index, targeted=self.goal.targeted).margin(self.access.logits(z))
                margins[part] = margin[:, 0].cpu().numpy()
        return margins


# Queries of a long random search, at most: few features need few.
_QUERIES_PER_FEATURE = 8

# Restarts have seeds that follow each other.
_SEEDS_A_MEMBER = 1000

# Kind and parameters of each member. A third entry is for points near the boundary only: the share
# of the input's margin down to which theirs must have come.
_SHORT_PGD = (PGD, {"n_steps": 10, "n_restarts": 20, "restart_from": "best"})
_SQUARES = [(Square, {"n_queries": 300}), (Square, {"n_queries": 5000}, 0.2)]
_FMNS = [(FMN, {}), (FMN, {"n_restarts": 40}, 0.8), (FMN, {"n_restarts": 60}, 0.3)]
_FAST_L2_L1 = [(APGD, {"n_steps": 30}), *_FMNS, _SHORT_PGD, *_SQUARES]
_FAST: dict = {
    "linf": [
        (APGD, {"n_steps": 30}),
        _SHORT_PGD,
        (FMN, {"n_restarts": 12}, 0.15),
        *_SQUARES,
    ],
    "l2": _FAST_L2_L1,
    "l1": _FAST_L2_L1,
}
_MEMBERS: dict = {
    "standard": [
        (APGD, {}),
        (APGD, {"loss": "dlr", "n_target_classes": 9}),
        (FAB, {}),
        *_FMNS,
        (Square, {}),
    ],
    "rand": [
        (APGD, {"eot_samples": 20}),
        (APGD, {"loss": "dlr", "eot_samples": 20}),
    ],
}

_MEMBERS_BY_SCORES: dict = {
    "standard": [(Square, {}), (HopSkipJump, {"max_queries": 5000, "n_restarts": 3})],
    "fast": [(Square, {"n_queries": 1000}), (HopSkipJump, {"max_queries": 1000})],
}

_MEMBERS_BY_DECISIONS: dict = {
    "standard": [(HopSkipJump, {"max_queries": 15_000, "n_restarts": 5})],
    "fast": [(HopSkipJump, {"max_queries": 3000, "n_restarts": 3})],
}
