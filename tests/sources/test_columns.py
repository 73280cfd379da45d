"""Arrow columns to arrays, through `table_source`: every type, every refusal."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytensor
import pytest

from pymc_streaming.errors import (
    ArgumentError,
    CategoryError,
    MissingValueError,
    PrecisionError,
    SchemaError,
    TransformError,
)
from pymc_streaming.sources import IterableDataset, read_checked, table_source
from pymc_streaming.sources import plan as plan_module
from pymc_streaming.sources.columns import canonical_type

UTC = dt.UTC


def read(source: IterableDataset) -> dict[str, np.ndarray]:
    blocks = [
        rows.block(source.layout)
        for fragment in source.fragments
        for rows in read_checked(source, fragment)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in source.layout}


def one(values: pa.Array, **options: Any) -> np.ndarray:
    """The single column `values` as a 1-D array."""
    return read(table_source(pa.table({"c": values}), columns={"c": "c"}, **options))["c"]


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint32(), pa.uint64()]
)
def test_integers(kind: pa.DataType) -> None:
    values = one(pa.array([0, 3, 127], kind))
    assert values.dtype == np.int64
    np.testing.assert_array_equal(values, [0, 3, 127])


WHEN = [dt.datetime(1970, 1, 1, 0, 0, 1, 500_000), dt.datetime(2001, 1, 1)]
SECONDS = [1.5, 978307200.0]


@pytest.mark.parametrize(
    ("values", "expected", "dtype"),
    [
        (pa.array([True, False]), [1, 0], np.int64),
        (pa.array([0.5, -1.5], pa.float32()), [0.5, -1.5], np.float64),
        (pa.array(np.array([0.5, 2], np.float16)), [0.5, 2.0], np.float64),
        (pa.array([decimal.Decimal("1.25"), decimal.Decimal(-3)]), [1.25, -3.0], np.float64),
        (pa.array([0, 11323], pa.date32()), [0, 11323], np.int64),
        (pa.array([dt.date(1969, 12, 31)], pa.date64()), [-1], np.int64),
        (pa.array(WHEN, pa.timestamp("ms")), SECONDS, np.float64),
        (pa.array(WHEN, pa.timestamp("us", "UTC")), SECONDS, np.float64),
        (pa.array(WHEN, pa.timestamp("ns")), SECONDS, np.float64),
        (pa.array([90], pa.time32("s")), [90.0], np.float64),
        (pa.array([1500], pa.time64("us")), [0.0015], np.float64),
        (pa.array([-1500], pa.duration("ms")), [-1.5], np.float64),
        (pa.array([7, 9]).dictionary_encode(), [7, 9], np.int64),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_types(values: pa.Array, expected: list[float], dtype: type) -> None:
    found = one(values)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(one(pa.concat_arrays([values, values])[len(values) :]), expected)


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
    ids=str,
)
def test_strings_become_codes(kind: pa.DataType) -> None:
    values = pa.array(["b", "a", "c", "b"]).cast(kind)
    np.testing.assert_array_equal(one(values, categories="auto"), [1, 0, 2, 1])
    np.testing.assert_array_equal(one(values[1:], categories={"c": ["c", "b", "a"]}), [2, 0, 1])


def test_categories_are_exposed() -> None:
    table = pa.table({"g": ["b", "a"], "k": [30, 10], "x": [1.0, 2.0]})
    source = table_source(table, categories={"g": ["b", "z", "a"], "k": "auto"})
    assert source.categories == {"g": ("b", "z", "a"), "k": (10, 30)}
    np.testing.assert_array_equal(read(source)["batch"], [[0, 1, 1], [2, 0, 2]])


def test_one_block_is_floating_and_named_arrays_keep_whole_numbers() -> None:
    table = pa.table({"i": [1, 2], "b": [True, False], "x": [0.5, 1.5]})
    assert table_source(table).layout["batch"].dtype == np.float64
    assert table_source(table, columns=["i"]).layout["batch"].dtype == np.float64
    source = table_source(table, columns={"W": ["i", "b"], "M": ["x", "i"], "i": "i", "x": "x"})
    found = {name: (spec.dtype.name, spec.row_shape) for name, spec in source.layout.items()}
    assert found == {
        "W": ("int64", (2,)),
        "M": ("float64", (2,)),
        "i": ("int64", ()),
        "x": ("float64", ()),
    }
    assert source.columns == ("i", "b", "x", "i", "i", "x")
    np.testing.assert_array_equal(read(source)["M"], [[0.5, 1], [1.5, 2]])


def test_floatx_is_followed() -> None:
    table = pa.table({"x": [0.1, 0.2], "i": [1, 2]})
    with pytensor.config.change_flags(floatX="float32"):
        source = table_source(table)
    block = read(source)["batch"]
    assert block.dtype == np.float32
    np.testing.assert_array_equal(block[:, 0], np.float32([0.1, 0.2]))


@pytest.mark.parametrize(
    ("floatx", "limit"), [("float32", 2**24), ("float64", 2**53)], ids=["float32", "float64"]
)
def test_whole_numbers_too_large(floatx: str, limit: int) -> None:
    with pytensor.config.change_flags(floatX=floatx):
        for edge in (limit, -limit):
            table = pa.table({"id": [0, edge]})
            np.testing.assert_array_equal(read(table_source(table))["batch"], [[0], [edge]])
        for beyond in (limit + 1, -limit - 1, np.iinfo(np.int64).min):
            source = table_source(pa.table({"id": [0, beyond]}))
            with pytest.raises(PrecisionError, match=rf"'id' holds {beyond:,}.*transform"):
                read(source)
            # The same number in an integer array is exact.
            assert read(table_source(pa.table({"id": [beyond]}), columns={"id": "id"}))["id"] == (
                beyond
            )


def test_unsigned_beyond_int64() -> None:
    with pytest.raises(PrecisionError, match="18,446,744,073,709,551,615"):
        one(pa.array([2**64 - 1], pa.uint64()))
    source = table_source(pa.table({"a": pa.array([2**63], pa.uint64())}), columns={"A": ["a"]})
    with pytest.raises(PrecisionError, match=r"column 'a' holds 9,223,372,036,854,775,808"):
        read(source)


@pytest.mark.parametrize(
    "values",
    [pa.array(WHEN, pa.timestamp("us")), pa.array([decimal.Decimal(2**24 + 1)])],
    ids=["timestamp", "decimal"],
)
def test_exact_quantities_do_not_fit_float32(values: pa.Array) -> None:
    with pytensor.config.change_flags(floatX="float32"), pytest.raises(PrecisionError):
        one(values)


def test_float_overflow() -> None:
    table = pa.table({"a": [1.0, 2.0], "x": [1.0, 1e300]})
    with pytensor.config.change_flags(floatX="float32"):
        with pytest.raises(PrecisionError, match=r"column 'x' holds a number beyond"):
            read(table_source(table))
        with pytest.raises(PrecisionError, match=r"column 'x'"):
            read(table_source(table, columns={"x": "x"}))
        source = table_source(pa.table({"x": [np.inf, -np.inf]}))
        np.testing.assert_array_equal(read(source)["batch"].ravel(), [np.inf, -np.inf])


def test_wide_blocks_are_laid_out_in_strips() -> None:
    values = np.random.default_rng(1).normal(size=(20_001, 3))
    table = pa.table({f"c{i}": values[:, i] for i in range(3)})
    np.testing.assert_array_equal(read(table_source(table))["batch"], values)


# What is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1.0]]),
        pa.array([{"a": 1}]),
        pa.array([b"x"]),
        pa.array([None], pa.null()),
        pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
    ],
    ids=lambda values: str(values.type),
)
def test_types_that_are_no_numbers(values: pa.Array) -> None:
    with pytest.raises(SchemaError, match=r"column 'c' has type .*expected numbers"):
        one(values)


def test_strings_without_categories() -> None:
    with pytest.raises(SchemaError, match=r"column 'c' holds strings.*categories=\{'c'"):
        one(pa.array(["a"]))


def test_unknown_column() -> None:
    table = pa.table({"origin": [1], "delay": [2]})
    with pytest.raises(SchemaError, match=r"no column 'orgin'\. Did you mean 'origin'\?.*delay"):
        table_source(table, columns=["orgin"])


def test_names_with_a_comma_between() -> None:
    table = pa.table({"a": [1], "b": [1], "x,y": [1]})
    with pytest.raises(SchemaError, match=r"no column 'b, a'\. Give the names one by one.*: b a\."):
        table_source(table, columns=["b, a"])
    assert table_source(table, columns=["x,y"]).columns == ("x,y",)


def test_duplicate_columns() -> None:
    with pytest.raises(SchemaError, match="column 'a' is selected 2 times"):
        table_source(pa.table({"a": [1]}), columns=["a", "a"])
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    with pytest.raises(SchemaError, match="column 'a' is selected 2 times"):
        table_source(twice)
    with pytest.raises(SchemaError, match="more than once"):
        table_source(twice, columns=["a"])


@pytest.mark.parametrize(
    "options",
    [
        {"columns": "x"},
        {"columns": []},
        {"columns": {}},
        {"columns": {"x": []}},
        {"columns": {1: "x"}},
        {"columns": [1]},
        {"columns": 3},
        {"categories": "all"},
        {"categories": ["a"]},
        {"categories": {"g": "all"}},
        {"categories": {"g": []}},
        {"categories": {"g": ["a", "a"]}},
        {"categories": {"g": ["a", None]}},
        {"categories": {"g": [1]}},
        {"categories": {"k": [1, 300]}},
        {"categories": {"k": [True]}},
        {"categories": {"x": [1.0]}},
        {"categories": {"nothing": "auto"}},
        {"columns": ["x"], "categories": {"g": "auto"}},
        {"transform": 3},
        {"columns": {"x": "x"}, "transform": dict},
    ],
    ids=str,
)
def test_arguments_that_cannot_be_meant(options: dict[str, Any]) -> None:
    table = pa.table({"x": [1.0], "g": ["a"], "k": pa.array([1], pa.int8())})
    with pytest.raises(ArgumentError):
        table_source(table, **options)


def test_unseen_level() -> None:
    table = pa.table({"g": ["a", "b"], "k": [1, 2]})
    with pytest.raises(CategoryError, match=r"rows 0 to 1: column 'g' holds 'b'.* 1 levels \(a\)"):
        read(table_source(table, categories={"g": ["a"]}))
    with pytest.raises(CategoryError, match="column 'k' holds 1,"):
        read(table_source(table, categories={"g": "auto", "k": [2, 3]}))


def test_level_that_no_row_uses_is_no_error() -> None:
    unused = pa.DictionaryArray.from_arrays([0, 0], ["a", "b"])
    np.testing.assert_array_equal(one(unused, categories={"c": ["a"]}), [0, 0])
    assert table_source(pa.table({"c": unused}), categories="auto").categories == {"c": ("a",)}


def test_too_many_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "MAX_AUTO_LEVELS", 3)
    assert one(pa.array(["a", "b", "c"]), categories="auto").max() == 2
    with pytest.raises(CategoryError, match="identifier"):
        one(pa.array(["a", "b", "c", "d"]), categories="auto")


@pytest.mark.parametrize(
    ("values", "categories"),
    [
        (pa.array([1, None]), None),
        (pa.array([1.0, None]), None),
        (pa.array([True, None]), None),
        (pa.array([*WHEN[:1], None], pa.timestamp("s")), None),
        (pa.array(["a", None]), "auto"),
        (pa.array(["a", None]).dictionary_encode(), "auto"),
        (pa.DictionaryArray.from_arrays([0, 1], pa.array(["a", None])), "auto"),
    ],
)
def test_nulls(values: pa.Array, categories: str | None) -> None:
    with pytest.raises(MissingValueError, match=r"column 'c' holds 1 null,.*transform"):
        table_source(pa.table({"c": values}), categories=categories)


def test_nan() -> None:
    source = table_source(pa.table({"a": [1.0], "c": [np.nan]}))
    with pytest.raises(MissingValueError, match="column 'c'"):
        read(source)


# Transforms ----------------------------------------------------------------------------


def seen_by_transform(table: pa.Table, **options: Any) -> dict[str, np.ndarray]:
    seen: dict[str, np.ndarray] = {}

    def transform(block: dict[str, np.ndarray]) -> np.ndarray:
        seen.update(block)
        return np.zeros(len(next(iter(block.values()))))

    table_source(table, transform=transform, **options)
    return seen


def test_a_transform_is_given_some_rows_at_a_time() -> None:
    lengths = []

    def transform(block: dict[str, np.ndarray]) -> np.ndarray:
        lengths.append(len(block["x"]))
        block["x"] += 1  # of its own, so that it may
        return block["x"]

    column = np.arange(10_000)
    source = table_source(pa.table({"x": column}), transform=transform)
    del lengths[:]
    for _ in range(2):
        blocks = [block["batch"].copy() for block in source.read(source.fragments[0])]
        np.testing.assert_array_equal(np.concatenate(blocks), column + 1)
    assert lengths == 2 * [4096, 4096, 1808]


def test_what_a_transform_receives() -> None:
    table = pa.table(
        {
            "i8": pa.array([1, -100], pa.int8()),
            "f32": pa.array([0.5, 1.5], pa.float32()),
            "flag": [True, False],
            "when": pa.array(WHEN, pa.timestamp("us")),
            "text": pa.array(["u", None]),
            "code": ["b", "a"],
            "i_null": pa.array([5, None]),
            "flag_null": pa.array([None, True]),
            "code_null": pa.array([None, "x"]),
            "dict_null": pa.DictionaryArray.from_arrays([0, 1], pa.array(["x", None])),
        }
    )
    levels = dict.fromkeys(("code", "code_null", "dict_null"), "auto")
    seen = seen_by_transform(table, categories=levels)
    assert list(seen) == table.column_names
    assert {name: array.dtype.name for name, array in seen.items()} == {
        "i8": "int64",
        "f32": "float32",
        "flag": "bool",
        "when": "float64",
        "text": "object",
        "code": "int64",
        "i_null": "float64",
        "flag_null": "float64",
        "code_null": "float64",
        "dict_null": "float64",
    }
    assert seen["text"].tolist() == ["u", None]
    np.testing.assert_array_equal(seen["when"], SECONDS)
    np.testing.assert_array_equal(seen["code"], [1, 0])
    np.testing.assert_array_equal(seen["i_null"], [5, np.nan])
    np.testing.assert_array_equal(seen["flag_null"], [np.nan, 1])
    np.testing.assert_array_equal(seen["code_null"], [np.nan, 0])
    np.testing.assert_array_equal(seen["dict_null"], [0, np.nan])
    assert all(array.flags.writeable for array in seen.values())


def test_whole_numbers_next_to_nulls_stay_exact() -> None:
    with pytest.raises(PrecisionError, match="column 'i'"):
        seen_by_transform(pa.table({"i": [2**53 + 1, None]}))


def test_transform_may_write_into_its_input() -> None:
    table = pa.table({"x": np.arange(5.0), "i": np.arange(5)})

    def transform(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        block["x"] += 100
        block["i"] *= 2
        return block

    source = table_source(table, transform=transform)
    for _ in range(2):
        np.testing.assert_array_equal(read(source)["x"], np.arange(5) + 100)
        np.testing.assert_array_equal(read(source)["i"], np.arange(5) * 2)
    assert table["x"].to_pylist() == [0, 1, 2, 3, 4]


def test_transform_output() -> None:
    table = pa.table({"x": [1.0, 2.0]})

    def transform(block: dict[str, np.ndarray]) -> dict[str, Any]:
        x = block["x"]
        return {
            "f": np.column_stack([x, x]).astype("float32"),
            "i": x.astype("int8"),
            "b": x > 1,
            "list": [1.5, 2.5],
            "deep": np.zeros((2, 3, 4)),
        }

    source = table_source(table, transform=transform)
    layout = {name: (spec.dtype.name, spec.row_shape) for name, spec in source.layout.items()}
    assert layout == {
        "f": ("float64", (2,)),
        "i": ("int64", ()),
        "b": ("int64", ()),
        "list": ("float64", ()),
        "deep": ("float64", (3, 4)),
    }
    np.testing.assert_array_equal(read(source)["b"], [0, 1])
    single = table_source(table, transform=lambda block: block["x"])
    assert list(single.layout) == ["batch"]


def test_transform_that_reuses_its_array_is_safe() -> None:
    buffer = np.empty(2)

    def transform(block: dict[str, np.ndarray]) -> np.ndarray:
        np.copyto(buffer, block["x"])
        return buffer

    batches = [pa.record_batch({"x": [float(i), float(i)]}) for i in range(3)]
    source = table_source(pa.Table.from_batches(batches), transform=transform)
    np.testing.assert_array_equal(read(source)["batch"], [0, 0, 1, 1, 2, 2])


def test_nan_that_a_transform_leaves() -> None:
    source = table_source(pa.table({"x": [1.0, None]}), transform=lambda block: block)
    with pytest.raises(MissingValueError, match="array 'x'"):
        read(source)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda block: block["y"], r"raised KeyError: 'y'.*2 rows of the columns x"),
        (lambda block: block["x"][:1], r"returned 1 rows .*block of 2.*filters"),
        (lambda block: {}, "no arrays"),
        (lambda block: {1: block["x"]}, "names of arrays"),
        (lambda block: None, "array of numbers"),
        (lambda block: 1.0, "array of numbers"),
        (lambda block: np.array(["a", "b"]), "array of numbers"),
        (lambda block: [[1.0], [1.0, 2.0]], "array of numbers"),
        (lambda block: {"a": block["x"], "b": [1.0]}, "different numbers of rows"),
    ],
)
def test_transform_that_fails(transform: Any, message: str) -> None:
    with pytest.raises(
        TransformError, match=rf"table, rows 0 to 1: the transform.*{message}|{message}"
    ):
        table_source(pa.table({"x": [1.0, 2.0]}), transform=transform)


def test_transform_keeps_the_cause() -> None:
    with pytest.raises(TransformError) as error:
        table_source(pa.table({"x": [1.0]}), transform=lambda block: 1 // 0)
    assert isinstance(error.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    "later",
    [
        lambda x: x.astype(int),
        lambda x: x[:, None],
        lambda x: {"other": x},
    ],
)
def test_transform_that_changes_its_mind(later: Any) -> None:
    batches = [pa.record_batch({"x": [1.0]}), pa.record_batch({"x": [2.0]})]

    def transform(block: dict[str, np.ndarray]) -> Any:
        return later(block["x"]) if block["x"][0] == 2 else block["x"]

    source = table_source(pa.Table.from_batches(batches), transform=transform)
    with pytest.raises(TransformError, match=r"for the first block 'batch': float64 \(rows\)"):
        read(source)


def test_masked_output_is_refused() -> None:
    table = pa.table({"x": [1.0, 2.0]})
    hidden = np.ma.masked_equal([1.0, 2.0], 2.0)
    with pytest.raises(MissingValueError, match="1 masked"):
        table_source(table, transform=lambda block: hidden)
    source = table_source(table, transform=lambda block: np.ma.masked_array(block["x"]))
    np.testing.assert_array_equal(read(source)["batch"], [1.0, 2.0])


def test_canonical_type_keeps_what_is_no_encoding() -> None:
    nested = pa.dictionary(pa.int8(), pa.string_view())
    assert canonical_type(nested) == pa.large_string()
    assert canonical_type(pa.int8()) == pa.int8()


def test_a_column_used_twice_is_in_two_places() -> None:
    source = table_source(
        pa.table({"a": [1.0, 2.0], "b": [3.0, 4.0]}),
        columns={"x": ["a", "b"], "y": "a", "z": "a", "w": ["a"]},
    )
    (block,) = source.read(source.fragments[0])
    assert not any(
        np.shares_memory(block[one], block[other])
        for one, other in itertools.combinations(block, 2)
    )
    np.testing.assert_array_equal(block["y"], block["z"])


def floats(kind: str, n_rows: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=n_rows).astype(kind) for name in "abcde"}


@pytest.mark.parametrize("floating", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("start", [0, 1, 13])
def test_columns_side_by_side(kind: str, floating: str, start: int) -> None:
    """In the order that is asked for, wherever in memory they begin."""
    columns = floats(kind)
    table = pa.table(columns).slice(start, 20)
    with pytensor.config.change_flags(floatX=floating):
        source = table_source(table, columns=["d", "a", "e"])
        found = [block["batch"] for block in source.read(source.fragments[0])]
    expected = np.column_stack([columns[name][start : start + 20] for name in "dae"])
    assert found[0].dtype == floating
    np.testing.assert_array_equal(np.concatenate(found), expected.astype(floating))


def test_columns_of_which_one_has_a_dictionary_or_a_validity_bitmap() -> None:
    columns = floats("float64")
    missing = np.arange(40) < 3
    arrays: dict[str, Any] = {name: pa.array(column) for name, column in columns.items()}
    arrays["b"] = pa.array(np.repeat([0.5, 1.5], 20)).dictionary_encode()
    arrays["c"] = pa.array(columns["c"], mask=missing)
    table = pa.table(arrays).slice(5)  # nulls are left behind
    source = table_source(table, columns=["a", "b", "c"])
    (block,) = source.read(source.fragments[0])
    expected = np.column_stack([columns["a"], np.repeat([0.5, 1.5], 20), columns["c"]])[5:]
    np.testing.assert_array_equal(block["batch"], expected)
    with pytest.raises(MissingValueError, match="column 'c' holds 1 null"):
        table_source(pa.table(arrays).slice(2), columns=["a", "c"])


def test_columns_outlive_their_batch() -> None:
    columns = floats("float64", 100_000)
    source = table_source(pa.table(columns))
    layout = source.layout
    rows = [rows for fragment in source.fragments for rows in source.rows(fragment)]
    del source
    found = np.concatenate([each.block(layout)["batch"] for each in rows])
    np.testing.assert_array_equal(found, np.column_stack(list(columns.values())))
