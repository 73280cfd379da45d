"""What the ways to make a fit take in memory, estimated before anything is read or compiled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psutil

from pymc_streaming.loader import DataLoader
from pymc_streaming.planning.strategy import Way
from pymc_streaming.vi.start import MOST_SAMPLE_BYTES, sample_size

__all__ = ["Fit", "ways"]

# Measured (benchmarks/plan.py): what compiling adds to a process that has imported PyMC and made
# a model. Half as much again where nothing is in the compilers' caches; it is not known before.
_COMPILATION = {"numba": 120 * 2**20, "jax": 250 * 2**20, "c": 40 * 2**20}
# What a file's rows take on their way to the batches, for each thread that reads: so much, or so
# many rows, of wide ones.
_DECODING, _DECODED_ROWS = 16 * 2**20, 2**16
# Rows of a chunk of an exact pass, about: blocks are multiples of it.
_CHUNK_ROWS = 4_096
# The rows are held, and once more with those of groups that they lacked.
_SAMPLE_COPIES = 2
# Vectors as long as there are points, or as long as a triangle: parameters, their gradients, their
# moments, their averages, and what they are computed from.
_POINT_ARRAYS, _TRIANGLES = 8, 12
# Points of an exact pass: signs beyond so many are random.
_MOST_POINTS = 2_048


@dataclass(frozen=True)
class Fit:
    """What a fit is of, as far as its memory depends on it.

    Parameters
    ----------
    loader : DataLoader
        The rows.
    size : int
        Unconstrained parameters D.
    method : str
        As for `Trainer`.
    backend : str
        PyTensor backend.
    is_compiled : bool
        Whether it has been compiled.
    kept_nbytes : int
        Bytes of rows that are in memory since the fit before.
    """

    loader: DataLoader
    size: int
    method: str
    backend: str
    is_compiled: bool
    kept_nbytes: int


def ways(fit: Fit, asked: str, n: int | None) -> list[Way]:
    """The ways to make a fit, from most memory to least, beginning with what was asked for.

    Parameters
    ----------
    fit : Fit
        What is fitted.
    asked : str
        A strategy, or "auto".
    n : int or None
        Steps; None for exact passes.
    """
    common = _common(fit)
    every = list(_passes(fit, common) if n is None else _steps(fit, common, n))
    if asked == "auto":
        # Flat memory is what steps promise, and nothing of them depends on how much is free.
        of_passes = "accumulate" if fit.loader.source.is_quick else "in_memory"
        asked = of_passes if n is None else "streaming"
    strategies = [way.strategy for way in every]
    return every[strategies.index(asked) :]


def _common(fit: Fit) -> dict[str, int]:
    rss: int = psutil.Process().memory_info().rss
    compilation = 0 if fit.is_compiled else _COMPILATION[fit.backend]
    return {"process now": max(0, rss - fit.kept_nbytes), "compilation": compilation}


def _passes(fit: Fit, common: Mapping[str, int]) -> Iterator[Way]:
    loader, row = fit.loader, fit.loader.source.row_nbytes
    footprint = loader.footprint(_CHUNK_ROWS)
    points = min(1 << max(0, fit.size - 1).bit_length(), _MOST_POINTS)
    state = 8 * fit.size * _POINT_ARRAYS * points

    def way(strategy: str, sample_rows: int, table: int, remark: str) -> Way:
        parts = {
            **common,
            "sample": _SAMPLE_COPIES * sample_rows * row,
            "blocks": footprint.blocks + _decoding(loader),
            "parameters": state + _dense(fit),
            "table": table,
        }
        return Way(strategy, footprint.rows, sample_rows, parts, remark)

    most_bytes = MOST_SAMPLE_BYTES
    usual = sample_rows = sample_size(loader.total_size, fit.size, row, most_bytes)
    yield way("in_memory", usual, *_table(loader))
    quick = "the files are read about as fast as memory" if loader.source.is_quick else ""
    yield way("accumulate", usual, 0, quick)
    while most_bytes > 1:  # a smaller sample is a worse start, which may cost a pass
        most_bytes //= 2
        fewer = sample_size(loader.total_size, fit.size, row, most_bytes)
        if fewer < sample_rows:
            sample_rows = fewer
            remark = f"from a sample of {fewer:,} instead of {usual:,} rows"
            yield way("accumulate", fewer, 0, remark)


def _steps(fit: Fit, common: Mapping[str, int], n: int) -> Iterator[Way]:
    loader, footprint = fit.loader, fit.loader.footprint()
    parts = {
        **common,
        "blocks": footprint.blocks + _decoding(loader),
        "shuffle buffer": footprint.shuffle_buffer,
        "parameters": _dense(fit),
    }
    table, remark = _table(loader)
    # Of a table that takes more steps than that, less is read: what they take, and what is ahead.
    read = (n * loader.batch_size + 2 * footprint.rows) * loader.source.row_nbytes
    table = min(table, fit.kept_nbytes + read)
    yield Way("in_memory", footprint.rows, 0, {**parts, "table": table}, remark)
    yield Way("streaming", footprint.rows, 0, parts)


def _table(loader: DataLoader) -> tuple[int, str]:
    if loader.source.is_in_memory:
        return 0, "the rows are in memory already"
    return loader.total_size * loader.source.row_nbytes, ""


def _decoding(loader: DataLoader) -> int:
    source = loader.source
    if source.is_in_memory or source.is_quick:
        return 0
    return max(1, loader.num_workers) * max(_DECODING, _DECODED_ROWS * source.row_nbytes)


def _dense(fit: Fit) -> int:
    """Of a matrix with a row and a column for each parameter."""
    return 0 if fit.method == "advi" else 8 * _TRIANGLES * fit.size**2 // 2
