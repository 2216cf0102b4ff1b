"""Exceptions of skrobust."""

__all__ = ["NotDifferentiableError"]


class NotDifferentiableError(TypeError):
    """An estimator has no differentiable view.

    Raised by :func:`~skrobust.to_torch`. The message names the class (inside a
    pipeline also the step), what was needed, and what to do about it.
    """
