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
from ._registry import suggest_fix, to_torch
from ._straight_through import StraightThrough


@to_torch.register(SVC)
@to_torch.register(NuSVC)
def _(estimator):
    kernel = estimator.kernel
    if not isinstance(kernel, str) or kernel not in _KERNELS:
        raise NotDifferentiableError(
            f"{type(estimator).__name__} has a differentiable view only for the kernels "
            f"{', '.join(map(repr, _KERNELS))}, and was fitted with kernel={kernel!r}. "
            f"{suggest_fix(estimator)}"
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
    votes = StraightThrough(PairVotes(n_classes, estimator.break_ties), SoftPairVotes(n_classes))
    return Chain(*scores, votes)


def _one_vs_one(estimator):
    """Return the weights of the support vectors in the score of each pair of classes, by row."""
    dual = _dense(estimator.dual_coef_)
    n_classes = len(estimator.classes_)
    owner = np.repeat(np.arange(n_classes), estimator.n_support_)
    # libsvm stores for each vector its n_classes - 1 weights against the other classes, in order of
    # the classes. A vector of class i has no weight against i, so its weight against a class j > i
    # is in row j - 1.
    return np.stack(
        [
            np.where(owner == i, dual[j - 1], 0.0) + np.where(owner == j, dual[i], 0.0)
            for i, j in combinations(range(n_classes), 2)
        ]
    )


def _dense(array):
    return array.toarray() if issparse(array) else array


_KERNELS = {
    "linear": None,  # the view multiplies the weights with the vectors
    "rbf": lambda svm, vectors: [GaussianKernel(vectors, gamma_of(svm))],
    "poly": lambda svm, vectors: [Linear(gamma_of(svm) * vectors, svm.coef0), Power(svm.degree)],
    "sigmoid": lambda svm, vectors: [Linear(gamma_of(svm) * vectors, svm.coef0), nn.Tanh().eval()],
}


class GaussianKernel(View):
    """``exp(-gamma * |x - v|^2)`` for each of several vectors `v`.

    The square is expanded, so that it takes one matrix product. Centering the input first avoids
    cancellation between the terms.
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
        # In place: the matrix has a column for each vector, and memory traffic takes most time.
        return exponent.sub_(self.gamma * x.square().sum(dim=1, keepdim=True)).exp_()


class Power(View):
    """Integer power of the input."""

    def __init__(self, degree):
        super().__init__()
        self.degree = degree

    def forward(self, x):
        return x.pow(self.degree)


class _OneVsOne(View):
    """Base of modules that turn the scores of pairs of classes into one score per class.

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
        """Return the number of pairs that each class wins.

        `won` is 1 where the first class of a pair wins and -1 where the second wins. Values in
        between are fractions of a vote for both.
        """
        n_classes = self.signs.shape[1]
        return (won @ self.signs + (n_classes - 1)) / 2


class PairVotes(_OneVsOne):
    """Number of pairs that each class wins, plus a confidence below 1/3.

    This is ``decision_function`` with ``decision_function_shape="ovr"``. If several classes have
    the most votes and `break_ties` is set, the highest confidence decides. Without `break_ties`,
    ``predict`` returns the first of these classes; the scores of this class and of the class with
    the highest score are exchanged, so that the largest logit is always the predicted class.
    """

    def __init__(self, n_classes, break_ties):
        super().__init__(n_classes)
        self.break_ties = break_ties

    def forward(self, x):
        # A score of 0 is a vote for the first class here, and for the second class in predict.
        votes = self.votes(torch.where(x < 0, -1.0, 1.0).to(x))
        total = x @ self.signs
        scores = votes + total / (3 * (total.abs() + 1))
        if self.break_ties:
            return scores
        winner = self.votes(torch.where(x > 0, 1.0, -1.0).to(x)).argmax(dim=1, keepdim=True)
        highest, leader = scores.max(dim=1, keepdim=True)
        scores = scores.scatter(1, leader, scores.gather(1, winner))
        return scores.scatter(1, winner, highest)


class SoftPairVotes(_OneVsOne):
    """Differentiable surrogate of the votes, whose slope is the inverse of the score of a pair.

    The inverse hyperbolic sine of a score `s` has the slope ``1 / |s|``, up to a limit near zero.
    So the pairs that are closest to a tie have the largest gradients. A linear approximation with
    this slope says that one vote changes after a step of length ``|s|`` in units of the score,
    which is the right length.
    """

    # Measured with PGD and DeepFool on four kernels and four data sets. With the plain sum of the
    # scores, accuracy under PGD is three points higher: pairs that are already decided have large
    # gradients, too. Sigmoids are as good for PGD, but so flat far from zero that the steps of
    # DeepFool become 2 to 100 times too long.
    slope = 10.0

    def forward(self, x):
        return self.votes(torch.asinh(self.slope * x))
