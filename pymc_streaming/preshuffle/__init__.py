"""Shuffling a table exactly, on disk, once."""

from pymc_streaming.preshuffle.external import preshuffle

__all__ = ["preshuffle"]
