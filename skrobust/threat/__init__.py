"""Threat models: the inputs that an attacker can reach, and the geometry of these sets."""

from ._feasible_set import FeasibleSet
from ._l0 import L0Set
from ._l1 import L1Set
from ._l2 import L2Set
from ._linf import LinfSet
from ._norms import LP_NORMS as LP_NORMS
from ._norms import NORMS as NORMS
from ._norms import norm_factor
from ._threat_model import ThreatModel

__all__ = [
    "FeasibleSet",
    "L0Set",
    "L1Set",
    "L2Set",
    "LinfSet",
    "ThreatModel",
    "norm_factor",
]
