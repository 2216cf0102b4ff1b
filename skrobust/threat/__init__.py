"""Threat models: the inputs that an attacker can reach, and the geometry of these sets."""

from ._feasible_set import FeasibleSet
from ._l0 import L0Set
from ._l1 import L1Set
from ._l2 import L2Set
from ._linf import LinfSet
from ._threat_model import LP_NORMS, NORMS, ThreatModel, norm_factor

__all__ = [
    "LP_NORMS",
    "NORMS",
    "FeasibleSet",
    "L0Set",
    "L1Set",
    "L2Set",
    "LinfSet",
    "ThreatModel",
    "norm_factor",
]
