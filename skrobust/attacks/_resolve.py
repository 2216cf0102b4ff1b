"""The attack that a score runs."""

from copy import copy

from ._auto_attack import AutoAttack
from .core import BaseAttack


def resolve_attack(attack, *, random_state=0, **threat):
    """Return the attack to run: a configured copy of ``attack``, or the default attack.

    Scores, scorers and displays call it for their parameter ``attack``.

    Parameters
    ----------
    attack : BaseAttack or None
        Attack to copy. None means ``AutoAttack(version="fast")``.

    random_state : int, RandomState instance or None, default=0
        Seed of the copy, if the ``random_state`` of ``attack`` is None.

    **threat : dict
        ``eps``, ``norm``, ``bounds`` and ``mask``; see :class:`~skrobust.threat.ThreatModel`. A
        value that is not None replaces the parameter of the attack.

    Returns
    -------
    attack : BaseAttack
        A copy, which can be changed.

    Raises
    ------
    ValueError
        Both ``attack`` and ``eps`` are None.

    TypeError
        ``attack`` is not an instance of :class:`BaseAttack`.

    Examples
    --------
    >>> from skrobust.attacks import PGD, resolve_attack
    >>> resolve_attack(PGD(n_steps=5), eps=0.3, norm="l2")
    PGD(eps=0.3, n_steps=5, norm='l2', random_state=0)
    """
    given = {name: value for name, value in threat.items() if value is not None}
    if attack is None:
        if "eps" not in given:
            raise ValueError(
                "eps is needed where no attack is given: set it to the size of the perturbations, "
                "in units of X. Got eps=None."
            )
        return AutoAttack(version="fast", random_state=random_state).set_params(**given)
    if not isinstance(attack, BaseAttack):
        raise TypeError(f"attack must be None or an attack of skrobust.attacks; got {attack!r}.")
    attack = copy(attack).set_params(**given)
    if attack.random_state is None:
        attack.set_params(random_state=random_state)
    return attack
