"""Variational inference for PyMC models on tables larger than memory."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pymc_streaming.loader import DataLoader, shuffle_buffer
from pymc_streaming.ordering import ColumnOrder, OrderReport, RelationOrder, order_report
from pymc_streaming.progress import History
from pymc_streaming.shuffling import preshuffle
from pymc_streaming.sources import (
    ArraySpec,
    Fragment,
    IterableDataset,
    Manifest,
    array_source,
    arrow_source,
    generator_source,
    parquet_source,
    table_source,
)

if TYPE_CHECKING:
    from pymc_streaming.trainer import Trainer
    from pymc_streaming.vi.optimizers import AnnealedAdam

__version__ = "0.1.0"

__all__ = [
    "AnnealedAdam",
    "ArraySpec",
    "ColumnOrder",
    "DataLoader",
    "Fragment",
    "History",
    "IterableDataset",
    "Manifest",
    "OrderReport",
    "RelationOrder",
    "Trainer",
    "array_source",
    "arrow_source",
    "generator_source",
    "order_report",
    "parquet_source",
    "preshuffle",
    "shuffle_buffer",
    "table_source",
]

# Importing PyMC takes a second and 60 MB; shuffling or looking at a table does without.
_LATE = {"AnnealedAdam": "pymc_streaming.vi.optimizers", "Trainer": "pymc_streaming.trainer"}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
