"""A source together with the way to shuffle it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pymc_streaming.arguments import seed_or_drawn, whole_number
from pymc_streaming.sources import Block, IterableDataset, as_source

if TYPE_CHECKING:
    from pymc_streaming.loader.loader import DataLoader

__all__ = ["ShuffleBuffer", "shuffle_buffer"]


class ShuffleBuffer:
    """A source and the way to shuffle it; made by :func:`shuffle_buffer`.

    Iterating it gives one epoch of batches, the next time the next epoch.
    """

    def __init__(
        self, source: IterableDataset, buffer_size: int, batch_size: int, seed: int | None
    ) -> None:
        self.source = source
        self.buffer_size = whole_number("buffer_size", buffer_size)
        self.batch_size = whole_number("batch_size", batch_size)
        self.seed_given = seed is not None
        self.seed = seed_or_drawn(seed)

    @functools.cached_property
    def _loader(self) -> DataLoader:
        from pymc_streaming.loader.loader import DataLoader  # which knows this class

        return DataLoader(self, self.batch_size)

    def __iter__(self) -> Iterator[Block]:
        return iter(self._loader)


def shuffle_buffer(
    source: Any, buffer_size: int, batch_size: int, seed: int | None = None
) -> ShuffleBuffer:
    """Shuffle a source through a bounded buffer.

    A buffer mixes the rows it holds, filled from fragments in random order. It cannot mix
    data that has a meaningful order over the whole table, by time for example, unless it is
    about as large as the table: each batch then is a sample of a few stretches instead of all
    of it, and the posterior is that of those. Such a table has to be shuffled on disk, once,
    beforehand: see :func:`preshuffle`.

    Parameters
    ----------
    source : IterableDataset or anything `DataLoader` takes
        Where the rows come from.
    buffer_size : int
        Rows that are permuted together.
    batch_size : int
        Rows in a batch.
    seed : int, optional
        Seed of the order. Default: drawn.

    Returns
    -------
    ShuffleBuffer
        To be given to a `DataLoader`; or iterated, for one epoch of batches.

    Raises
    ------
    ArgumentError
        If an argument cannot be meant.

    Examples
    --------
    >>> import numpy as np
    >>> from pymc_streaming import DataLoader, shuffle_buffer
    >>> buffer = shuffle_buffer(np.arange(10.0), buffer_size=8, batch_size=4, seed=0)
    >>> len(DataLoader(buffer, batch_size=4))
    10
    """
    return ShuffleBuffer(as_source(source), buffer_size, batch_size, seed)
