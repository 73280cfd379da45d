"""Shuffling a table exactly, on disk, once."""

from pymc_streaming.shuffling.external import preshuffle

__all__ = ["preshuffle"]
