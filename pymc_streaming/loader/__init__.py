"""Loading: order, shuffling, reading ahead, batches."""

from pymc_streaming.loader.loader import DataLoader
from pymc_streaming.loader.shuffle import ShuffleBuffer, shuffle_buffer
from pymc_streaming.loader.stream import BatchStream

__all__ = ["BatchStream", "DataLoader", "ShuffleBuffer", "shuffle_buffer"]
