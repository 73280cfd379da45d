"""Variational inference for PyMC models on tables larger than memory."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pymc_streaming.diagnosis import Diagnosis, Finding, FindingKind, GroupCounts, Missing
    from pymc_streaming.fits.result import FitResult
    from pymc_streaming.loader import DataLoader, shuffle_buffer
    from pymc_streaming.ordering import ColumnOrder, OrderReport, RelationOrder, order_report
    from pymc_streaming.planning import Plan
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
        hf_source,
        parquet_source,
        table_source,
    )
    from pymc_streaming.trainer import Trainer
    from pymc_streaming.vi.optimizers import AnnealedAdam
    from pymc_streaming.vi.status import Status

__version__ = "0.1.0"

__all__ = [
    "AnnealedAdam",
    "ArraySpec",
    "ColumnOrder",
    "DataLoader",
    "Diagnosis",
    "Finding",
    "FindingKind",
    "FitResult",
    "Fragment",
    "GroupCounts",
    "History",
    "IterableDataset",
    "Manifest",
    "Missing",
    "OrderReport",
    "Plan",
    "RelationOrder",
    "Status",
    "Trainer",
    "array_source",
    "arrow_source",
    "generator_source",
    "hf_source",
    "order_report",
    "parquet_source",
    "preshuffle",
    "shuffle_buffer",
    "table_source",
]

# A module is imported when a name of it is used: PyMC takes a second and 60 MB, which shuffling or
# looking at a table does without, and the command can be interrupted from its first moment on.
_HOMES = {
    "diagnosis": ("Diagnosis", "Finding", "FindingKind", "GroupCounts", "Missing"),
    "fits.result": ("FitResult",),
    "loader": ("DataLoader", "shuffle_buffer"),
    "ordering": ("ColumnOrder", "OrderReport", "RelationOrder", "order_report"),
    "planning": ("Plan",),
    "progress": ("History",),
    "shuffling": ("preshuffle",),
    "sources": (
        "ArraySpec",
        "Fragment",
        "IterableDataset",
        "Manifest",
        "array_source",
        "arrow_source",
        "generator_source",
        "hf_source",
        "parquet_source",
        "table_source",
    ),
    "trainer": ("Trainer",),
    "vi.optimizers": ("AnnealedAdam",),
    "vi.status": ("Status",),
}
_HOME_OF = {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HOME_OF]
