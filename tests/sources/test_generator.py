from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytensor
import pytest

from pymc_streaming.errors import (
    ArgumentError,
    ConsumedIteratorError,
    MissingValueError,
    RowCountError,
    RowCountWarning,
    SchemaError,
)
from pymc_streaming.sources import IterableDataset, generator_source, read_checked


def read(source: IterableDataset) -> dict[str, np.ndarray]:
    blocks = [
        rows.block(source.layout)
        for fragment in source.fragments
        for rows in read_checked(source, fragment)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in source.layout}


def blocks() -> Iterator[dict[str, np.ndarray]]:
    for i in range(3):
        y = np.arange(10 * i, 10 * i + 10)
        yield {"y": y, "X": np.column_stack([y, y]) / 2}


def test_counted_with_a_warning() -> None:
    with pytest.warns(RowCountWarning, match=r"counting the 30 rows.*n_rows=30") as caught:
        source = generator_source(blocks)
    assert caught[0].filename == __file__
    assert source.n_rows == 30
    assert [f.n_rows for f in source.fragments] == [30]


def test_given_and_not_counted() -> None:
    source = generator_source(blocks, n_rows=30)
    assert source.n_rows == 30
    assert [f.n_rows for f in source.fragments] == [None]
    for _ in range(2):
        assert read(source)["y"].tolist() == list(range(30))
    assert source.layout["y"].dtype == np.int64
    assert source.layout["X"].row_shape == (2,)
    assert "30 rows" in repr(source)


def test_endless() -> None:
    source = generator_source(lambda: (np.full(5, i) for i in itertools.count()), n_rows=1000)
    first = [
        rows.block(source.layout)
        for rows in itertools.islice(read_checked(source, source.fragments[0]), 3)
    ]
    assert [block["batch"][0] for block in first] == [0, 1, 2]


def test_reused_buffer() -> None:
    def reusing() -> Iterator[np.ndarray]:
        buffer = np.empty(2)
        for i in range(3):
            buffer[:] = i
            yield buffer

    assert read(generator_source(reusing, n_rows=6))["batch"].tolist() == [0, 0, 1, 1, 2, 2]


def test_generators_are_closed() -> None:
    opened: list[int] = []

    def careful() -> Iterator[np.ndarray]:
        opened.append(1)
        try:
            yield np.zeros(2)
            yield np.zeros(2)
        finally:
            opened.pop()

    source = generator_source(careful, n_rows=4)
    assert opened == []
    reading = source.read(source.fragments[0])
    next(reading)
    assert opened == [1]
    reading.close()  # type: ignore[attr-defined]
    assert opened == []


def test_floatx() -> None:
    with pytensor.config.change_flags(floatX="float32"):
        source = generator_source(lambda: iter([[0.5, 1.5]]), n_rows=2)
    assert read(source)["batch"].dtype == np.float32


@pytest.mark.parametrize("n_rows", [None, 30])
def test_iterator_that_is_used_up(n_rows: int | None) -> None:
    bare = blocks()
    with pytest.raises(ConsumedIteratorError, match="same iterator twice"):
        generator_source(lambda: bare, n_rows=n_rows)
    with pytest.raises(ConsumedIteratorError, match="not generator_source"):
        generator_source(blocks(), n_rows=n_rows)  # type: ignore[arg-type]


def test_iterator_that_is_used_up_behind_a_wrapper() -> None:
    bare = blocks()
    source = generator_source(lambda: (block for block in bare), n_rows=30)
    list(bare)
    with pytest.raises(ConsumedIteratorError, match="yielded nothing"):
        read(source)


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        ([], RowCountError, "no block"),
        ([np.zeros((0, 2))], RowCountError, "no rows"),
        ([1.0, 2.0], SchemaError, "one row per observation"),
        (
            [np.zeros((2, 3)), np.zeros((2, 4))],
            SchemaError,
            r"block 1 has.*\(rows, 4\).*\(rows, 3\)",
        ),
        ([np.zeros(2), np.zeros(2, int)], SchemaError, "block 1 has .*int64.*float64"),
        ([{"a": np.zeros(2)}, {"b": np.zeros(2)}], SchemaError, "block 1"),
        ([{"a": np.zeros(2), "b": np.zeros(1)}], SchemaError, "different numbers of rows"),
        ([np.array(["x"])], SchemaError, "block 0"),
        ([np.ma.masked_equal([1, 2], 2)], MissingValueError, "block 0"),
        (3, ArgumentError, "return an iterator"),
    ],
)
def test_blocks_that_are_refused(made: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        generator_source(lambda: made)


@pytest.mark.parametrize("n_rows", [0, -1, 2.0, True, "10"])
def test_n_rows_that_cannot_be_meant(n_rows: Any) -> None:
    with pytest.raises(ArgumentError, match="n_rows"):
        generator_source(blocks, n_rows=n_rows)


def test_factory_that_is_none() -> None:
    with pytest.raises(ArgumentError, match="callable"):
        generator_source(3)  # type: ignore[arg-type]
