"""``to_torch`` and the registry behind it."""

from collections.abc import Callable
from functools import singledispatch
from typing import Any, Protocol

from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ..exceptions import NotDifferentiableError


class _Registry(Protocol):
    """A function that ``@function.register(cls)`` extends to a class."""

    register: Callable[..., Any]

    def __call__(self, estimator: Any) -> nn.Module: ...


@singledispatch
def _build(estimator):
    """Fall-back of the registry: the class of the estimator is unknown."""
    raise NotDifferentiableError(
        f"{type(estimator).__name__} has no differentiable view. {cure(estimator)}"
    )


def _with_registry(function) -> _Registry:
    function.register = _build.register
    return function


@_with_registry
def to_torch(estimator):
    """Return a differentiable view of a fitted estimator.

    The view is a :class:`torch.nn.Module` that maps the raw input of `estimator` to the logits of
    a classifier, or to the transformed array of a transformer. Attacks and verifiers look at an
    estimator through its view.

    Parameters
    ----------
    estimator : estimator object or torch.nn.Module
        A fitted estimator, or a bare module that gives logits. An estimator can say by a method
        ``__to_torch__()`` how it looks in torch. Otherwise its class, or the nearest base class,
        must be registered. Registered are

        - modules: :class:`torch.nn.Module`, :class:`skorch.NeuralNetClassifier`,
          :class:`skorch.NeuralNetBinaryClassifier`;
        - classifiers: the linear ones, :class:`~sklearn.svm.SVC` and
          :class:`~sklearn.svm.NuSVC` with the named kernels,
          :class:`~sklearn.neural_network.MLPClassifier`,
          :class:`~sklearn.naive_bayes.GaussianNB`, linear and quadratic discriminant analysis;
        - transformers: the scalers, :class:`~sklearn.preprocessing.Normalizer`,
          :class:`~sklearn.preprocessing.PolynomialFeatures`,
          :class:`~sklearn.preprocessing.FunctionTransformer`,
          :class:`~sklearn.decomposition.PCA` and its relatives, all feature selectors;
        - transformers without gradients, which get those of a surrogate:
          :class:`~sklearn.preprocessing.KBinsDiscretizer`,
          :class:`~sklearn.preprocessing.Binarizer`,
          :class:`~sklearn.preprocessing.FunctionTransformer` with ``np.round`` and the like;
        - what is composed of those: :class:`~sklearn.pipeline.Pipeline`,
          :class:`~sklearn.pipeline.FeatureUnion`,
          :class:`~sklearn.compose.ColumnTransformer`, the hyper-parameter searches and
          :class:`~sklearn.frozen.FrozenEstimator`.

    Returns
    -------
    view : torch.nn.Module
        For a classifier, ``view(x)`` with `x` of shape `(n_samples, n_features)` gives logits of
        shape `(n_samples, n_classes)`, and for a transformer the transformed array.

    Raises
    ------
    NotDifferentiableError
        If the estimator, or a step of it, has no differentiable view.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    See Also
    --------
    skrobust.differentiable.straight_through : A view for quantizers and the like of your own.
    skrobust.differentiable.StraightThrough : Any function, with the gradients of any other.
    skrobust.exceptions.NotDifferentiableError : What is raised for an estimator without a view.

    Notes
    -----
    What a view guarantees, and what a builder that you register must guarantee:

    - There are two columns or more, in the order of ``classes_``, and the largest is what
      ``predict`` answers. The score `s` of a binary classifier becomes the columns `[0, s]`.
    - The differences of the logits are ``decision_function`` where the estimator has one (for
      support vector machines with kernels see below).
      The softmax of the logits is ``predict_proba`` where that is a softmax of scores; it is not
      for classifiers that are one-vs-rest, and not at a `threshold` other than 0.5.
    - A view computes in its own precision and on its own device, and casts its input to them.
      The views of scikit-learn estimators hold float64 buffers and no parameters; nets compute
      in their own precision. The scaler in front of a float32 net hence works in float64.
    - Building a view runs no module and changes none: the view of a net shares the parameters of
      the net, and runs it in the mode that it is in.
    - A view shows the estimator as it was when the view was built. Build a new one after
      another ``fit``.

    Steps without gradients, such as roundings, are exact forwards, and backwards a surrogate: the
    identity, or for :class:`~sklearn.preprocessing.KBinsDiscretizer` the linear interpolation
    between the centers of the bins. :class:`~sklearn.svm.SVC` and :class:`~sklearn.svm.NuSVC` of
    more than two classes count the votes of pairs of classes, which are steps too. The logits are
    ``decision_function`` with ``decision_function_shape="ovr"``, and the gradients those of votes
    that grow with the scores of the pairs. Where the first places are tied in votes and
    `break_ties` is False, ``predict`` answers the first class in order rather than the largest
    score; the logits of the two are exchanged there.

    A bare module gives logits: `(n_samples, n_classes)`, or `(n_samples, 1)` or `(n_samples,)`
    for the one logit of a binary problem; of a tuple the first counts. A skorch net says by its
    criterion whether its module gives logits or probabilities. The logits of a module that
    gives probabilities are their logarithm, where the gradients of confident predictions vanish.
    Only where the module is a :class:`torch.nn.Sequential` that ends in a
    :class:`torch.nn.Softmax` (or, for a single output, :class:`torch.nn.Sigmoid`) are the true
    logits at hand, and used. A `predict_nonlinearity` of your own must give probabilities.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skrobust.differentiable import to_torch
    >>> X, y = load_iris(return_X_y=True)
    >>> pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    >>> view = to_torch(pipeline)
    >>> logits = view(torch.from_numpy(X))
    >>> logits.shape
    torch.Size([150, 3])
    >>> bool((logits.argmax(dim=1).numpy() == pipeline.predict(X)).all())
    True

    A class that is not known yet is registered together with a function that builds its view:

    >>> from sklearn.neighbors import NearestCentroid
    >>> class NegativeDistances(torch.nn.Module):
    ...     def __init__(self, centroids):
    ...         super().__init__()
    ...         self.register_buffer("centroids", torch.tensor(centroids))
    ...
    ...     def forward(self, x):
    ...         return -torch.cdist(x.to(self.centroids), self.centroids)
    >>> @to_torch.register(NearestCentroid)
    ... def _(estimator):
    ...     return NegativeDistances(estimator.centroids_)
    >>> to_torch(NearestCentroid().fit(X, y))
    NegativeDistances()
    """
    if isinstance(estimator, type):
        raise TypeError(f"to_torch needs a fitted {estimator.__name__}, got the class itself.")
    if isinstance(estimator, BaseEstimator):
        check_is_fitted(estimator)
    # Looked up on the class, as Python does with its own special methods: meta-estimators that
    # pass attributes on (FrozenEstimator) do not seem to have the hook of what they wrap.
    if hasattr(type(estimator), "__to_torch__"):
        view = estimator.__to_torch__()
    else:
        view = _build(estimator)
    if not isinstance(view, nn.Module):
        raise TypeError(
            f"The view of {type(estimator).__name__} must be a torch.nn.Module, "
            f"got {type(view).__name__}."
        )
    return view


def cure(estimator):
    """Say what can be done about an estimator without a view; the end of an error message."""
    name = type(estimator).__name__
    by_hand = (
        f"Register a function that builds its view with @to_torch.register({name}), give it a "
        "method __to_torch__(), or attack a substitute that has a view, fitted to its predictions."
    )
    if not hasattr(estimator, "transform"):
        return by_hand
    return (
        f"{by_hand} If it gives nearly what it takes (rounding, denoising, noise), "
        f"to_torch.register({name}, straight_through) is enough."
    )


@singledispatch
def transform_to_torch(estimator):
    """Return the view of ``estimator.transform``, for use inside of composite estimators.

    It differs from :func:`to_torch` where an estimator both predicts and transforms: the view of
    a discriminant analysis gives logits, but in the middle of a pipeline it projects.
    """
    if isinstance(estimator, BaseEstimator) and is_classifier(estimator):
        raise NotDifferentiableError(
            f"{type(estimator).__name__} is used as a transformer, and has a differentiable view "
            "only as a classifier. Attack a substitute, fitted to the predictions of the whole."
        )
    return to_torch(estimator)
