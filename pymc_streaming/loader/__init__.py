"""Loading: order, shuffling, reading ahead, batches."""

from pymc_streaming.loader.loader import BatchStream, DataLoader, ShuffleBuffer, shuffle_buffer

__all__ = ["BatchStream", "DataLoader", "ShuffleBuffer", "shuffle_buffer"]
