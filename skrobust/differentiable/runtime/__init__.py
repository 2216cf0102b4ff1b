"""Logits and vector-Jacobian products of a view at the least cost.

:func:`logits_and_vjp` is the entry point for attacks and defenses. Everything else in this package
is an implementation detail of it, except for the functions in ``__all__``.
"""

from ._capture import layer_ops
from ._evaluate import logits_and_vjp
from ._settings import deterministic_convolutions, training_memory_format

__all__ = ["deterministic_convolutions", "layer_ops", "logits_and_vjp", "training_memory_format"]
