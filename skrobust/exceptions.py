"""Exceptions and warnings of skrobust."""

__all__ = [
    "AttackWarning",
    "MaskedGradientsWarning",
    "NotDifferentiableError",
    "ProbabilitiesWarning",
    "RandomizedModelWarning",
    "UnboundedRobustnessWarning",
    "ZeroGradientsWarning",
]


class NotDifferentiableError(TypeError):
    """An estimator has no differentiable view.

    Raised by :func:`~skrobust.to_torch`. The message names the class (inside a
    pipeline also the step), what was needed, and what to do about it.
    """


class AttackWarning(UserWarning):
    """Base of the warnings that an attack may be weaker than it looks."""


class ProbabilitiesWarning(AttackWarning):
    """A module gives probabilities where logits were expected.

    The gradients of confident predictions vanish in the softmax, and attacks fail for that reason
    alone [1]_. Hand in the module without its last softmax.

    References
    ----------
    .. [1] N. Carlini and D. Wagner, "Towards evaluating the robustness of neural networks", IEEE
       S&P 2017, section VI.
    """


class ZeroGradientsWarning(AttackWarning):
    """The gradient of the model is exactly zero where the attack starts.

    An attack by gradients has no direction to follow there. Use one that needs none, such as
    :class:`~skrobust.attacks.Square`, or mark the step of a pipeline that swallows the gradients
    by :func:`~skrobust.differentiable.straight_through`.
    """


class RandomizedModelWarning(AttackWarning):
    """Two passes for the same input give different outputs, and the attack does not average.

    Set ``eot_samples`` of :class:`~skrobust.attacks.PGD` or :class:`~skrobust.attacks.APGD`, or use
    ``AutoAttack(version="rand")``: expectation over transformation [1]_.

    References
    ----------
    .. [1] A. Athalye, N. Carlini and D. Wagner, "Obfuscated gradients give a false sense of
       security", ICML 2018, section 4.2.
    """


class MaskedGradientsWarning(AttackWarning):
    """An attack that sees scores only succeeds where the attacks by gradients failed.

    The gradients of the model mislead, and its robust accuracy is lower than gradients tell [1]_.

    References
    ----------
    .. [1] A. Athalye, N. Carlini and D. Wagner, "Obfuscated gradients give a false sense of
       security", ICML 2018, section 3.1.
    """


class UnboundedRobustnessWarning(AttackWarning):
    """Points withstand an attack that may change them at will.

    Within an unbounded threat model every classifier with two classes can be changed to any
    answer that it ever gives; where an attack does not find it, the attack is too weak [1]_.

    References
    ----------
    .. [1] N. Carlini et al., "On evaluating adversarial robustness", arXiv 1902.06705, section 4.
    """
