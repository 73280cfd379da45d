"""Sources: tables that are read in pieces, as often as needed."""

from pymc_streaming.sources.arrow import arrow_source
from pymc_streaming.sources.base import (
    SINGLE,
    ArraySpec,
    Block,
    Fragment,
    InMemory,
    IterableDataset,
    Rows,
    read_checked,
)
from pymc_streaming.sources.coerce import as_source
from pymc_streaming.sources.generator import generator_source
from pymc_streaming.sources.huggingface import hf_source
from pymc_streaming.sources.kept import KeptSource
from pymc_streaming.sources.manifest import Manifest
from pymc_streaming.sources.memory import array_source, table_source
from pymc_streaming.sources.parquet import parquet_source

__all__ = [
    "SINGLE",
    "ArraySpec",
    "Block",
    "Fragment",
    "InMemory",
    "IterableDataset",
    "KeptSource",
    "Manifest",
    "Rows",
    "array_source",
    "arrow_source",
    "as_source",
    "generator_source",
    "hf_source",
    "parquet_source",
    "read_checked",
    "table_source",
]
