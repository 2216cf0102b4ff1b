"""AutoAttack: an ensemble whose members attack the points that the others have left."""

import torch

from ..threat import LP_NORMS
from ..utils._batching import batch_slices, resolve_batch_size
from ..utils._rows import rows_where
from ..utils._sklearn import StrOptions
from ._apgd import APGD
from ._fab import FAB
from ._fmn import FMN
from ._hop_skip_jump import HopSkipJump
from ._pgd import PGD
from ._square import Square
from .core._base import AttackResult, BaseAttack
from .core._best_points import BestPoints
from .core._diagnosis import diagnose_model, diagnose_result, warn_masked
from .core._losses import Margin

# If scores alone find more than this share of the points, the gradients of the model are masked.
# The short runs of "fast" miss more points by chance.
_MASKED_SHARE = {"standard": 0.01, "fast": 0.05, "rand": 0.01}


class AutoAttack(BaseAttack):
    """Ensemble of attacks without parameters to tune; each attacks the points that still stand.

    Parameters
    ----------
    {estimator}

    {eps}

    {norm}

    {bounds}

    {mask}

    version : {"standard", "fast", "rand"}, default="standard"
        The members, for an estimator with gradients:

        - "standard" [1]_, [2]_: :class:`APGD` on the cross-entropy, targeted :class:`APGD` on the
          difference of logits ratio, targeted :class:`FAB`, :class:`FMN` (not in the papers) and
          :class:`Square`; 100 steps and one restart for each of up to nine target classes, 5,000
          queries, and 200 steps of FMN, with 1,000 and 1,500 more where the margin has come down to
          0.8 and 0.3 of the margin of the input.
        - "fast": nearly always the same verdict, at a fraction of the cost; see Notes.
        - "rand", for models that are random themselves: :class:`APGD` on the cross-entropy and on
          the difference of logits ratio, with gradients averaged over 20 passes.

        An estimator without gradients is attacked through its scores, by :class:`Square` and then
        :class:`HopSkipJump`, with 5,000 queries each ("fast": 1,000). An estimator without scores
        is attacked through its decisions, by :class:`HopSkipJump` with 15,000 queries ("fast":
        3,000). :class:`HopSkipJump` does not support ``norm="l1"``: there, scores are needed, and
        :class:`Square` is the only member.

    {batch_size}

    {verbose}

    {random_state}

    Attributes
    ----------
    {estimator_}

    {n_features_in_}

    {feature_names_in_}

    See Also
    --------
    skrobust.metrics.robust_accuracy_score : Accuracy under this attack, by default.
    skrobust.exceptions.MaskedGradientsWarning : Square finds points that the others do not.

    Notes
    -----
    Members always stop at the first success for each point, whatever ``stop_on_success``. The
    result for each point is the adversarial example of the first member that found one; where none
    did, it is the point of the largest margin that any member returned.

    "fast" takes 30 steps of :class:`APGD` and short runs of :class:`PGD` that restart at the best
    point: on models that mask their gradients, these find more than long runs or other losses. The
    expensive members run only on points near the boundary, whose margin has come down to about a
    fifth of the margin of the input: :class:`FMN` (in l2 and l1 also on points farther away, with
    fewer restarts), and after 300 queries of :class:`Square` another 5,000 (at most 8 per feature).
    Nearly all points that only a long search finds are among these. Both versions find the same
    there, because these members have the same seeds in both. On 1,000 points and an adversarially
    trained network for MNIST, "fast" had the verdict of "standard" on 99.9 to 100 % of the points
    (linf 0.3, l2 2.0, l1 10; two seeds), in about a quarter of the CPU time of the standard
    ensemble of another library (benchmarks/RESULTS.md).

    :class:`FMN` is in "standard" because it is by far the strongest member in l2 and l1: on that
    network it left 2 % standing at l2 2.0, where the other four left 10 %.

    With two classes, the margin replaces the difference of logits ratio. Its gradient has the
    direction of the cross-entropy: the second member is then another run of the first from other
    starting points. With three classes the denominator is the difference of the first and the third
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

    _access = "any"

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
        super().__init__(estimator, eps, norm, bounds, mask, batch_size, verbose, random_state)
        self.version = version

    def _check_access(self, problem):
        if not self._kinds(problem.access):
            raise TypeError(
                f"AutoAttack with norm={self.norm!r} needs gradients or scores of the estimator: a "
                "differentiable view (skrobust.to_torch), or decision_function or predict_proba "
                "with one column for each class. This one gives neither. Use norm='linf' or 'l2', "
                "for which decisions suffice."
            )

    def _attack(self, problem, threat, seed, stop_on_success, diagnose):
        """Let each member attack the points that still stand; see :meth:`BaseAttack._attack`."""
        best = EnsembleBest(problem, resolve_batch_size(self.batch_size, problem.array.shape[1:]))
        by_gradients = "gradients" in problem.access.provides
        members = self._members(problem, seed)
        if diagnose and by_gradients:
            diagnose_model(members[0][0], problem.access, problem.array)
        n_by_scores = 0
        for member, nearby in members:
            rows = best.standing(nearby)
            if not len(rows):
                continue
            part = problem.take(rows)
            result = member.run_problem(part, stop_on_success=True, diagnose=False)
            best.update(rows, part, result)
            n_by_scores += result.success.sum() if isinstance(member, Square) else 0
        # Re-evaluate the full array: near the decision boundary, predictions can depend on batch
        # composition.
        X_adv = best.points.point.numpy()
        success = problem.is_adversarial(X_adv)
        if diagnose and not problem.targeted:
            diagnose_result(self, threat, problem.array, success)
            if by_gradients and n_by_scores > max(1, _MASKED_SHARE[self.version] * len(problem)):
                warn_masked(self, n_by_scores, len(problem))
        return AttackResult(X_adv, success)

    def _members(self, problem, seed):
        """Return the attacks in the order of their runs, and the points that each is for."""
        kinds = self._kinds(problem.access)
        members = []
        for i, (kind, parameters, *nearby) in enumerate(kinds):
            # Seeds count from the last member of a class, which is the longest: both versions then
            # find the same by the members that they share.
            n_later = sum(later is kind for later, *_ in kinds[i + 1 :])
            if nearby and kind is Square:
                n_queries = _QUERIES_PER_FEATURE * problem.array[0].size
                parameters = {"n_queries": min(parameters["n_queries"], n_queries)}
            member = kind(
                eps=self.eps,
                norm=self.norm,
                bounds=self.bounds,
                mask=self.mask,
                batch_size=self.batch_size,
                verbose=self.verbose,
                random_state=seed + _SEEDS_PER_MEMBER * n_later,
                **parameters,
            )
            members.append((member, nearby[0] if nearby else None))
        return members

    def _kinds(self, access):
        """Return class and parameters of each member for an access."""
        if "gradients" in access.provides:
            return _MEMBERS[self.version][self.norm]
        version = "fast" if self.version == "fast" else "standard"
        return _BLACK_BOX_MEMBERS[version][access.provides[0]][self.norm]


class EnsembleBest:
    """The best point of each row: one that fools ``predict``, else the one of largest margin.

    Margins are those of the access. Where it gives decisions alone, they are minus infinity.

    Parameters
    ----------
    problem : AttackProblem

    batch_size : int
        Rows per pass for the margins.
    """

    def __init__(self, problem, batch_size):
        self.batch_size = batch_size
        self.margin_at_input = self._margins(problem, problem.array)
        self.points = BestPoints(self.margin_at_input, point=torch.tensor(problem.array))

    def standing(self, nearby):
        """Return the rows that stand; with a number, those that have come near the boundary.

        Parameters
        ----------
        nearby : None or float
            Share of the input's margin down to which the margin of a row must have come. Nearly all
            rows that only a long search can still find are among these.

        Returns
        -------
        rows : int ndarray
        """
        standing = self.points.score < torch.inf
        if nearby is not None:
            standing &= self.points.score >= nearby * self.margin_at_input
        return rows_where(standing).numpy()

    def update(self, rows, problem, result):
        """Remember the points of a member for some of the rows.

        Parameters
        ----------
        rows : int ndarray

        problem : AttackProblem
            For these rows.

        result : AttackResult
        """
        margin = self._margins(problem, result.X_adv)
        # No point is better than one that fools the estimator.
        score = margin.masked_fill(torch.from_numpy(result.success).unsqueeze(1), torch.inf)
        point = torch.from_numpy(result.X_adv)
        self.points.update(score, torch.from_numpy(rows), point=point)

    @torch.no_grad()
    def _margins(self, problem, array):
        """Return the margins of points, of shape (n, 1)."""
        access = problem.access
        margins = torch.full((len(array), 1), -torch.inf, dtype=torch.float64)
        if "scores" not in access.provides:
            return margins
        for part in batch_slices(len(array), self.batch_size):
            z = torch.tensor(array[part], **access.options)
            index = torch.as_tensor(problem.index[part], device=z.device)
            loss = Margin(index, targeted=problem.targeted)
            margins[part] = loss.margin(access.logits(z)).to(margins)
        return margins


# A long random search takes at most this number of queries per feature.
_QUERIES_PER_FEATURE = 8

# Restarts have consecutive seeds.
_SEEDS_PER_MEMBER = 1000

# Class and parameters of each member. A third entry restricts it to points near the boundary: the
# share of the input's margin down to which the margin must have come.
_SHORT_PGD = (PGD, {"n_steps": 10, "n_restarts": 20, "restart_from": "best"})
_SQUARES = [(Square, {"n_queries": 300}), (Square, {"n_queries": 5000}, 0.2)]
_FMNS = [(FMN, {}), (FMN, {"n_restarts": 40}, 0.8), (FMN, {"n_restarts": 60}, 0.3)]
_FAST_L2_L1 = [(APGD, {"n_steps": 30}), *_FMNS, _SHORT_PGD, *_SQUARES]
_FAST_LINF = [(APGD, {"n_steps": 30}), _SHORT_PGD, (FMN, {"n_restarts": 12}, 0.15), *_SQUARES]
_STANDARD = [
    (APGD, {}),
    (APGD, {"loss": "dlr", "n_target_classes": 9}),
    (FAB, {}),
    *_FMNS,
    (Square, {}),
]
_RAND = [(APGD, {"eot_samples": 20}), (APGD, {"loss": "dlr", "eot_samples": 20})]

_MEMBERS: dict = {
    "standard": dict.fromkeys(LP_NORMS, _STANDARD),
    "fast": {"linf": _FAST_LINF, "l2": _FAST_L2_L1, "l1": _FAST_L2_L1},
    "rand": dict.fromkeys(LP_NORMS, _RAND),
}


def _black_box(by_scores, by_decisions):
    """Return the members for scores and for decisions by norm: HopSkipJump does not have l1."""
    return {
        "scores": {"linf": by_scores, "l2": by_scores, "l1": by_scores[:1]},
        "decisions": {"linf": by_decisions, "l2": by_decisions, "l1": []},
    }


_BLACK_BOX_MEMBERS: dict = {
    "standard": _black_box(
        [(Square, {}), (HopSkipJump, {"max_queries": 5000, "n_restarts": 3})],
        [(HopSkipJump, {"max_queries": 15_000, "n_restarts": 5})],
    ),
    "fast": _black_box(
        [(Square, {"n_queries": 1000}), (HopSkipJump, {"max_queries": 1000})],
        [(HopSkipJump, {"max_queries": 3000, "n_restarts": 3})],
    ),
}
