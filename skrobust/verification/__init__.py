"""Verification: certificates of predictions."""

from ._certificate import Certificate

__all__ = ["Certificate"]
