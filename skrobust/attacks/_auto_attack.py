"""AutoAttack: an ensemble, of which each member attacks what the others have left."""

import numpy as np
from sklearn.utils import check_array

from ..utils._containers import FLOATS, column_names, is_dataframe, take_rows
from ..utils._random import draw_seed, isolated_rng
from ..utils._sklearn import StrOptions
from ._access import find_access
from ._apgd import APGD
from ._base import AttackResult, BaseAttack, make_goal
from ._diagnosis import diagnose_result, warn_masked
from ._fab import FAB
from ._pgd import PGD
from ._square import Square
from ._target import Target

# Beyond this share of the points, what scores alone find and gradients do not is no accident.
_MASKED_SHARE = 0.01


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

        - "standard" [1]_: :class:`APGD` on the cross-entropy, targeted :class:`APGD` on the
          difference of logits ratio, targeted :class:`FAB`, :class:`Square`; 100 steps and one
          restart for each of up to nine target classes, and 5,000 queries.
        - "fast": as good as the same verdict at a fraction of the cost; see Notes.
        - "rand", for models that are random themselves: :class:`APGD` on the cross-entropy and on
          the difference of logits ratio, gradients averaged over 20 passes.

        An estimator without gradients is attacked through its scores, by :class:`Square` with 5,000
        queries ("fast": 1,000).

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
    each point the adversarial example of the first member that found one, and where none did the
    end of the first member's search.

    With two classes, the difference of logits ratio is replaced by the margin, which has the same
    direction as the cross-entropy: the second member is then another run of the first from other
    starting points. With three classes its denominator is the difference of the first and the third
    logit.

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
        target = Target(estimator)
        array = check_array(X, dtype=FLOATS, allow_nd=True, estimator=self, input_name="X")
        target.check_X(X, array)
        threat = self._threat(column_names(X))
        threat.check_inputs(array)
        access = find_access(target, X, array)
        seed = draw_seed(self.random_state)
        with isolated_rng(seed, access.options["device"]):
            goal = make_goal(target, X, array, y, y_target)
            X = X if is_dataframe(X) else array
            X_adv, success = array.copy(), np.zeros(len(array), dtype=bool)
            n_found: dict = {}
            for member in self._members(access, seed):
                rows = np.flatnonzero(~success)
                if not len(rows):
                    break
                labels = {"y_target" if goal.targeted else "y": goal.labels[rows]}
                result = member.run(estimator, take_rows(X, rows), **labels, stop_on_success=True)
                if not n_found:
                    X_adv[:] = result.X_adv
                X_adv[rows[result.success]] = result.X_adv[result.success]
                success[rows] = result.success
                n_found[type(member)] = n_found.get(type(member), 0) + result.success.sum()
        if not goal.targeted:
            diagnose_result(self, threat, array, success)
            by_scores = n_found.get(Square, 0) if "gradients" in access.gives else 0
            if by_scores > max(1, _MASKED_SHARE * len(array)):
                warn_masked(self, by_scores, len(array))
        return AttackResult(X_adv, success)

    def _members(self, access, seed):
        """The attacks, in the order in which they are run."""
        if "gradients" in access.gives:
            kinds: list = _MEMBERS[self.version]
        elif "scores" in access.gives:
            kinds = [(Square, {"n_queries": 1000 if self.version == "fast" else 5000})]
        else:
            raise TypeError(
                "AutoAttack needs gradients or scores of the estimator: a differentiable view "
                "(skrobust.to_torch), or decision_function or predict_proba with one column for "
                "each class. This one gives neither."
            )
        members = []
        for i, (kind, parameters) in enumerate(kinds):
            member = kind(
                eps=self.eps,
                norm=self.norm,
                bounds=self.bounds,
                mask=self.mask,
                batch_size=self.batch_size,
                verbose=self.verbose,
                random_state=seed + i,
                **parameters,
            )
            # One says what there is to say of the model, and the ensemble speaks of the result.
            member._diagnoses = () if i else ("model",)
            members.append(member)
        return members


_MEMBERS = {
    "standard": [
        (APGD, {}),
        (APGD, {"loss": "dlr", "n_target_classes": 9}),
        (FAB, {"n_target_classes": 9}),
        (Square, {}),
    ],
    "fast": [
        (APGD, {"n_steps": 50}),
        (PGD, {"n_steps": 10, "n_restarts": 20, "restart_from": "best"}),
        (FAB, {"n_steps": 50, "n_target_classes": 3}),
        (Square, {"n_queries": 500}),
    ],
    "rand": [
        (APGD, {"eot_samples": 20}),
        (APGD, {"loss": "dlr", "eot_samples": 20}),
    ],
}
