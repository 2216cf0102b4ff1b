"""The function ``to_torch``, and its registry of classes."""

from collections.abc import Callable
from functools import singledispatch
from typing import Any, Protocol

from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ..exceptions import NotDifferentiableError


class _Registry(Protocol):
    """Function that ``@function.register(cls)`` extends to another class."""

    register: Callable[..., Any]

    def __call__(self, estimator: Any) -> nn.Module: ...


@singledispatch
def _build(estimator):
    """Raise an error: the class of the estimator is not registered."""
    raise NotDifferentiableError(
        f"{type(estimator).__name__} has no differentiable view. {suggest_fix(estimator)}"
    )


def _with_registry(function) -> _Registry:
    function.register = _build.register
    return function


@_with_registry
def to_torch(estimator):
    """Return a differentiable view of a fitted estimator.

    The view is a :class:`torch.nn.Module` that maps the raw input of `estimator` to the logits of
    a classifier, or to the transformed array of a transformer. Attacks and verifiers compute with
    the view of an estimator.

    Parameters
    ----------
    estimator : estimator object or torch.nn.Module
        A fitted estimator, or a bare module that gives logits. The view of an estimator is what its
        method ``__to_torch__()`` returns, if it has one. Otherwise its class, or the nearest base
        class, must be registered. Registered are torch modules, skorch classifiers, and the
        estimators of scikit-learn that compute differentiable functions: linear classifiers,
        kernel machines, perceptrons, scalers, projections, feature selectors. Step functions such
        as discretizers have the gradients of a surrogate. Composite estimators have a view if
        their parts have one.

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
    skrobust.differentiable.straight_through : View of quantizers and similar transformers.
    skrobust.differentiable.StraightThrough : Any function with the gradients of any other.
    skrobust.exceptions.NotDifferentiableError : Error for an estimator without a view.

    Notes
    -----
    A view guarantees the following, and so must a builder that you register:

    - The logits have two columns or more, in the order of ``classes_``, and the largest one is the
      class that ``predict`` returns. The score `s` of a binary classifier becomes the columns
      `[0, s]`.
    - The differences of the logits are ``decision_function`` where the estimator has one (for
      support vector machines with kernels see below). The softmax of the logits is
      ``predict_proba`` where ``predict_proba`` is a softmax of scores; it is not for one-vs-rest
      classifiers, and not at a `threshold` other than 0.5.
    - A view computes in its own precision and on its own device, and casts its input to them. The
      views of scikit-learn estimators have float64 buffers and no parameters; nets compute in
      their own precision. So the view of a scaler in front of a float32 net works in float64.
    - Building a view runs no module and changes none: the view of a net shares the parameters of
      the net, and runs it in its current mode.
    - A view represents the estimator at the time when the view was built. Build a new one after
      another ``fit``.

    Functions without useful gradients, such as rounding, are exact in the forward pass; in the
    backward pass they have the gradient of a surrogate. The surrogate is the identity, or for
    :class:`~sklearn.preprocessing.KBinsDiscretizer` the linear interpolation between the centers of
    the bins. :class:`~sklearn.svm.SVC` and :class:`~sklearn.svm.NuSVC` with more than two classes
    count the votes of pairs of classes, which is a step function, too. Their logits are
    ``decision_function`` with ``decision_function_shape="ovr"``, and their gradients come from
    votes that grow smoothly with the scores of the pairs. If several classes have the most votes
    and `break_ties` is False, ``predict`` returns the first of them, which need not have the
    largest score; the view then exchanges the logits of these two classes.

    A bare module gives logits of shape `(n_samples, n_classes)`, or one logit of a binary problem
    in the shape `(n_samples, 1)` or `(n_samples,)`; of a tuple, the first output is used. For a
    skorch net, the criterion decides whether its module gives logits or probabilities. If a module
    gives probabilities, their logarithms are the logits, and the gradients of confident
    predictions vanish. The exception is a :class:`torch.nn.Sequential` that ends in a
    :class:`torch.nn.Softmax` (or, for a single output, :class:`torch.nn.Sigmoid`): the view uses
    the true logits before this layer. A `predict_nonlinearity` of your own must give probabilities.

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

    Register another class together with a function that builds its view:

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
    # Look up the method on the class, as Python does with special methods: a meta-estimator that
    # forwards attributes (FrozenEstimator) must not appear to have the method of its estimator.
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


def registered_classes():
    """Return the classes that are registered with :func:`to_torch`.

    Returns
    -------
    classes : list of type
        Sorted by module and name. Subclasses of these have a view, too.
    """
    classes = set(_build.registry) - {object}
    return sorted(classes, key=lambda cls: (cls.__module__, cls.__qualname__))


def suggest_fix(estimator):
    """Return the end of an error message about an estimator without a view: the ways to fix it."""
    name = type(estimator).__name__
    fixes = (
        f"Register a function that builds its view with @to_torch.register({name}), give it a "
        "method __to_torch__(), or attack a substitute that has a view, fitted to its predictions."
    )
    if not hasattr(estimator, "transform"):
        return fixes
    return (
        f"{fixes} If its output stays near its input (rounding, denoising, noise), "
        f"to_torch.register({name}, straight_through) is enough."
    )


@singledispatch
def transform_to_torch(estimator):
    """Return the view of ``estimator.transform``, for the parts of composite estimators.

    It differs from :func:`to_torch` for estimators that both predict and transform: the view of a
    linear discriminant analysis gives logits, but in the middle of a pipeline it projects.
    """
    if isinstance(estimator, BaseEstimator) and is_classifier(estimator):
        raise NotDifferentiableError(
            f"{type(estimator).__name__} is used as a transformer, and has a differentiable view "
            "only as a classifier. Attack a substitute model, fitted to the predictions of the "
            "composite estimator."
        )
    return to_torch(estimator)
