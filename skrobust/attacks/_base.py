"""What all attacks have in common, once for all of them."""

from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from ..exceptions import NotDifferentiableError
from ..threat import LP_NORMS, ThreatModel
from ..utils._batching import batch_slices, resolve_batch_size
from ..utils._containers import FLOATS, column_names, is_dataframe, like, take_rows
from ..utils._random import draw_seed, isolated_rng
from ..utils._sklearn import HasMethods, Interval, StrOptions, fit_context
from ..utils._torch import is_fitted
from ._access import find_access
from ._diagnosis import diagnose_model, diagnose_result
from ._target import Target


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
    """Base class of all attacks: everything but what is done to one batch of tensors.

    A subclass assigns its parameters in ``__init__``, extends ``_parameter_constraints`` and
    implements ``_attack_batch``. It gets: validated inputs and labels, batches, a view of the
    estimator in evaluation mode with frozen parameters, seeds; and it has the guarantees of
    :meth:`perturb`.
    """

    _access = "gradients"
    _diagnoses: tuple = ("model", "result")  # what to warn of

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
            Something makes the attack weaker than it looks; see :mod:`skrobust.exceptions`.
        """
        result = self.run(estimator, X, y, y_target=y_target)
        return like(X, result.X_adv)

    def run(self, estimator, X, y=None, *, y_target=None, stop_on_success=None):
        """Attack and say where it succeeded: what :meth:`perturb` and the scores have in common.

        Parameters
        ----------
        estimator, X, y, y_target
            As for :meth:`perturb`.

        stop_on_success : bool, default=None
            Whether to leave a sample alone once it has fallen. None means the attack's own
            parameter of that name, or False.

        Returns
        -------
        result : AttackResult
            ``X_adv`` is an ndarray, and ``success`` the verdict of the estimator's ``predict``.
        """
        self._validate_params()
        if stop_on_success is None:
            stop_on_success = getattr(self, "stop_on_success", False)
        target, array, threat = self._check_inputs(estimator, X)
        model = self._access_to(target, X, array)
        seed = draw_seed(self.random_state)
        n_rows = min(len(array), resolve_batch_size(self.batch_size, array.shape[1:]))
        with isolated_rng(seed, model.options["device"]), model.prepared(n_rows):
            if self._access == "gradients" and "model" in self._diagnoses:
                diagnose_model(self, model, array)
            goal = make_goal(target, X, array, y, y_target)

            def reached(X_new, rows):
                frame = like(take_rows(X, rows), X_new) if is_dataframe(X) else X_new
                return goal.reached(target.predict(frame), rows)

            everything = np.arange(len(array))
            if np.max(self.eps) == 0:  # there is nowhere to go
                return AttackResult(array.copy(), reached(array, everything))
            search = partial(self._search, model, array, goal, threat, seed)
            X_adv, claimed = search(everything, stop_on_success)
            success = reached(X_adv, everything)
            # The estimator has the last word. It may disagree with its view, by a rounding on the
            # boundary.
            doubtful = np.flatnonzero(claimed & ~success)
            if len(doubtful):
                insist = partial(self._insist, search, threat, stop_on_success=stop_on_success)
                X_adv[doubtful] = insist(array, X_adv, doubtful, reached)
                # All of it, as whoever gets it will ask: on the boundary, the rows that are asked
                # for together can make the difference.
                success = reached(X_adv, everything)
            # Never worse than doing nothing.
            if goal.may_hold_already and not success.all():
                already = ~success & reached(array, everything)
                X_adv[already], success[already] = array[already], True
        if "result" in self._diagnoses and not goal.targeted:
            diagnose_result(self, threat, array, success)
        return AttackResult(X_adv, success)

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

    def _check_inputs(self, estimator, X):
        """What is attacked, the values of the inputs, and what can be done to them."""
        target = Target(estimator)
        array = check_array(X, dtype=FLOATS, allow_nd=True, estimator=self, input_name="X")
        target.check_X(X, array)
        threat = self._threat(column_names(X))
        threat.check_inputs(array)
        return target, array, threat

    def _threat(self, feature_names):
        return ThreatModel(self.eps, self.norm, self.bounds, self.mask, feature_names=feature_names)

    def _around(self, threat, x):
        """The geometry that :meth:`_attack_batch` gets."""
        return threat.around(x)

    def _access_to(self, target, X, array):
        access = find_access(target, X, array)
        if self._access in access.gives:
            return access
        name = type(self).__name__
        if self._access == "gradients":
            others = "Square, " if "scores" in access.gives else ""
            raise NotDifferentiableError(
                f"{name} needs the gradients of the estimator. {access.reason} Or use an attack "
                f"that needs none: {others}HopSkipJump, or AutoAttack, which finds out by itself."
            ) from access.reason
        raise TypeError(
            f"{name} needs the scores of the estimator: a decision_function or predict_proba with "
            f"one column for each class, and {type(target.estimator).__name__} has none. Use "
            "HopSkipJump, which needs nothing but predict."
        )

    def _search(self, model, array, goal, threat, seed, rows, stop_on_success):
        """Attack some of the rows in batches; admissible points and the view's verdict."""
        X = torch.from_numpy(array[rows])
        X_adv = torch.empty_like(X)
        claimed = np.zeros(len(rows), dtype=bool)
        size = resolve_batch_size(self.batch_size, array.shape[1:])
        name = type(self).__name__
        for batch in batch_slices(len(rows), size, verbose=self.verbose, description=name):
            x = X[batch].to(**model.options)
            found, success = self._attack_batch(
                model,
                self._around(threat, x),
                torch.as_tensor(goal.index[rows[batch]], device=x.device),
                seed=seed,
                targeted=goal.targeted,
                stop_on_success=stop_on_success,
            )
            # The perturbation is added in the precision of X, which keeps what it leaves alone.
            X_adv[batch] = X[batch] + (found - x).to(X)
            claimed[batch] = success.cpu().numpy()
        # Its own batches: the rounding of many small ones would cost more than their steps.
        for batch in batch_slices(len(rows), resolve_batch_size("auto", array.shape[1:])):
            X_adv[batch] = threat.inside(X_adv[batch], X[batch])
        return X_adv.numpy(), claimed

    def _insist(self, search, threat, array, X_adv, rows, reached, *, stop_on_success):
        """Other points for the rows where the estimator disagrees with its view."""
        # One that stopped at the first success searches on for a clear case.
        return search(rows, False)[0] if stop_on_success else X_adv[rows]

    def _attack_batch(self, model, region, labels, *, seed, targeted, stop_on_success):
        """Attack one batch.

        Parameters
        ----------
        model : access
            What stands for the estimator: ``model(z)`` gives logits of shape (n, n_classes >= 2)
            and the function that pulls directions back to inputs, ``model.logits(z)`` the logits
            alone, ``model.decide(z)`` class indices. An attack may ask for what its ``_access``
            declares: "gradients", "scores" (the latter two) or "decisions" (the last).

        region : Region
            The admissible points around the batch ``region.x``.

        labels : int64 tensor of shape (n,)
            Classes to leave, or to reach where ``targeted``.

        seed : int
            For all that is random.

        targeted, stop_on_success : bool
            With ``stop_on_success`` any adversarial point will do; else the strongest is wanted.

        Returns
        -------
        x_adv : tensor of shape (n, ...)
            Best points found; ``region.x`` where nothing is better.

        success : bool tensor of shape (n,)
            Whether the model falls for them.
        """
        raise NotImplementedError

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.estimator is None or not is_fitted(self.estimator)
        return tags


@dataclass(frozen=True)
class _Goal:
    """What counts as success: predictions that differ from ``labels``, or equal them."""

    labels: np.ndarray
    index: np.ndarray
    targeted: bool
    may_hold_already: bool

    def reached(self, predicted, rows):
        return (predicted == self.labels[rows]) == self.targeted


def make_goal(target, X, array, y, y_target):
    """The labels to leave, or to reach, checked and encoded."""
    targeted = y_target is not None
    if targeted:
        y_target = np.asarray(y_target)
        labels = np.full(len(array), y_target) if y_target.ndim == 0 else column_or_1d(y_target)
    elif y is not None:
        labels = column_or_1d(y)
    else:
        labels = target.predict(X if is_dataframe(X) else array)
    name = "y_target" if targeted else "y"
    if len(labels) != len(array):
        raise ValueError(
            f"{name} must have one label per sample of X: got {len(labels)} labels for "
            f"{len(array)} samples."
        )
    index = target.encode(labels, array, name)
    return _Goal(labels, index, targeted, may_hold_already=targeted or y is not None)
