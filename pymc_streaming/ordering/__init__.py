"""Is the order of a stream a random one? The order report."""

from pymc_streaming.ordering.records import ColumnOrder, OrderReport, RelationOrder
from pymc_streaming.ordering.report import order_report

__all__ = ["ColumnOrder", "OrderReport", "RelationOrder", "order_report"]
