"""Variational inference for PyMC models on tables larger than memory."""

from pymc_streaming.loader import DataLoader, shuffle_buffer
from pymc_streaming.ordering import ColumnOrder, OrderReport, RelationOrder, order_report
from pymc_streaming.progress import History
from pymc_streaming.sources import (
    ArraySpec,
    Fragment,
    IterableDataset,
    array_source,
    generator_source,
    parquet_source,
    table_source,
)
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
    "OrderReport",
    "RelationOrder",
    "Trainer",
    "array_source",
    "generator_source",
    "order_report",
    "parquet_source",
    "shuffle_buffer",
    "table_source",
]
