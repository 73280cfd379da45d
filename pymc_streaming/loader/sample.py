"""Some rows of a table, picked at random."""

from __future__ import annotations

import numpy as np

from pymc_streaming.loader.order import even_permutation
from pymc_streaming.sources import Block, IterableDataset, read_checked

__all__ = ["sample_rows"]

# Fragments that rows are picked from, if they may be in an order: from all over the table.
_LEAST_FRAGMENTS = 8


def sample_rows(
    source: IterableDataset, total_size: int, n_rows: int, random: np.random.Generator
) -> tuple[Block, int]:
    """Pick rows, without reading the whole table if it can be told where they are.

    Every row of the fragments that are read is equally likely. Those are as few as have the rows,
    but from a table that may be in an order at least eight, which lie evenly over it.

    Parameters
    ----------
    source : IterableDataset
        The table.
    total_size : int
        Its rows.
    n_rows : int
        Rows wanted, at most `total_size`.
    random : numpy.random.Generator
        Where the choice comes from.

    Returns
    -------
    rows : Block
        In random order.
    read : int
        Rows that were read for it.
    """
    fragments = source.fragments
    counts = [fragment.n_rows for fragment in fragments]
    available = 0
    if None in counts:
        chosen, available = list(range(len(fragments))), total_size
    else:
        chosen = []
        least = 1 if source.is_shuffled else _LEAST_FRAGMENTS
        for index in even_permutation(len(fragments), random):
            if available >= n_rows and len(chosen) >= least:
                break
            chosen.append(int(index))
            available += counts[index] or 0
    places = np.sort(random.choice(available, n_rows, replace=False, shuffle=False))
    order = random.permutation(n_rows)  # where each of them goes
    picked = {
        name: np.empty((n_rows, *spec.row_shape), spec.dtype)
        for name, spec in source.layout.items()
    }
    seen = 0
    for index in sorted(chosen):
        for rows in read_checked(source, fragments[index]):
            first, last = np.searchsorted(places, [seen, seen + len(rows)])
            if first < last:
                block, wanted = rows.block(source.layout), places[first:last] - seen
                for name, array in block.items():
                    picked[name][order[first:last]] = array[wanted]
            seen += len(rows)
    found = int(np.searchsorted(places, seen))
    if found < n_rows:  # the source has fewer rows than it said, which a pass will find out
        there = np.sort(order[:found])
        picked = {name: array[there] for name, array in picked.items()}
    return picked, seen
