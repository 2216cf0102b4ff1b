"""Views of support vector machines with kernels."""

from itertools import combinations

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.svm import SVC, NuSVC
from torch import nn

from ..exceptions import NotDifferentiableError
from ..utils._sklearn import gamma_of
from ._modules import Chain, Linear, View, as_buffer
from ._registry import cure, to_torch
from ._straight_through import StraightThrough


@to_torch.register(SVC)
@to_torch.register(NuSVC)
def _(estimator):
    kernel = estimator.kernel
    if not isinstance(kernel, str) or kernel not in _KERNELS:
        raise NotDifferentiableError(
            f"{type(estimator).__name__} has a differentiable view only for the kernels "
            f"{', '.join(map(repr, _KERNELS))}, and was fitted with kernel={kernel!r}. "
            f"{cure(estimator)}"
        )
    weight, bias = _one_vs_one(estimator), estimator.intercept_
    vectors = _dense(estimator.support_vectors_)
    n_classes = len(estimator.classes_)
    last = Linear.to_logits if n_classes == 2 else Linear
    if kernel == "linear":
        scores = [last(weight @ vectors, bias)]
    else:
        scores = [*_KERNELS[kernel](estimator, vectors), last(weight, bias)]
    if n_classes == 2:
        return Chain(*scores)
    votes = StraightThrough(Votes(n_classes, estimator.break_ties), SoftVotes(n_classes))
    return Chain(*scores, votes)


def _one_vs_one(estimator):
    """Weights of the support vectors in the score of each pair of classes, one row a pair."""
    dual = _dense(estimator.dual_coef_)
    n_classes = len(estimator.classes_)
    owner = np.repeat(np.arange(n_classes), estimator.n_support_)
    # libsvm keeps for each vector the n_classes - 1 weights against the other classes, in their
    # order. Class j comes one place earlier for the vectors of class i < j, which leave out i.
    return np.stack(
        [
            np.where(owner == i, dual[j - 1], 0.0) + np.where(owner == j, dual[i], 0.0)
            for i, j in combinations(range(n_classes), 2)
        ]
    )


def _dense(array):
    return array.toarray() if issparse(array) else array


_KERNELS = {
    "linear": None,  # is multiplied out
    "rbf": lambda svm, vectors: [GaussianKernel(vectors, gamma_of(svm))],
    "poly": lambda svm, vectors: [Linear(gamma_of(svm) * vectors, svm.coef0), Power(svm.degree)],
    "sigmoid": lambda svm, vectors: [Linear(gamma_of(svm) * vectors, svm.coef0), nn.Tanh().eval()],
}


class GaussianKernel(View):
    """``exp(-gamma * |x - v|^2)`` for each of several vectors `v`.

    The square is multiplied out, which makes a matrix product of it. Centering the input first
    keeps the terms from cancelling.
    """

    def __init__(self, vectors, gamma):
        super().__init__()
        center = vectors.mean(axis=0)
        vectors = vectors - center
        self.gamma = float(gamma)
        self.register_buffer("center", as_buffer(center))
        self.register_buffer("linear", as_buffer(2 * gamma * vectors.T))
        self.register_buffer("bias", as_buffer(-gamma * np.square(vectors).sum(axis=1)))

    def forward(self, x):
        x = x.to(self.center) - self.center
        exponent = torch.addmm(self.bias, x, self.linear)
        # In place: the matrix has a column for each vector, and the memory is what takes the time.
        return exponent.sub_(self.gamma * x.square().sum(dim=1, keepdim=True)).exp_()


class Power(View):
    """The input to the power of an integer."""

    def __init__(self, degree):
        super().__init__()
        self.degree = degree

    def forward(self, x):
        return x.pow(self.degree)


class _OneVsOne(View):
    """Base of what makes one score a class of the scores of the pairs of classes.

    The score of the pair `(i, j)` with ``i < j`` is positive where `i` wins. The pairs are in
    lexicographic order.
    """

    signs: torch.Tensor

    def __init__(self, n_classes):
        super().__init__()
        pairs = list(combinations(range(n_classes), 2))
        signs = np.zeros((len(pairs), n_classes))
        for row, (i, j) in enumerate(pairs):
            signs[row, i], signs[row, j] = 1.0, -1.0
        self.register_buffer("signs", as_buffer(signs))

    def votes(self, won):
        """Number of pairs that each class wins, given 1 where the first wins and else -1.

        Numbers between count in part.
        """
        n_classes = self.signs.shape[1]
        return (won @ self.signs + (n_classes - 1)) / 2


class Votes(_OneVsOne):
    """Votes of the pairs, plus a confidence below 1/3.

    That is ``decision_function`` with ``decision_function_shape="ovr"``. Where the first places
    are tied in votes, the confidence decides with `break_ties`. Without, the first class in order
    wins; where that is another one, the two exchange their scores.
    """

    def __init__(self, n_classes, break_ties):
        super().__init__(n_classes)
        self.break_ties = break_ties

    def forward(self, x):
        # A pair without a winner counts for its first class here, and for its second in predict.
        votes = self.votes(torch.where(x < 0, -1.0, 1.0).to(x))
        total = x @ self.signs
        scores = votes + total / (3 * (total.abs() + 1))
        if self.break_ties:
            return scores
        winner = self.votes(torch.where(x > 0, 1.0, -1.0).to(x)).argmax(dim=1, keepdim=True)
        highest, leader = scores.max(dim=1, keepdim=True)
        scores = scores.scatter(1, leader, scores.gather(1, winner))
        return scores.scatter(1, winner, highest)


class SoftVotes(_OneVsOne):
    """What stands in for the votes backwards: every pair pulls with the inverse of its distance.

    The area hyperbolic sine of a score `s` has the slope ``1 / |s|``, up to a limit near zero. So
    those pairs count most that are nearly lost or won. A step by linear approximation to the loss
    of one vote comes out right, as it takes the length ``|s|`` in units of the score.
    """

    # Measured with PGD and DeepFool on four kernels and four data sets. The plain sum of the
    # scores leaves PGD three more points of accuracy, as it also pulls at pairs that are decided.
    # Sigmoids are as good there, but so flat far away that the steps of DeepFool become twice to
    # a hundred times too long.
    slope = 10.0

    def forward(self, x):
        return self.votes(torch.asinh(self.slope * x))
