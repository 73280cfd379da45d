from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from pymc_streaming import (
    ArraySpec,
    Fragment,
    IterableDataset,
    array_source,
    errors,
    generator_source,
    order_report,
    parquet_source,
)
from pymc_streaming.loader.loader import DEFAULT_BYTES
from pymc_streaming.ordering import report as report_module
from pymc_streaming.ordering import sampling
from tests.test_real_data import CRITEO, FLIGHTS, needs_criteo, needs_flights

N = 40_000


def columns(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=N)
    return {
        "x": x,
        "heavy": rng.standard_cauchy(size=N),
        "y": 0.5 * x + rng.normal(size=N),
        "rare": (rng.random(N) < 2e-3).astype(np.int8),
        "code": rng.integers(0, 20, N),
        "word": rng.choice(["red", "green", "blue"], N),
    }


def written(path: Path, table: dict, row_group_size: int = 2_000) -> Path:
    pq.write_table(pa.table(table), path, row_group_size=row_group_size)
    return path


def ordered_columns(report) -> set[str]:
    return {column.name for column in report.columns if column.ordered}


def test_a_shuffled_table(tmp_path):
    report = order_report(written(tmp_path / "t.parquet", columns()))
    assert report.verdict == "shuffled"
    assert ordered_columns(report) == set()
    assert report.relations == ()
    assert (report.rows, report.fragments, report.shards) == (N, 20, 1)
    assert "as it is" in report.recommendation
    assert report.error_in_order == report.error_buffered == 0.0


ORDERS = {
    "sorted": ("y", lambda t: np.argsort(t["y"])),
    "by heavy tails": ("heavy", lambda t: np.argsort(t["heavy"])),
    "groups first": ("rare", lambda t: np.argsort(-t["rare"], kind="stable")),
    "codes in blocks": (
        "code",
        lambda t: np.argsort(np.random.default_rng(1).permutation(20)[t["code"]], kind="stable"),
    ),
    "words": ("word", lambda t: np.argsort(t["word"], kind="stable")),
    "within fragments": ("x", lambda t: np.lexsort((t["x"], np.arange(N) // 2_000))),
    "drift": ("x", lambda t: np.argsort(0.1 * t["x"] + np.random.default_rng(1).normal(size=N))),
}


@pytest.mark.parametrize("order", ORDERS)
def test_orders_are_found_and_named(order, tmp_path):
    name, make = ORDERS[order]
    table = columns()
    rows = make(table)
    report = order_report(
        written(tmp_path / "t.parquet", {key: value[rows] for key, value in table.items()})
    )
    assert report.verdict == "ordered"
    assert name in ordered_columns(report)
    assert ordered_columns(report) <= {"x", "y"} | {name}
    assert name in report.reason or len(ordered_columns(report)) > 1


def test_a_relation_that_drifts_is_found_and_named():
    table = columns()
    table["y"] = np.linspace(-0.4, 0.4, N) * table["x"] + np.random.default_rng(2).normal(size=N)
    report = order_report({key: table[key] for key in ("x", "y", "rare")})
    assert report.verdict == "ordered"
    assert ordered_columns(report) == set()
    assert report.relations[0].columns == ("x", "y")
    assert "relation of columns 'x' and 'y'" in report.reason


def test_a_spread_that_drifts_is_found():
    values = np.linspace(0.8, 1.2, N) * np.random.default_rng(0).normal(size=N)
    report = order_report({"x": values})
    assert report.relations[0].columns == ("x", "x")
    assert "spread of column 'x'" in report.reason


def test_nulls_that_follow_the_order_are_found(tmp_path):
    rng = np.random.default_rng(0)
    late = rng.random(N) < np.linspace(0.0, 0.2, N)
    table = {"x": pa.array(rng.normal(size=N), mask=late)}
    assert ordered_columns(order_report(written(tmp_path / "t.parquet", table))) == {"x"}


def test_every_type_is_listed_and_judged_where_it_can_be(tmp_path):
    rng = np.random.default_rng(0)
    table = {
        "date": pa.array(np.sort(rng.integers(0, 400, N)).astype("int32")).cast(pa.date32()),
        "when": pa.array(rng.integers(0, 10**15, N)).cast(pa.timestamp("us", "UTC")),
        "took": pa.array(rng.integers(0, 10**9, N)).cast(pa.duration("us")),
        "price": pa.array(rng.normal(size=N).round(2)).cast(pa.decimal128(10, 2)),
        "flag": rng.random(N) < 0.5,
        "level": pa.array(rng.choice(["a", "b"], N)).dictionary_encode(),
        "list": pa.array([[1.0, 2.0]] * N),
        "blob": pa.array([b"x"] * N),
        "same": np.ones(N),
        "missing": pa.nulls(N, pa.float64()),
    }
    report = order_report(written(tmp_path / "t.parquet", table))
    assert [column.name for column in report.columns] == list(table)
    judged = {column.name: column.ordered for column in report.columns}
    assert judged == {
        "date": True, "when": False, "took": False, "price": False, "flag": False, "level": False,
        "list": None, "blob": None, "same": None, "missing": None,
    }  # fmt: skip
    reasons = {c.name: c.evidence for c in report.columns if c.ordered is None}
    assert reasons["list"] == ("no single values",)
    assert reasons["same"] == ("too few distinct values",)
    assert report.schema["date"] == "date32[day]"


FEW = 3_000
TEXTS = [f"{i:06d}" for i in range(FEW)]
ALMOST_ALL = (np.arange(FEW) >= FEW - 60).astype(int)


def unusual() -> dict[str, pa.Array]:
    """Columns in order, of types that Arrow can do less with."""
    numbers = pa.array(np.arange(FEW))
    half = pa.array((np.arange(FEW) >= FEW // 2).astype(np.int8))
    return {
        "binary": pa.array([text.encode() for text in TEXTS], pa.binary()),
        "binary view": pa.array([text.encode() for text in TEXTS], pa.binary_view()),
        "dictionary of binary": pa.array([b"a", b"b"], pa.binary()).dictionary_encode().take(half),
        "bool8": pa.ExtensionArray.from_storage(pa.bool8(), half),
        "list": pa.array([[text] for text in TEXTS]),
        "struct": pa.array([{"a": i} for i in range(FEW)]),
        "string view": pa.array(TEXTS, pa.string_view()),
        "rare string view": pa.array([str(i) for i in ALMOST_ALL], pa.string_view()),
        "rare decimal": pa.array(ALMOST_ALL).cast(pa.decimal128(19)).cast(pa.decimal32(9)),
        "half": numbers.cast(pa.float16(), safe=False),
        "wide decimal": numbers.cast(pa.decimal256(50)),
    }


@pytest.mark.parametrize("form", ["parquet", "arrow", "memory"])
@pytest.mark.parametrize("name", unusual())
def test_no_type_stops_the_report(name, form, tmp_path):
    array = unusual()[name]
    table = pa.table({name: array, "x": np.random.default_rng(0).normal(size=FEW)})
    path = tmp_path / f"t.{form}"
    if form == "parquet":
        pq.write_table(table, path, row_group_size=500)
    elif form == "arrow":
        feather.write_feather(table, path, chunksize=500)
    report = order_report(table if form == "memory" else path)
    judged = name.endswith(("string view", "decimal", "half"))
    assert report.columns[0].ordered is (True if judged else None)
    assert report.columns[0].evidence == ("no single values",) or judged
    assert report.columns[1].ordered is False
    assert name in str(report)


def test_the_verdict_counts_the_columns_that_were_not_judged():
    rng = np.random.default_rng(0)
    table = pa.table({"list": pa.array([[i] for i in range(FEW)]), "x": rng.normal(size=FEW)})
    report = order_report(table)
    assert report.verdict == "unknown"
    assert "1 of 2 columns was not judged: the rows may be sorted by it." in report.reason
    assert report.columns[1].ordered is False
    assert "No order was found in x." in str(report)
    wider = order_report(table.append_column("y", pa.array(rng.normal(size=FEW))))
    assert wider.verdict == "shuffled"
    assert "; 1 of 3 columns was not judged" in wider.reason
    assert order_report(table, columns=["x"]).verdict == "shuffled"


@pytest.mark.parametrize("form", ["parquet", "memory"])
def test_infinities_are_the_largest_and_the_smallest_values(form, tmp_path):
    rng = np.random.default_rng(0)
    sign = np.where(np.arange(N) < N // 2, -np.inf, np.inf)
    usual = rng.random(N) < 0.5
    x = np.where(usual, rng.normal(size=N), sign)
    table = {"late": x, "anywhere": np.where(usual, x, rng.permutation(sign)), "sign": sign}
    path = written(tmp_path / "t.parquet", table)
    report = order_report(path if form == "parquet" else pa.table(table))
    assert {column.name: column.ordered for column in report.columns} == {
        "late": True, "anywhere": False, "sign": True,
    }  # fmt: skip
    assert "share of nulls" not in report.columns[0].findings


def test_of_a_source_it_is_the_batches_that_count(tmp_path):
    """A date that only a transform sees, and that does not reach the batch."""
    table = columns() | {"day": np.arange(N) // 100}
    path = written(tmp_path / "t.parquet", table)
    assert order_report(path).verdict == "ordered"
    assert order_report(path, columns=["x", "y"]).verdict == "shuffled"
    picked = parquet_source(path, columns=["x", "y"])
    assert order_report(picked).verdict == "shuffled"
    weekday = parquet_source(
        path, columns=["x", "day"], transform=lambda block: {"x": block["x"] + block["day"] % 1}
    )
    assert order_report(weekday).verdict == "shuffled"
    kept = parquet_source(path, columns=["x", "day"])
    assert ordered_columns(order_report(kept)) == {"day"}


def test_a_filter_that_keeps_one_stretch(tmp_path):
    """Footers describe rows that the filter drops."""
    table = columns() | {"day": np.repeat([0, 1], N // 2)}
    path = written(tmp_path / "t.parquet", table)
    source = parquet_source(path, columns=["x", "day"], filters=pc.field("day") == 1)
    assert order_report(source).verdict == "shuffled"


def test_a_product_that_cannot_be_tested_is_no_finding():
    """Two rare columns, of which three rows of 5,000 have both."""
    a, b = (np.zeros(5_000, bool) for _ in range(2))
    a[:125] = b[122:247] = True
    rows = np.random.default_rng(0).permutation(5_000)
    report = order_report({"a": a[rows], "b": b[rows]})
    assert report.relations == ()
    assert report.verdict == "shuffled"


class Promised(IterableDataset):
    is_shuffled = True

    def __init__(self):
        self.layout = {"x": ArraySpec((), np.dtype("float64"), ("x",))}
        self.fragments = [Fragment(10_000, "all")]

    def read(self, fragment):
        raise AssertionError("nothing is to be read")


def test_a_source_that_is_known_to_be_shuffled_is_not_read():
    report = order_report(Promised())
    assert report.verdict == "shuffled"
    assert "manifest" in report.reason
    assert report.sampled_rows == 0
    json.dumps(report.to_dict())
    assert "SHUFFLED" in str(report)


def endless():
    rng = np.random.default_rng(0)
    while True:
        yield rng.normal(size=1_000)


def sorted_endless():
    for start in range(10**9):
        yield np.full(1_000, float(start))


def test_unknown_where_too_little_can_be_known():
    few = order_report(np.random.default_rng(0).normal(size=500))
    assert few.verdict == "unknown"
    assert "few" in few.reason
    assert few.columns[0].ordered is None
    constant = order_report(np.ones(50_000))
    assert constant.verdict == "unknown"
    assert "distinct values" in constant.reason
    stream = order_report(generator_source(endless, n_rows=10**9))
    assert stream.verdict == "unknown"
    assert "beginning" in stream.reason
    assert "shuffle" in stream.recommendation


@pytest.mark.parametrize("n_groups", [1, 10])
def test_long_row_groups_that_are_ordered_only_late_are_no_shuffled_table(
    n_groups, tmp_path, monkeypatch
):
    monkeypatch.setattr(sampling, "LEAST_VALUES", 4_000)
    monkeypatch.setattr(sampling, "LEAST_ROWS", 4_000)
    monkeypatch.setattr(sampling, "DECODED_VALUES", 8_000)
    monkeypatch.setattr(sampling, "DEEP_VALUES", 16_000)
    monkeypatch.setattr(sampling, "BLOCK_ROWS", 1_000)
    x = np.random.default_rng(0).normal(size=N * n_groups)
    x.reshape(n_groups, N)[:, N // 2 :].sort()
    path = written(tmp_path / "t.parquet", {"x": x}, N)
    report = order_report(path, batch_size=100)
    assert report.verdict == "unknown"
    assert "lie too deep in long row groups" in report.reason
    assert report.covered < 0.5
    (column,) = report.columns
    assert (column.ordered, column.evidence) == (None, ("row groups too long",))
    assert "none found" not in str(report)
    monkeypatch.setattr(sampling, "DEEP_VALUES", 16_000_000)
    assert order_report(path).verdict == "ordered"


@pytest.mark.parametrize("n_holders", [1, 3])
def test_rare_rows_at_the_end_are_found_from_the_footers(n_holders, tmp_path):
    """Sixty of a million, which a sample hardly meets."""
    n, rng = 1_000_000, np.random.default_rng(0)
    late = np.zeros(n, np.int8)
    last = n - n_holders * 50_000 + rng.choice(n_holders * 50_000, 60, replace=False)
    late[last] = 1
    table = {"late": late, "even": rng.permutation(late)}
    table |= {f"x{i}": rng.normal(size=n).astype("float32") for i in range(16)}
    report = order_report(written(tmp_path / "t.parquet", table, 50_000))
    assert report.verdict == "ordered"
    assert ordered_columns(report) == {"late"}
    assert report.columns[0].evidence[0] == "ranges"


def test_of_an_order_that_only_footers_show_the_harm_is_not_guessed(tmp_path):
    n, rng = 1_000_000, np.random.default_rng(0)
    late = np.zeros(n, np.int8)
    late[n - rng.choice(50_000, 25, replace=False) - 1] = 1
    table = {"late": late} | {f"x{i}": rng.normal(size=n).astype("float32") for i in range(16)}
    path = written(tmp_path / "t.parquet", table, 50_000)
    report = order_report(path, buffer_size=10_000)
    assert (report.verdict, report.columns[0].evidence) == ("ordered", ("ranges",))
    assert report.error_in_order is report.error_buffered is None
    assert "cannot be told" in " ".join(str(report).split())
    json.dumps(report.to_dict(), allow_nan=False)


def test_probabilities_are_bounded_and_correlations_too():
    day = np.repeat(np.arange(20), 2_000)
    flip = np.tile([0.0, 1.0], N // 2)
    report = order_report({"day": day, "flip": flip, "same": day * 1.0})
    records = [*report.columns, *report.relations]
    assert min(record.p_value for record in records) == 1e-12
    lags = {column.name: column.lag_correlation for column in report.columns}
    assert lags["flip"] == pytest.approx(-1.0)
    assert all(abs(lag) <= 1.0 for lag in lags.values())


def test_a_batch_larger_than_the_table_counts_as_the_table():
    x = np.sort(np.random.default_rng(0).normal(size=5_000))
    small, large = (order_report({"x": x}, batch_size=size) for size in (5_000, 10**6))
    assert large.batch_size == 5_000
    assert large.columns[0].design_effect == small.columns[0].design_effect <= 1.0
    assert large.error_in_order == small.error_in_order


def test_reading_the_footers_is_timed(tmp_path):
    report = order_report(written(tmp_path / "t.parquet", columns()))
    assert 0 < report.footer_seconds < 60
    assert report.to_dict()["footer_seconds"] == report.footer_seconds
    assert order_report({"x": np.arange(N)}).footer_seconds is None


def test_a_generator_in_order_is_found_all_the_same():
    assert order_report(generator_source(sorted_endless, n_rows=10**9)).verdict == "ordered"


def test_the_same_seed_gives_the_same_report(tmp_path):
    path = written(tmp_path / "t.parquet", columns())
    first, second = (order_report(path, seed=3) for _ in range(2))
    assert first == second


def test_as_plain_data_and_as_text():
    report = order_report(
        {"day": np.arange(N) // 400, "x": np.random.default_rng(0).normal(size=N)}
    )
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["verdict"] == "ordered"
    assert plain["columns"][0]["name"] == "day"
    assert plain["columns"][0]["design_effect"] > 100
    assert set(plain) == set(report.to_dict())
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 80
    assert "day" in str(report)


def test_what_to_do_depends_on_what_a_buffer_can_do(tmp_path):
    y = np.sort(np.random.default_rng(0).normal(size=200_000))
    path = written(tmp_path / "with space.parquet", {"y": y}, 10_000)
    poor = order_report(path, batch_size=500, buffer_size=5_000)
    assert f"\n    pymc-streaming shuffle '{path}' shuffled --seed 0\n" in poor.recommendation
    assert poor.error_buffered > 0.1
    better = order_report(path, batch_size=500, buffer_size=50_000)
    assert "Raise the buffer to the whole table" in better.recommendation
    enough = order_report(path, batch_size=500)
    assert enough.buffer_size == 200_000
    assert enough.error_buffered == 0.0
    assert enough.recommendation.startswith("Stream it with shuffle=True")


def test_why_an_order_does_no_harm():
    small = order_report({"x": np.arange(20_000)})
    assert "In 10,000 steps, about 2,000 passes over the table, the order" in small.recommendation
    x = np.random.default_rng(0).normal(size=(50_000, 4))
    local = order_report({"x": np.sort(x, axis=1).ravel()})
    assert "too weak, or too local, to matter" in local.recommendation


def test_the_fit_is_the_trainers_default_or_longer_by_thousands():
    steps = [order_report(np.zeros(N), batch_size=size).steps for size in (14, 13, 10)]
    assert steps == [10_000, 11_000, 14_000]


def test_the_default_buffer_is_the_loaders():
    assert report_module.DEFAULT_BYTES == DEFAULT_BYTES


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"buffer_size": -1}, "buffer_size"),
        ({"seed": True}, "seed"),
        ({"columns": ["x"]}, "columns were chosen"),
        ({"columns": "x"}, "a list of names, found 'x'"),
        ({"columns": []}, "a list of names"),
    ],
)
def test_arguments_that_cannot_be_meant(options, match):
    with pytest.raises(errors.ArgumentError, match=match):
        order_report(np.zeros(10), **options)


def test_files_that_cannot_be_meant(tmp_path):
    with pytest.raises(errors.MissingFileError):
        order_report(tmp_path / "no.parquet")
    path = written(tmp_path / "t.parquet", columns())
    with pytest.raises(errors.SchemaError, match="Did you mean 'heavy'"):
        order_report(path, columns=["heavi"])
    pq.write_table(pa.table({"x": pa.array([], pa.float64())}), tmp_path / "empty.parquet")
    with pytest.raises(errors.RowCountError, match="no rows"):
        order_report(tmp_path / "empty.parquet")


def test_data_frames():
    frame = pd.DataFrame({"day": np.arange(N) // 400, "x": np.random.default_rng(0).normal(size=N)})
    assert ordered_columns(order_report(frame)) == {"day"}


def test_arrays_by_name_and_by_number():
    day = np.arange(N) // 400
    X = np.column_stack([np.random.default_rng(0).normal(size=N), day])
    assert ordered_columns(order_report(array_source({"X": X, "day": day}))) == {"X[:, 1]", "day"}


@needs_flights
def test_flights_are_in_the_order_of_their_dates():
    report = order_report(FLIGHTS)
    assert report.verdict == "ordered"
    date = report.columns[0]
    assert (date.name, date.ordered, date.range_trend) == ("date", True, 1.0)
    assert "ranges" in date.evidence
    assert date.design_effect == pytest.approx(4_096, rel=0.1)


@needs_flights
def test_the_documentation_shows_the_report_on_the_flights(monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "how-to" / "inspect-the-order.md"
    monkeypatch.chdir(FLIGHTS.parent)
    shown = str(order_report(FLIGHTS.name)).replace(FLIGHTS.name, "flights.parquet")
    assert f"```text\n{shown}\n```" in page.read_text()


@needs_criteo
def test_criteo_is_in_no_order():
    assert order_report(CRITEO).verdict == "shuffled"
