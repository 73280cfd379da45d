"""Short runs of consecutive rows from all over a table, at a cost that does not grow with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pymc_streaming.sources import IterableDataset
from pymc_streaming.sources.columns import decoded
from pymc_streaming.sources.generator import GeneratorSource
from pymc_streaming.sources.parquet import ParquetSource

__all__ = ["Advance", "Sample", "Table", "column_places", "draw_sample", "source_table"]

#: Told how much is done, and how much there is to do.
Advance = Callable[[int, int], None]

#: Values looked at, rows times columns, in a small table or a narrow one: 32 MiB of float64. And
#: the most in any.
LEAST_VALUES, MOST_VALUES = 2**22, 2**23
#: Rows looked at: this many, or this share of a large table, and never more than the last.
LEAST_ROWS, SHARE, MOST_ROWS = 250_000, 0.03, 1_000_000
#: Rows decoded for each row looked at, since those before it in its fragment come with it; or as
#: many as hold so many values, where that is more.
DECODED, DECODED_VALUES = 2, 2**23
#: Values decoded to get to the end of long fragments: a second or two. Behind a network, fewer.
DEEP_VALUES, REMOTE_DEEP_VALUES = 2**27, 2**25
#: Rows looked at in a fragment, at least, as a part of what all have on average: one that is read
#: but a short way stands for a place in the table all the same.
EVEN_PART = 0.6
#: Rows read of a source that begins at its beginning every time.
SEQUENTIAL_ROWS = 100_000
#: What a source usually decodes at least, when it is asked for the first row of a fragment.
BLOCK_ROWS = 65_536
FEWEST_FRAGMENTS, MOST_FRAGMENTS = 8, 128
SHORTEST_RUN, LONGEST_RUN = 32, 1024


@dataclass(frozen=True)
class Table:
    """What a sample is drawn from: fragments that can be read, column by column.

    Parameters
    ----------
    counts : sequence of int or None
        Rows of each fragment; None where only reading it can tell.
    columns : tuple of str
        Names of the columns.
    read : callable
        From the number of a fragment to an iterator of blocks: sequences of NumPy or Arrow
        arrays, one for each of `columns`.
    is_remote : bool, default False
        Whether opening a fragment is slow, so that few should be.
    is_sequential : bool, default False
        Whether rows are made one after the other, so that only the first are cheap.
    """

    counts: Sequence[int | None]
    columns: tuple[str, ...]
    read: Callable[[int], Iterator[Sequence[Any]]]
    is_remote: bool = False
    is_sequential: bool = False


@dataclass(frozen=True)
class Sample:
    """Runs of consecutive rows.

    Parameters
    ----------
    columns : dict of str to ndarray or pyarrow.Array
        The values of each column, run after run.
    start : ndarray of int, shape (runs,)
        Row of the table at which each run begins.
    length : ndarray of int, shape (runs,)
        Rows of each run.
    fragment : ndarray of int, shape (runs,)
        Number of the fragment that each run is from.
    n_rows : int or None
        Rows of the whole table, as far as they are known.
    fragment_rows : float
        Rows of an average fragment.
    n_fragments : int
        Fragments of the whole table.
    covered : float
        Share of the rows that are no deeper in their fragment than eight fragments, or all that
        are so long, were looked at.
    """

    columns: dict[str, Any]
    start: np.ndarray
    length: np.ndarray
    fragment: np.ndarray
    n_rows: int | None
    fragment_rows: float
    n_fragments: int
    covered: float

    @property
    def rows(self) -> int:
        """Rows in the sample."""
        return int(self.length.sum())

    @property
    def bounds(self) -> np.ndarray:
        """First row of each run within the sample."""
        return np.concatenate([[0], np.cumsum(self.length)[:-1]])


def column_places(source: IterableDataset) -> list[tuple[str, str, int]]:
    """Name of each column of the blocks of a source, its array, and its number in that array."""
    places = []
    for name, spec in source.layout.items():
        width = math.prod(spec.row_shape)
        for i in range(width):
            if len(spec.columns) == width:
                label = spec.columns[i]
            else:
                # As NumPy, and a model, has it.
                place = ", ".join(str(k) for k in np.unravel_index(i, spec.row_shape))
                label = f"{name}[:, {place}]" if spec.row_shape else name
            places.append((label, name, i))
    return places


def source_table(source: IterableDataset) -> Table:
    """The columns of the blocks of a source: what batches really are."""
    columns = column_places(source)
    labels = [label for label, *_ in columns]
    # The same column may go into two arrays, and one look at it is enough.
    kept = [n for n, label in enumerate(labels) if labels.index(label) == n]

    def read(index: int) -> Iterator[Sequence[np.ndarray]]:
        blocks = source.read(source.fragments[index])
        with closing(blocks) if hasattr(blocks, "close") else nullcontext():  # type: ignore[type-var]
            for block in blocks:
                flat = {name: np.reshape(array, (len(array), -1)) for name, array in block.items()}
                yield [flat[columns[n][1]][:, columns[n][2]] for n in kept]

    return Table(
        [fragment.n_rows for fragment in source.fragments],
        tuple(labels[n] for n in kept),
        read,
        is_remote=isinstance(source, ParquetSource) and source.is_remote,
        is_sequential=isinstance(source, GeneratorSource),
    )


def draw_sample(
    table: Table,
    seed: int,
    n_rows: int | None = None,
    advance: Advance | None = None,
) -> Sample:
    """Read runs from fragments chosen all over the table.

    Fragments are drawn one from each of equally long parts of the table, and runs one from each
    of equally long parts of a fragment. A long fragment can only be read from its beginning: all
    are read some way, and as many to their end as the budget of decoded rows allows.

    Parameters
    ----------
    table : Table
        What to read.
    seed : int
        Seed of the places.
    n_rows : int, optional
        Rows of the table, where its fragments do not say.
    advance : callable, optional
        Told the fragments read, and all that are to be.
    """
    random = np.random.default_rng(seed)
    if table.is_sequential or None in table.counts:
        return _from_the_beginning(table, n_rows)
    counts = np.array(table.counts, dtype=np.int64)
    first_row = np.concatenate([[0], np.cumsum(counts)])
    total = int(first_row[-1])
    budget = min(total, _row_budget(total, len(table.columns)))
    run = int(np.clip(budget // 1024, SHORTEST_RUN, LONGEST_RUN))
    decoded_rows = max(DECODED * budget, DECODED_VALUES // len(table.columns))
    chosen = _chosen_fragments(counts, first_row, decoded_rows, table.is_remote, random)
    deep_values = REMOTE_DEEP_VALUES if table.is_remote else DEEP_VALUES
    deep_rows = max(decoded_rows, deep_values // len(table.columns))
    reach = _reaches(counts[chosen], decoded_rows, deep_rows, random)
    share = np.maximum(budget * reach / reach.sum(), EVEN_PART * budget / len(chosen))
    share = np.minimum(share, reach)
    share *= min(1.0, budget / share.sum())
    starts, lengths, fragments = [], [], []
    parts: list[list[Any]] = [[] for _ in table.columns]
    for number, index in enumerate(chosen):
        offsets, sizes = _runs(int(reach[number]), math.ceil(share[number]), run, random)
        _collect(table, int(index), offsets, sizes, parts)
        starts.append(first_row[index] + offsets)
        lengths.append(sizes)
        fragments.append(np.full(len(sizes), index))
        if advance is not None:
            advance(number + 1, len(chosen))
    return Sample(
        {name: _joined(part) for name, part in zip(table.columns, parts, strict=True)},
        np.concatenate(starts),
        np.concatenate(lengths),
        np.concatenate(fragments),
        total,
        total / len(counts),
        len(counts),
        _covered(counts[chosen], reach),
    )


def _row_budget(total: int, n_columns: int) -> int:
    rows = max(LEAST_ROWS, LEAST_VALUES // n_columns, int(SHARE * total))
    rows = min(rows, MOST_ROWS)
    return max(1, min(rows, MOST_VALUES // n_columns))


def _chosen_fragments(
    counts: np.ndarray,
    first_row: np.ndarray,
    decoded_rows: int,
    is_remote: bool,
    random: np.random.Generator,
) -> np.ndarray:
    """Fragments, each drawn from a part of the table of its own, by rows."""
    usual = min(float(counts.mean()), BLOCK_ROWS)
    most = FEWEST_FRAGMENTS if is_remote else MOST_FRAGMENTS
    wanted = int(np.clip(decoded_rows / usual, FEWEST_FRAGMENTS, most))
    if wanted >= len(counts):
        everything: np.ndarray = np.flatnonzero(counts)
        return everything
    rows = (np.arange(wanted) + random.random(wanted)) / wanted * first_row[-1]
    drawn: np.ndarray = np.unique(np.searchsorted(first_row, rows, side="right") - 1)
    return drawn


def _reaches(
    counts: np.ndarray, decoded_rows: int, deep_rows: int, random: np.random.Generator
) -> np.ndarray:
    """How many rows of each chosen fragment may be decoded."""
    even = max(BLOCK_ROWS, decoded_rows // len(counts))
    reach: np.ndarray = np.minimum(counts, even)
    left = deep_rows - int(reach.sum())
    for i in random.permutation(len(counts)):
        further = min(int(counts[i] - reach[i]), max(0, left))
        reach[i] += further
        left -= further
    return reach


def _covered(counts: np.ndarray, reach: np.ndarray) -> float:
    """Share of the rows at depths that enough fragments were looked at.

    What is so deep in a fragment as only few were read stands for nothing but itself.
    """
    edges = np.unique(np.concatenate([[0], counts, reach]))
    there, seen = ((ends[:, None] > edges[:-1]).sum(axis=0) for ends in (counts, reach))
    rows = there * np.diff(edges)
    return float(rows[seen >= np.minimum(there, FEWEST_FRAGMENTS)].sum() / rows.sum())


def _runs(
    reach: int, rows: int, run: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and lengths of runs that do not overlap, one from each part of `reach` rows."""
    rows = min(rows, reach)
    n_runs = max(1, round(rows / run))
    edges = np.linspace(0, reach, n_runs + 1).astype(np.int64)
    room = np.diff(edges)
    lengths = np.minimum(room, math.ceil(rows / n_runs))
    return edges[:-1] + random.integers(0, room - lengths + 1), lengths


def _collect(
    table: Table, index: int, offsets: np.ndarray, lengths: np.ndarray, parts: list[list[Any]]
) -> None:
    wanted = np.repeat(offsets - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    seen = taken = 0
    with closing(table.read(index)) as blocks:  # type: ignore[type-var]
        for block in blocks:
            count = len(block[0])
            stop = int(np.searchsorted(wanted, seen + count))
            if stop > taken:
                rows = wanted[taken:stop] - seen
                for part, array in zip(parts, block, strict=True):
                    part.append(array.take(rows))
            seen, taken = seen + count, stop
            if taken == len(wanted):
                break


def _from_the_beginning(table: Table, n_rows: int | None) -> Sample:
    """All there is of the first fragments, until the budget is spent."""
    budget = min(SEQUENTIAL_ROWS, _row_budget(0, len(table.columns)))
    parts: list[list[Any]] = [[] for _ in table.columns]
    starts, lengths, fragments = [], [], []
    seen, ended = 0, True
    for index in range(len(table.counts)):
        begin = seen
        with closing(table.read(index)) as blocks:  # type: ignore[type-var]
            for block in blocks:
                count = min(len(block[0]), budget - seen)
                for part, array in zip(parts, block, strict=True):
                    part.append(array[:count].copy())  # the source may write into it again
                seen += count
                ended = seen < budget
                if not ended:
                    break
        offsets = np.arange(begin, seen, LONGEST_RUN)
        starts.append(offsets)
        lengths.append(np.minimum(LONGEST_RUN, seen - offsets))
        fragments.append(np.full(len(offsets), index))
        if not ended:
            break
    return Sample(
        {name: _joined(part) for name, part in zip(table.columns, parts, strict=True)},
        np.concatenate(starts),
        np.concatenate(lengths),
        np.concatenate(fragments),
        seen if ended else n_rows,
        seen / len(starts),
        len(table.counts),
        1.0 if ended else 0.0,
    )


def _joined(parts: list[Any]) -> Any:
    if not parts:
        return np.empty(0)
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return pa.concat_arrays([decoded(part) for part in parts])
