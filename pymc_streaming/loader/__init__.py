"""Loading: order, shuffling, reading ahead, batches."""

from pymc_streaming.loader.buffer import count_rows, nth_batch, rows_of
from pymc_streaming.loader.loader import DataLoader
from pymc_streaming.loader.order import Position
from pymc_streaming.loader.passes import Footprint
from pymc_streaming.loader.shuffle import ShuffleBuffer, shuffle_buffer
from pymc_streaming.loader.stream import BatchStream

__all__ = [
    "BatchStream",
    "DataLoader",
    "Footprint",
    "Position",
    "ShuffleBuffer",
    "count_rows",
    "nth_batch",
    "rows_of",
    "shuffle_buffer",
]
