"""From the ``module`` parameter to a network that fits the data."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from math import prod

import torch
from torch import nn

from ..nn import CNN, MLP
from ..utils._torch import evaluation_mode

NAMED: dict[str, Callable[..., nn.Module]] = {"mlp": MLP, "cnn": CNN}


def build_module(module, parameters, *, input_shape, n_classes):
    """Instantiate ``module`` with what the data say and what the user says.

    Parameters
    ----------
    module : str, callable or torch.nn.Module
        Name, class, factory or instance; an instance is copied.

    parameters : dict
        The ``module__...`` parameters.

    input_shape : tuple of int
        Shape of one sample as the module gets it.

    n_classes : int

    Returns
    -------
    module : torch.nn.Module
    """
    if isinstance(module, nn.Module):
        if parameters:
            raise ValueError(
                f"module is an instance of {type(module).__name__}, which takes no parameters any "
                f"more; got {', '.join('module__' + name for name in parameters)}. Give the class "
                "instead."
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


def check_output(module, view, x, n_classes):
    """Raise a ValueError unless ``module`` takes the data and gives logits for the classes.

    The pass also initialises lazy layers. ``view`` is ``module`` behind all that comes before it.
    """
    name = type(module).__name__
    try:
        with torch.no_grad(), evaluation_mode(view):
            logits = view(x)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"module ({name}) does not take inputs of shape {tuple(x.shape[1:])}: {error} Its "
            "parameters n_features, input_shape and n_classes are filled in where it has them; "
            "set others by module__..., or input_shape, which reshapes each sample."
        ) from error
    if logits.shape != (len(x), n_classes):
        raise ValueError(
            f"module ({name}) must give {n_classes} logits per sample, one for each class in y "
            f"(or a single one for two classes); got an output of shape {tuple(logits.shape)} for "
            f"{len(x)} samples."
        )
