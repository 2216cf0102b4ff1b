"""Randomised smoothing: certified predictions for any classifier."""

from ._certificate import SmoothedCertificate
from ._classifier import SmoothedClassifier
from ._flips import FlipNoise
from ._gaussian import GaussianNoise
from ._laplace import LaplaceNoise
from ._noise import AdditiveNoise, Noise
from ._splitting import SplittingNoise
from ._uniform import UniformNoise

__all__ = [
    "AdditiveNoise",
    "FlipNoise",
    "GaussianNoise",
    "LaplaceNoise",
    "Noise",
    "SmoothedCertificate",
    "SmoothedClassifier",
    "SplittingNoise",
    "UniformNoise",
]
