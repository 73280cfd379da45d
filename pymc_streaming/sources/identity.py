"""Short hashes that are others for another table, as far as a look at a part of it tells."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pymc_streaming.sources.files import DataFile
from pymc_streaming.sources.manifest import sample_digest

__all__ = ["digest_of_arrays", "digest_of_batches", "digest_of_file"]

_ROWS = 65_536
# Of arrays in files so many pieces are looked at, spread evenly; those in memory are, all of them.
_PIECES = 64


def digest_of_file(file: DataFile) -> str:
    """By a sample of its bytes, or by what a store calls its version."""
    return sample_digest(Path(file.inner_path)) if file.is_local else file.version


def digest_of_arrays(arrays: Iterable[np.ndarray], *, is_in_memory: bool) -> str:
    """By all bytes of arrays in memory, or by pieces of those that are mapped."""
    digest = xxhash.xxh3_64()
    for array in arrays:
        starts = np.arange(0, len(array), _ROWS)
        if not is_in_memory and len(starts) > _PIECES:
            starts = starts[np.linspace(0, len(starts) - 1, _PIECES).astype(int)]
        digest.update(f"{array.dtype}{array.shape}".encode())
        for start in starts:
            piece = array[start : start + _ROWS]
            digest.update(np.ascontiguousarray(piece).view(np.uint8).reshape(-1))
    return digest.hexdigest()


def digest_of_batches(table: pa.Table) -> str:
    """By all bytes of a table in memory."""
    digest: Any = xxhash.xxh3_64()
    for batch in table.to_batches(max_chunksize=_ROWS):
        # Written out, since a slice has the buffers of the whole.
        digest.update(batch.serialize())
    return str(digest.hexdigest())
