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

    Raised by :func:`~skrobust.to_torch`. The message names the class (and the step, inside a
    pipeline), the missing part, and a way to fix it.
    """


class AttackWarning(UserWarning):
    """Base class of warnings about attacks that can be weaker than they look."""


class ProbabilitiesWarning(AttackWarning):
    """A module returns probabilities, and not logits.

    For confident predictions the gradients of the softmax vanish, so that gradient-based attacks
    fail although adversarial examples exist [1]_. Pass the module without its last softmax.

    References
    ----------
    .. [1] N. Carlini and D. Wagner, "Towards evaluating the robustness of neural networks", IEEE
       S&P 2017, section VI.
    """


class ZeroGradientsWarning(AttackWarning):
    """The gradient of the model is exactly zero at the starting point of the attack.

    A gradient-based attack has no direction to move in. Use an attack that needs no gradients, such
    as :class:`~skrobust.attacks.Square`. If a step of a pipeline causes the zero gradients, mark it
    with :func:`~skrobust.differentiable.straight_through`.
    """


class RandomizedModelWarning(AttackWarning):
    """The outputs of a model for the same input differ, and the attack does not average them.

    Use expectation over transformation [1]_: set ``eot_samples`` of
    :class:`~skrobust.attacks.PGD` or :class:`~skrobust.attacks.APGD`, or use
    ``AutoAttack(version="rand")``.

    References
    ----------
    .. [1] A. Athalye, N. Carlini and D. Wagner, "Obfuscated gradients give a false sense of
       security", ICML 2018, section 4.2.
    """


class MaskedGradientsWarning(AttackWarning):
    """A score-based attack succeeds where gradient-based attacks failed.

    The gradients of the model are misleading: gradient-based attacks overestimate its robust
    accuracy [1]_.

    References
    ----------
    .. [1] A. Athalye, N. Carlini and D. Wagner, "Obfuscated gradients give a false sense of
       security", ICML 2018, section 3.1.
    """


class UnboundedRobustnessWarning(AttackWarning):
    """An attack without a limit on the perturbation failed for some samples.

    In an unbounded threat model, every sample can be changed to get any label that the classifier
    predicts anywhere. A failure therefore means that the attack is too weak [1]_.

    References
    ----------
    .. [1] N. Carlini et al., "On evaluating adversarial robustness", arXiv 1902.06705, section 4.
    """
