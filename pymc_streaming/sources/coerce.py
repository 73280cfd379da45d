"""Whatever holds rows, as a source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import numpy as np

from pymc_streaming.errors import ArgumentError, ConsumedIteratorError
from pymc_streaming.sources.arrow import arrow_source
from pymc_streaming.sources.base import IterableDataset
from pymc_streaming.sources.generator import generator_source
from pymc_streaming.sources.huggingface import hf_source, is_dataset
from pymc_streaming.sources.manifest import MANIFEST_NAME, Manifest, local_folder
from pymc_streaming.sources.memory import array_source, is_table, table_source
from pymc_streaming.sources.parquet import parquet_source

__all__ = ["as_source", "is_arrow_path"]


def as_source(data: object) -> IterableDataset:
    """Make a source of `data` with the defaults of its kind.

    Parameters
    ----------
    data : IterableDataset, numpy.ndarray, mapping, data frame, str, PathLike or callable
        A source is returned as it is; arrays go to :func:`array_source`, data frames
        and Arrow tables to :func:`table_source`, what ``datasets`` loads to :func:`hf_source`, a
        path or URL to :func:`parquet_source`, a function that makes iterators to
        :func:`generator_source`.

    Returns
    -------
    IterableDataset

    Raises
    ------
    ConsumedIteratorError
        If `data` is an iterator, which can be read only once.
    ArgumentError
        If it is nothing of these.

    Examples
    --------
    >>> import numpy as np
    >>> from pymc_streaming.sources import as_source
    >>> as_source(np.zeros((10, 3))).n_rows
    10
    """
    if isinstance(data, IterableDataset):
        return data
    if isinstance(data, Iterator):
        raise ConsumedIteratorError(
            f"A {type(data).__name__} can be read only once, but streaming inference reads the "
            "data many times. Give the function that makes it: blocks or lambda: blocks(), not "
            "blocks()."
        )
    if isinstance(data, str | os.PathLike):
        return arrow_source(data) if is_arrow_path(data) else parquet_source(data)
    if isinstance(data, np.ndarray | Mapping):
        return array_source(data)
    if is_dataset(data):
        return hf_source(data)
    if is_table(data):
        return table_source(data)
    if callable(data):
        return generator_source(data)
    raise ArgumentError(
        "A source must be an IterableDataset, arrays, a data frame, a path, or a function that "
        f"returns an iterator of blocks, found {type(data).__name__}."
    )


def is_arrow_path(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is an Arrow or Feather file, or a folder of them that was shuffled."""
    if os.fspath(path).lower().endswith((".arrow", ".feather", ".ipc")):
        return True
    folder = local_folder(path)
    if folder is None or not (folder / MANIFEST_NAME).is_file():
        return False
    return Manifest.read(folder).format == "arrow"
