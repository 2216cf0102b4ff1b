"""The base class of all attacks."""

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted, validate_data

from ...exceptions import NotDifferentiableError
from ...threat import LP_NORMS, ThreatModel
from ...utils._batching import batch_slices, resolve_batch_size
from ...utils._containers import FLOATS, like
from ...utils._docs import share_parameter_docs
from ...utils._random import draw_seed
from ...utils._sklearn import HasMethods, Interval, StrOptions, fit_context
from ...utils._torch import is_fitted
from ._batch import AttackBatch
from ._diagnosis import diagnose_model, diagnose_result
from ._problem import AttackProblem


@dataclass(frozen=True)
class AttackResult:
    """Outcome of an attack on a data set.

    Attributes
    ----------
    X_adv : ndarray of the shape of X
        Admissible inputs, for each sample the strongest that was found.

    success : bool ndarray of shape (n_samples,)
        Whether the estimator's own ``predict`` falls for it.
    """

    X_adv: np.ndarray
    success: np.ndarray


class BaseAttack(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Base class of all attacks: everything except what is done to one batch of tensors.

    A subclass writes out its ``__init__``, extends ``_parameter_constraints`` and implements
    ``_attack_batch``. The base class does validation, labels, batches, access to the classifier and
    seeds, and keeps the guarantees of :meth:`perturb`.

    A line ``{name}`` in the docstring of a subclass, such as ``{bounds}``, is replaced by the
    documentation of that parameter or attribute here.

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

    batch_size : int or "auto", default="auto"
        Samples per batch; it bounds the memory. Apart from rounding, results do not depend on it.

    verbose : int, default=0
        With 1, a progress bar over the batches.

    random_state : int, RandomState instance or None, default=None
        Seed of all random draws. The draws of a sample depend on the seed and on its values only,
        not on the other samples.

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
    MinimumNormAttack : Base class of attacks that look for the closest adversarial point.
    """

    _access = "gradients"

    _parameter_constraints: dict = {
        "estimator": [HasMethods("fit"), HasMethods("forward"), None],
        "eps": [Interval(Real, 0, None, closed="left"), "array-like"],
        "norm": [StrOptions(set(LP_NORMS))],
        "bounds": [None, tuple, "array-like"],
        "mask": [None, "array-like", str],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        share_parameter_docs(cls)

    def __init__(self, estimator, eps, norm, bounds, mask, batch_size, verbose, random_state):
        self.estimator = estimator
        self.eps = eps
        self.norm = norm
        self.bounds = bounds
        self.mask = mask
        self.batch_size = batch_size
        self.verbose = verbose
        self.random_state = random_state

    def perturb(self, estimator, X, y=None, *, y_target=None):
        """Find adversarial inputs for a fitted classifier.

        Parameters
        ----------
        estimator : fitted classifier or torch.nn.Module
            The classifier to attack: a :class:`~skrobust.RobustClassifier`, a skorch net, a
            scikit-learn classifier or pipeline (attacked from its raw input), anything with a view
            (:func:`~skrobust.to_torch`), or a module from inputs to logits.

        X : array-like or DataFrame of shape (n_samples, n_features) or (n_samples, ...)
            Inputs, in the units in which ``eps`` and ``bounds`` are given. Integers are
            converted to float64.

        y : array-like of shape (n_samples,), default=None
            True labels, in the label space of the estimator. None means its own predictions.

        y_target : label or array-like of shape (n_samples,), default=None
            Makes the attack targeted: it succeeds where the estimator predicts this label.

        Returns
        -------
        X_adv : ndarray or DataFrame of the shape of X
            For each sample the strongest admissible input found. Guaranteed: inside ball, box and
            mask to the last bit of its dtype; where the attack fails and the input itself is
            already on the attacker's side, the input itself. The dtype is that of X (float64 for
            integers). X is not modified, nor anything of the estimator (parameters, their
            ``requires_grad`` and ``grad``, the mode of its modules) or of any global random state.

        Raises
        ------
        ValueError
            Bad inputs: NaN or infinity, X outside ``bounds``, wrong lengths, unknown labels.

        sklearn.exceptions.NotFittedError
            The estimator is not fitted.

        NotDifferentiableError
            The attack needs gradients, and the estimator has no differentiable view.

        TypeError
            It needs scores, and the estimator has neither ``decision_function`` nor
            ``predict_proba`` with one column for each class.

        Warns
        -----
        AttackWarning
            The attack is weaker than it looks; see :mod:`skrobust.exceptions`.
        """
        result = self.run(estimator, X, y, y_target=y_target)
        return like(X, result.X_adv)

    def run(self, estimator, X, y=None, *, y_target=None, stop_on_success=None):
        """Attack, and return also where the attack succeeded.

        Parameters
        ----------
        estimator, X, y, y_target : see :meth:`perturb`
            Classifier, inputs and labels.

        stop_on_success : bool, default=None
            Whether to stop for a sample once it has fallen. None means the attack's own
            parameter of that name, or False.

        Returns
        -------
        result : AttackResult
            ``X_adv`` is an ndarray, and ``success`` the verdict of the estimator's ``predict``.
        """
        with self.prepare(estimator, X, y, y_target=y_target) as problem:
            return self._run(problem, problem.seed, stop_on_success, diagnose=True)

    @contextmanager
    def prepare(self, estimator, X, y=None, *, y_target=None):
        """Prepare classifier and inputs for several attacks, by :meth:`run_problem`.

        Parameters
        ----------
        estimator, X, y, y_target : see :meth:`perturb`
            Classifier, inputs and labels.

        Yields
        ------
        problem : AttackProblem
            Can be used inside the context only.
        """
        self._validate_params()
        problem = AttackProblem(estimator, X, self)
        with problem.prepared(draw_seed(self.random_state), y, y_target):
            yield problem

    def run_problem(self, problem, *, stop_on_success=None, diagnose=True):
        """Attack a problem that is prepared, also by another attack: for ensembles and scores.

        Parameters
        ----------
        problem : AttackProblem
            See :meth:`prepare`.

        stop_on_success : bool, default=None
            As for :meth:`run`.

        diagnose : bool, default=True
            Whether to warn of models and results for which the attack is weaker than it looks.

        Returns
        -------
        result : AttackResult
            Points and the verdict of the estimator's ``predict``.
        """
        self._validate_params()
        return self._run(problem, draw_seed(self.random_state), stop_on_success, diagnose)

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit the estimator to attack, unless it is fitted already.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Training inputs.

        y : array-like of shape (n_samples,), default=None
            Labels; needed where ``estimator`` is not fitted.

        Returns
        -------
        self : object
            The attack itself.
        """
        validate_data(self, X, dtype=FLOATS, allow_nd=True)
        estimator = self.estimator
        if estimator is None:
            estimator = LogisticRegression(max_iter=1000)
        self.estimator_ = estimator if is_fitted(estimator) else clone(estimator).fit(X, y)
        return self

    def transform(self, X):
        """Perturb ``X`` so that the estimator leaves its own predictions.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        Returns
        -------
        X_adv : ndarray of the shape of X
            See :meth:`perturb`.
        """
        return self._transform(X)

    def fit_transform(self, X, y=None):
        """Fit, then perturb ``X`` so that the estimator misses the true labels ``y``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            Inputs.

        y : array-like of shape (n_samples,), default=None
            True labels; None means the predictions of the fitted ``estimator``.

        Returns
        -------
        X_adv : ndarray of the shape of X
            See :meth:`perturb`.
        """
        return self.fit(X, y)._transform(X, y)

    def _transform(self, X, y=None):
        check_is_fitted(self)
        validate_data(self, X, reset=False, dtype=FLOATS, allow_nd=True)
        return self.run(self.estimator_, X, y).X_adv

    def _threat_model(self, feature_names):
        return ThreatModel(self.eps, self.norm, self.bounds, self.mask, feature_names=feature_names)

    def _feasible_set(self, threat, x):
        """Return the geometry that :meth:`_attack_batch` gets."""
        return threat.feasible_set(x)

    def _run(self, problem, seed, stop_on_success, diagnose):
        """Check that the problem fits this attack, and attack it."""
        if stop_on_success is None:
            stop_on_success = getattr(self, "stop_on_success", False)
        threat = self._threat_model(problem.feature_names)
        threat.check_inputs(problem.array)
        self._check_access(problem)
        return self._attack(problem, threat, seed, stop_on_success, diagnose)

    def _check_access(self, problem):
        """Raise an error unless the access to the classifier suffices for this attack."""
        access, name = problem.access, type(self).__name__
        if self._access in access.provides:
            return
        if self._access == "gradients":
            others = "Square, " if "scores" in access.provides else ""
            raise NotDifferentiableError(
                f"{name} needs the gradients of the estimator. {access.reason} Or use an attack "
                f"that needs none: {others}HopSkipJump, or AutoAttack, which adapts by itself."
            ) from access.reason
        raise TypeError(
            f"{name} needs the scores of the estimator: a decision_function or predict_proba with "
            f"one column for each class, and {type(problem.classifier.estimator).__name__} has "
            "none. Use HopSkipJump, which needs nothing but predict."
        )

    def _attack(self, problem, threat, seed, stop_on_success, diagnose):
        """Attack, let the estimator judge, and refine where it disagrees with its view."""
        if diagnose and self._access == "gradients":
            diagnose_model(self, problem.access, problem.array)
        if np.max(self.eps) == 0:
            return AttackResult(problem.array.copy(), problem.is_adversarial(problem.array))
        everything = np.arange(len(problem))
        search = partial(self._attack_rows, problem, threat, seed)
        X_adv, claimed = search(everything, stop_on_success)
        success = problem.is_adversarial(X_adv)
        # The estimator has the last word. On the boundary, rounding may separate it from its view.
        rows = np.flatnonzero(claimed & ~success)
        if len(rows):
            X_adv[rows] = self._refine_unconfirmed(
                search, problem, threat, X_adv[rows], rows, stop_on_success=stop_on_success
            )
            # Re-evaluate the full array: near the decision boundary, predictions can depend on
            # batch composition.
            success = problem.is_adversarial(X_adv)
        # Never worse than doing nothing. The estimator's own predictions never hold already.
        if problem.labels_are_given and not success.all():
            already = ~success & problem.is_adversarial(problem.array)
            X_adv[already], success[already] = problem.array[already], True
        if diagnose and not problem.targeted:
            diagnose_result(self, threat, problem.array, success)
        return AttackResult(X_adv, success)

    def _attack_rows(self, problem, threat, seed, rows, stop_on_success):
        """Attack some of the rows in batches.

        Returns
        -------
        X_adv : ndarray of shape (n_rows, ...)
            Admissible points.

        claimed : bool ndarray of shape (n_rows,)
            Whether they are adversarial for the view.
        """
        X = torch.from_numpy(problem.array[rows])
        X_adv = torch.empty_like(X)
        claimed = np.zeros(len(rows), dtype=bool)
        size = resolve_batch_size(self.batch_size, X.shape[1:])
        name = type(self).__name__
        for part in batch_slices(len(rows), size, verbose=self.verbose, description=name):
            x = X[part].to(**problem.access.options)
            labels = torch.as_tensor(problem.index[rows[part]], device=x.device)
            feasible_set = self._feasible_set(threat, x)
            found, success = self._attack_batch(
                AttackBatch(
                    problem.access, feasible_set, labels, seed, problem.targeted, stop_on_success
                )
            )
            # Added in the precision of X, which keeps the features that do not change.
            X_adv[part] = X[part] + (found - x).to(X)
            claimed[part] = success.cpu().numpy()
        # In batches of their own: with a small batch_size, rounding would cost more than the steps.
        for part in batch_slices(len(rows), resolve_batch_size("auto", X.shape[1:])):
            X_adv[part] = threat.project_exactly(X_adv[part], X[part])
        return X_adv.numpy(), claimed

    def _refine_unconfirmed(self, search, problem, threat, X_adv, rows, *, stop_on_success):
        """Return other points for the rows where the estimator disagrees with its view.

        Parameters
        ----------
        search : callable
            From rows and ``stop_on_success`` to points and the verdict of the view.

        problem : AttackProblem

        threat : ThreatModel

        X_adv : ndarray of shape (n_rows, ...)
            Points that are adversarial for the view only.

        rows : int ndarray of shape (n_rows,)

        stop_on_success : bool

        Returns
        -------
        X_adv : ndarray of shape (n_rows, ...)
        """
        # A search that stopped at the first success goes on to the largest margin.
        return search(rows, False)[0] if stop_on_success else X_adv

    def _attack_batch(self, batch):
        """Attack one batch; the method that every attack implements.

        Parameters
        ----------
        batch : AttackBatch
            Model, feasible set, labels and settings.

        Returns
        -------
        x_adv : tensor of shape (n, ...)
            Best points found; the inputs where nothing is better.

        success : bool tensor of shape (n,)
            Whether the model falls for them.
        """
        raise NotImplementedError

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.estimator is None or not is_fitted(self.estimator)
        return tags
