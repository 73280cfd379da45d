from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pymc_streaming.errors import (
    ArgumentError,
    ConsumedIteratorError,
    MissingFileError,
    RowCountWarning,
)
from pymc_streaming.sources import array_source, as_source


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (np.zeros((4, 2)), "ArraySource"),
        ({"x": np.zeros(4)}, "ArraySource"),
        (pd.DataFrame({"x": [1.0, 2, 3, 4]}), "TableSource"),
        (pl.DataFrame({"x": [1.0, 2, 3, 4]}), "TableSource"),
        (pa.table({"x": [1.0, 2, 3, 4]}), "TableSource"),
    ],
)
def test_in_memory(data: Any, kind: str) -> None:
    source = as_source(data)
    assert type(source).__name__ == kind
    assert source.n_rows == 4


def test_source_is_kept() -> None:
    source = array_source(np.zeros(3))
    assert as_source(source) is source


def test_path(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "a.parquet")
    assert as_source(tmp_path).n_rows == 1
    assert as_source(str(tmp_path / "*.parquet")).n_rows == 1
    with pytest.raises(MissingFileError):
        as_source(str(tmp_path / "b"))


def test_function() -> None:
    with pytest.warns(RowCountWarning):
        assert as_source(lambda: iter([np.zeros(4)])).n_rows == 4


@pytest.mark.parametrize(
    "data",
    [(np.zeros(2) for _ in range(2)), iter([np.zeros(2)]), pa.table({"x": [1.0]}).to_reader()],
)
def test_iterator_is_refused_with_the_way_out(data: Any) -> None:
    with pytest.raises(ConsumedIteratorError, match=r"only once.*lambda"):
        as_source(data)


@pytest.mark.parametrize("data", [None, 3, [np.zeros(2)], object()])
def test_nothing_that_holds_rows(data: Any) -> None:
    with pytest.raises(ArgumentError, match=type(data).__name__):
        as_source(data)
