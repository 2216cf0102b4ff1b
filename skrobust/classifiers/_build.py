"""Preprocessor and module of a classifier, built to fit the data."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from math import prod

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter
from torch import nn

from ..nn import CNN, MLP
from ..utils._torch import evaluation_mode, input_options

NAMED: dict[str, Callable[..., nn.Module]] = {"mlp": MLP, "cnn": CNN}


def fit_preprocessor(preprocessor, X, y, sample_weight):
    """Fit a copy of the preprocessor, with the sample weights if its ``fit`` takes them."""
    if preprocessor is None:
        return None
    fitted, kept = clone(preprocessor), sample_weight > 0
    weighted = has_fit_parameter(fitted, "sample_weight")
    fitted.fit(X[kept], y[kept], **({"sample_weight": sample_weight[kept]} if weighted else {}))
    return fitted


def module_input_shape(classifier, X):
    """Return the shape of one sample as the module gets it."""
    shape, place = X.shape[1:], ""
    if classifier.preprocessor_ is not None:
        shape = classifier.preprocessor_.transform(X[:1]).shape[1:]
        place = " after the preprocessor"
    if classifier.input_shape is None:
        return shape
    input_shape = tuple(classifier.input_shape)
    if prod(input_shape) != prod(shape):
        raise ValueError(
            f"input_shape must hold as many values as a sample has: {input_shape} holds "
            f"{prod(input_shape)}, and a sample has {prod(shape)}{place}."
        )
    return input_shape


def build_module(module, parameters, *, input_shape, n_classes):
    """Create the module from the ``module`` parameter, the data and the user's parameters.

    Parameters
    ----------
    module : str, callable or torch.nn.Module
        Name, class, factory or instance. An instance is copied.

    parameters : dict
        The ``module__...`` parameters, without the prefix. They take precedence over values that
        are inferred from the data.

    input_shape : tuple of int
        Shape of one sample as the module gets it.

    n_classes : int
        Number of classes.

    Returns
    -------
    module : torch.nn.Module
    """
    if isinstance(module, nn.Module):
        if parameters:
            raise ValueError(
                f"module is an instance of {type(module).__name__}, whose parameters cannot be set "
                f"any more; got {', '.join('module__' + name for name in parameters)}. Give the "
                "class instead."
            )
        return deepcopy(module)
    factory = NAMED.get(module, module) if isinstance(module, str) else module
    if not callable(factory):
        raise ValueError(
            f"module must be one of {', '.join(map(repr, NAMED))}, a torch.nn.Module class, a "
            f"function that returns a module, or a module; got {module!r}."
        )
    inferred = {
        "n_features": prod(input_shape),
        "input_shape": tuple(input_shape),
        "n_classes": n_classes,
    }
    accepted = inspect.signature(factory).parameters
    built = factory(**{k: v for k, v in inferred.items() if k in accepted} | parameters)
    if not isinstance(built, nn.Module):
        raise TypeError(
            f"module must return a torch.nn.Module; {factory!r} returned a {type(built).__name__}."
        )
    return built


def check_output(module, view, X, n_classes):
    """Raise a ValueError unless ``module`` accepts the data and returns one logit per class.

    This forward pass also initialises lazy layers.

    Parameters
    ----------
    module : torch.nn.Module
        Module to name in errors.

    view : torch.nn.Module
        Preprocessor, reshaping and ``module``.

    X : ndarray of shape (n_samples, ...)
        A few inputs.

    n_classes : int
        Number of classes.
    """
    name = type(module).__name__
    x = torch.as_tensor(np.array(X), **input_options(view))
    try:
        with torch.no_grad(), evaluation_mode(view):
            logits = view(x)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"module ({name}) does not take inputs of shape {tuple(x.shape[1:])}: {error} If the "
            "module has parameters named n_features, input_shape or n_classes, they are set from "
            "the data. Set others by module__<name>, or use input_shape to reshape each sample."
        ) from error
    if logits.shape != (len(x), n_classes):
        raise ValueError(
            f"module ({name}) must give {n_classes} logits per sample, one for each class in y "
            f"(or a single logit for two classes); got an output of shape {tuple(logits.shape)} "
            f"for {len(x)} samples."
        )
