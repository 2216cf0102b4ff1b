"""Functions without useful gradients: exact forward, and backward by a surrogate."""

import torch

from ..exceptions import NotDifferentiableError
from ._modules import Chain, Float64, View, as_buffer


class StraightThrough(View):
    """Function without useful gradients, combined with the gradients of a surrogate function.

    The forward pass gives `exact`, to the last bit. The backward pass uses the gradient of
    `surrogate`, by default the identity: the backward pass differentiable approximation (BPDA) of
    [1]_, section 4.1. So an attack evaluates the true model, and is not stopped by rounding,
    discretization or another function whose gradients are zero or undefined.

    Parameters
    ----------
    exact : callable or torch.nn.Module
        From a tensor to a tensor. It runs without gradients, and must not modify its input.
        Boolean and integer outputs are cast to the dtype of the input.

    surrogate : callable or torch.nn.Module, default=None
        Differentiable function that approximates `exact` and gives the same shape; only its
        gradients are used. None means the identity, which needs an `exact` that keeps the shape.

    Raises
    ------
    TypeError
        If a parameter cannot be called, or `exact` does not give a tensor.
    ValueError
        In the forward pass, if `surrogate` and `exact` give different shapes.

    See Also
    --------
    straight_through : View of a transformer that keeps the number of features.

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
        # Code that saves and restores the mode of the view then restores the mode of its modules.
        self.training = any(module.training for module in self.children())

    def forward(self, x):
        """Compute `exact`, with the gradients of `surrogate`.

        Parameters
        ----------
        x : tensor of shape (n_samples, ...)
            Inputs.

        Returns
        -------
        y : tensor of shape (n_samples, ...)
            Outputs of `exact`.
        """
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
                "surrogate of StraightThrough must give the shape of exact, which is "
                f"{tuple(exact.shape)}; the {name} gives {tuple(surrogate.shape)}. Pass a "
                "surrogate that gives this shape."
            )
        return _Replace.apply(surrogate.to(exact), exact)


class _Replace(torch.autograd.Function):
    """Return the value of `exact`, and pass the gradient on to `surrogate`.

    The usual formula ``surrogate + (exact - surrogate).detach()`` rounds the value.
    """

    @staticmethod
    def forward(ctx, surrogate, exact):
        return exact.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def straight_through(transformer):
    """Return a view of any fitted transformer that keeps the number of features.

    The forward pass gives the output of ``transformer.transform`` for a float64 array, to the last
    bit. The backward pass is the identity: the straight-through estimator, which is the backward
    pass differentiable approximation (BPDA) of [1]_, section 4.1. It suits a transformer that is
    written in numpy or has no gradients, and whose output stays near its input in the same units:
    rounding, quantizing, denoising, added noise.

    For most other transformers the identity is a wrong gradient, so this view is never chosen by
    default. Choose it in one of two ways:

    - for your own class, by ``__to_torch__ = straight_through`` in its body;
    - for another class, by ``to_torch.register(Quantizer, straight_through)``.

    Parameters
    ----------
    transformer : fitted transformer
        Its method ``transform`` keeps the number of columns. A transformer that was fitted on a
        DataFrame gets a DataFrame with the same column names.

    Returns
    -------
    view : torch.nn.Module
        It refers to the transformer itself, not a copy, and calls it in every forward pass. So
        random numbers in ``transform`` are drawn again in every pass. With tensors on an
        accelerator, the values are copied to the CPU and back.

    Raises
    ------
    TypeError
        If `transformer` has no ``transform``.
    NotDifferentiableError
        In the forward pass, if ``transform`` changes the shape.

    See Also
    --------
    StraightThrough : Any function with the gradients of any other.

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
            "method transform. Use StraightThrough for a function of tensors."
        )
    return StraightThrough(Chain(Float64(), _Transform(transformer)))


class _Transform(View):
    """Output of the method ``transform`` of a transformer."""

    def __init__(self, transformer):
        super().__init__()
        self.transformer = transformer

    def forward(self, x):
        # Copy the input for transformers that modify it in place.
        X = x.detach().cpu().numpy().copy()
        names = getattr(self.transformer, "feature_names_in_", None)
        if names is not None:
            # A transformer that was fitted on a DataFrame warns about an array, or fails on it.
            import pandas as pd

            X = pd.DataFrame(X, columns=names)
        output = as_buffer(self.transformer.transform(X)).to(x)
        if output.shape != x.shape:
            name = type(self.transformer).__name__
            raise NotDifferentiableError(
                f"{name} has no straight-through view: its transform changes the shape from "
                f"{tuple(x.shape)} to {tuple(output.shape)}, and the identity, whose gradients the "
                f"view has, keeps it. Register another view with @to_torch.register({name}): "
                "StraightThrough(exact, surrogate), with a differentiable surrogate that gives the "
                "shape of the output."
            )
        return output
