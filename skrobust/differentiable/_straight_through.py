"""Steps without gradients: exact forwards, and straight through backwards."""

import torch

from ..exceptions import NotDifferentiableError
from ._modules import Chain, Float64, View, as_buffer


class StraightThrough(View):
    """A function without useful gradients, with those of another in their place.

    Forwards this is `exact`, to the last bit. Backwards it is `surrogate`, by default the
    identity: the backward pass differentiable approximation (BPDA) of [1]_, section 4.1. An
    attack then sees what the model computes, and is not stopped by a rounding, a discretization
    or another step that has zero gradients, or none.

    Parameters
    ----------
    exact : callable or torch.nn.Module
        From a tensor to a tensor; is run without gradients, and must leave its input as it is.
        Booleans and integers become numbers in the precision of the input.

    surrogate : callable or torch.nn.Module, default=None
        A differentiable function that is near to `exact` and gives the same shape; only its
        gradients are used. None means the identity, which needs an `exact` that keeps the shape.

    Raises
    ------
    TypeError
        If a parameter cannot be called, or `exact` does not give a tensor.
    ValueError
        In the forward pass, if the shape of the surrogate is not that of `exact`.

    See Also
    --------
    straight_through : The view of a transformer that keeps the number of features.

    References
    ----------
    .. [1] A. Athalye, N. Carlini, D. Wagner. "Obfuscated Gradients Give a False Sense of Security:
       Circumventing Defenses to Adversarial Examples". ICML 2018.

    Examples
    --------
    >>> import torch
    >>> from skrobust.differentiable import StraightThrough
    >>> is_positive = StraightThrough(lambda x: x > 0, torch.sigmoid)
    >>> x = torch.tensor([-1.0, 0.0, 3.0], requires_grad=True)
    >>> y = is_positive(x)
    >>> y.detach()
    tensor([0., 0., 1.])
    >>> torch.autograd.grad(y.sum(), x)
    (tensor([0.1966, 0.2500, 0.0452]),)
    """

    def __init__(self, exact, surrogate=None):
        super().__init__()
        for name, function in (("exact", exact), ("surrogate", surrogate)):
            if not (callable(function) or (name == "surrogate" and function is None)):
                raise TypeError(
                    f"{name} of StraightThrough must be a function of a tensor or a module, got "
                    f"{function!r}."
                )
        self.exact = exact
        self.surrogate = surrogate
        # Who saves the mode of the view, and restores it, then restores that of its modules.
        self.training = any(module.training for module in self.children())

    def forward(self, x):
        with torch.no_grad():
            exact = self.exact(x)
        if not isinstance(exact, torch.Tensor):
            raise TypeError(
                f"exact of StraightThrough must give a tensor, got {type(exact).__name__}."
            )
        if not exact.is_floating_point():
            exact = exact.to(x.dtype)
        if self.surrogate is None:
            surrogate = x
        elif torch.is_grad_enabled():
            surrogate = self.surrogate(x)
        else:
            return exact
        if surrogate.shape != exact.shape:
            name = "identity" if self.surrogate is None else "surrogate"
            raise ValueError(
                "surrogate of StraightThrough must give the shape that exact gives, which is "
                f"{tuple(exact.shape)}; the {name} gives {tuple(surrogate.shape)}. Give a "
                "surrogate of that shape."
            )
        return _Replace.apply(surrogate.to(exact), exact)


class _Replace(torch.autograd.Function):
    """The value of `exact` in the place of `surrogate`, which the gradient goes on to.

    ``surrogate + (exact - surrogate).detach()`` would round.
    """

    @staticmethod
    def forward(ctx, surrogate, exact):
        return exact.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def straight_through(transformer):
    """Return a view of any fitted transformer that keeps the number of features.

    Forwards the view gives what ``transformer.transform`` gives for a float64 array, to the last
    bit. Backwards it is the identity: the straight-through estimator, which is the backward pass
    differentiable approximation (BPDA) of [1]_, section 4.1. That suits a step whose output stays
    near to its input in the same units, as rounding, quantizing, denoising or added noise, and that
    is written in numpy or has no gradients.

    No transformer gets this view unasked: for most the identity is a wrong gradient. Mark it in
    one of two ways:

    - a class of your own by ``__to_torch__ = straight_through`` in its body;
    - a class of others by ``to_torch.register(Quantizer, straight_through)``.

    Parameters
    ----------
    transformer : fitted transformer
        Has a method ``transform``, which gives as many columns as it takes. One that was fitted on
        a DataFrame gets a DataFrame with the same column names.

    Returns
    -------
    view : torch.nn.Module
        It holds the transformer itself, no copy, and calls it at every forward pass. A transformer
        that draws random numbers in ``transform`` hence draws afresh each time. On an accelerator,
        the input travels to the CPU and back.

    Raises
    ------
    TypeError
        If `transformer` has no ``transform``.
    NotDifferentiableError
        In the forward pass, if ``transform`` changes the shape.

    See Also
    --------
    StraightThrough : Any function, with the gradients of any other.

    References
    ----------
    .. [1] A. Athalye, N. Carlini, D. Wagner. "Obfuscated Gradients Give a False Sense of Security:
       Circumventing Defenses to Adversarial Examples". ICML 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn.base import BaseEstimator, TransformerMixin
    >>> from skrobust.differentiable import straight_through, to_torch
    >>> class Quantizer(TransformerMixin, BaseEstimator):
    ...     def fit(self, X, y=None):
    ...         self.step_ = np.ptp(X, axis=0) / 16
    ...         return self
    ...
    ...     def transform(self, X):
    ...         return np.round(X / self.step_) * self.step_
    ...
    ...     __to_torch__ = straight_through
    >>> X = np.random.default_rng(0).normal(size=(20, 3))
    >>> quantizer = Quantizer().fit(X)
    >>> x = torch.tensor(X, requires_grad=True)
    >>> y = to_torch(quantizer)(x)
    >>> bool((y.detach().numpy() == quantizer.transform(X)).all())
    True
    >>> torch.autograd.grad(y.sum(), x)[0][0]
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    if not hasattr(transformer, "transform"):
        raise TypeError(
            f"straight_through needs a fitted transformer, got {transformer!r}, which has no "
            "method transform."
        )
    return StraightThrough(Chain(Float64(), _Transform(transformer)))


class _Transform(View):
    """What a transformer gives for arrays."""

    def __init__(self, transformer):
        super().__init__()
        self.transformer = transformer

    def forward(self, x):
        # A copy, for transformers that work in place.
        X = x.detach().cpu().numpy().copy()
        names = getattr(self.transformer, "feature_names_in_", None)
        if names is not None:
            # Fitted on a data frame, it would warn of an array, or look for its columns in vain.
            import pandas as pd

            X = pd.DataFrame(X, columns=names)
        output = as_buffer(self.transformer.transform(X)).to(x)
        if output.shape != x.shape:
            name = type(self.transformer).__name__
            raise NotDifferentiableError(
                f"{name} has no straight-through view: its transform makes {tuple(output.shape)} "
                f"of {tuple(x.shape)}, and the identity, whose gradients it would take, keeps the "
                f"shape. Register a view of its own with @to_torch.register({name}): "
                "StraightThrough(exact, surrogate), with a differentiable surrogate that gives the "
                "shape of the output."
            )
        return output
