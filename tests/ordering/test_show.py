from __future__ import annotations

import ast
import json
import shlex
from dataclasses import fields
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import pymc_streaming
from pymc_streaming import ColumnOrder, DataLoader, OrderReport, RelationOrder, order_report
from pymc_streaming.ordering.show import _bytes, as_text, print_report

N = 40_000
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "inspect-json.md"


def columns() -> dict:
    rng = np.random.default_rng(0)
    return {
        "day": np.arange(N) // 400,
        "noise": rng.normal(size=N),
        "word": np.sort(rng.choice(["red", "green", "blue"], N)),
        "late": pa.array(rng.normal(size=N), mask=rng.random(N) < np.linspace(0.0, 0.2, N)),
        "list": pa.array([[1.0]] * N),
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("it's a folder with a long name " + 40 * "x") / "t.parquet"
    pq.write_table(pa.table(columns()), path, row_group_size=2_000)
    return path


@pytest.fixture(scope="module")
def report(path):
    return order_report(path, batch_size=400, buffer_size=2_000)


def prose(report, width=80):
    return " ".join(as_text(report, width).split())


def test_it_begins_with_the_verdict_and_the_reason(report):
    first = as_text(report).split("\n\n")[0]
    assert first.startswith("ORDERED: the rows are not in random order. The ")
    assert "of column 'day'" in first


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("day", "The mean of column 'day' drifts."),
        ("late", "The share of nulls of column 'late' drifts."),
        ("word", "The mix of levels of column 'word' "),
    ],
)
def test_the_reason_says_what_of_the_column(path, name, what):
    assert what in order_report(path, columns=[name, "noise"]).reason


def test_relations_and_spreads_in_words():
    rng = np.random.default_rng(0)
    x = rng.normal(size=N)
    y = np.linspace(-0.4, 0.4, N) * x + rng.normal(size=N)
    text = as_text(order_report({"x": x, "y": y}))
    assert "The relation of columns 'x' and 'y' drifts." in " ".join(text.split())
    assert "\nx       relation to y drifts " in text
    spread = order_report({"x": np.linspace(0.8, 1.2, N) * x})
    assert "The spread of column 'x' drifts." in as_text(spread)
    assert "\nx       spread drifts " in as_text(spread)


def test_a_spread_explains_ranges_and_a_drift_explains_spreads(tmp_path):
    x = np.linspace(0.5, 1.5, N) * np.random.default_rng(0).normal(size=N)
    pq.write_table(pa.table({"x": x}), tmp_path / "t.parquet", row_group_size=2_000)
    text = as_text(order_report(tmp_path / "t.parquet"))
    assert "\nx       range differs between parts " in text
    assert "\nx       spread drifts " in text
    drift = order_report({"x": np.arange(N)})
    assert len(drift.relations) == 1
    assert "\nand 1 spread or relation of them\n" in as_text(drift)


def test_neighbours_and_stretches_in_words():
    rng = np.random.default_rng(0)
    x = np.sort(rng.normal(size=(N // 2, 2)), axis=1).ravel()  # pairs, smaller one first
    assert "depends on the row before" in order_report({"x": x}).reason


def test_what_a_fit_would_see(report):
    text = prose(report)
    assert "A fit of 10,000 steps with batches of 400 rows would be off" in text
    assert "shuffle=True and a buffer of 2,000 rows." in text
    whole = order_report({"x": np.arange(N)}, batch_size=400)
    assert "a buffer of 40,000 rows (the whole table)" in prose(whole)
    harmless = order_report({"x": np.arange(2_000)})
    assert "would be off by less than 0.1 posterior standard deviations" in prose(harmless)


def pasted(text):
    return [
        line.strip() for line in text.splitlines() if line.startswith("    ") and line[4] in "Dp"
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_what_can_be_pasted_is_never_broken(report, path, width):
    (command,) = pasted(as_text(report, width))
    assert shlex.split(command) == [
        "pymc-streaming", "shuffle", str(path), "shuffled", "--seed", "0",
    ]  # fmt: skip


def test_python_that_can_be_pasted(path):
    report = order_report(path, columns=["day"], batch_size=500)
    (line,) = pasted(report.recommendation)
    source = np.zeros(N)
    loader = eval(line, {"DataLoader": DataLoader, "source": source})
    assert (loader.batch_size, loader.buffer_size) == (500, N)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_the_source_can_be_pasted_too(kind, tmp_path):
    path = tmp_path / f"it's a table.{kind}"
    table = pa.table({"day": columns()["day"], "noise": columns()["noise"]})
    write = pq.write_table if kind == "parquet" else pyarrow.feather.write_feather
    write(table, path)
    text = order_report(path, columns=["day"], batch_size=500).recommendation
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    scope = {"DataLoader": DataLoader, f"{kind}_source": getattr(pymc_streaming, f"{kind}_source")}
    exec(lines[0], scope)
    loader = eval(lines[1], scope)
    assert [spec.columns for spec in scope["source"].layout.values()] == [("day",)]
    assert loader.buffer_size == N
    given = order_report(DataLoader(scope["source"], batch_size=500, shuffle=True))
    assert "source = " not in given.recommendation


def test_several_paths_are_shuffled_from_python(path):
    report = order_report([path], columns=["day"], batch_size=400, buffer_size=2_000)
    (line,) = pasted(report.recommendation)
    call = ast.parse(line, mode="eval").body
    assert ast.literal_eval(call.args[0]) == [str(path)]


@pytest.mark.parametrize("width", [60, 80])
def test_everything_else_fits_and_ends_without_spaces(report, width):
    lines = as_text(report, width).splitlines()
    assert max(len(line) for line in lines if not line.startswith("    ")) <= width
    assert not any(line != line.rstrip() for line in lines)


def test_what_was_not_judged_is_not_said_to_be_in_no_order(report):
    text = prose(report)
    assert "No order was found in noise." in text
    assert "list is not judged: no single values." in text
    two = order_report(pa.table({name: columns()["list"] for name in "ab"} | {"x": range(N)}))
    assert "2 columns are not judged (no single values): a and b." in prose(two)
    few = order_report({"x": np.random.default_rng(0).normal(size=500)})
    assert few.verdict == "unknown"
    assert "No order was found in x" not in prose(few)
    nothing_read = order_report(pa.table({"list": columns()["list"]}))
    assert "No order" not in prose(nothing_read)
    assert "No row was looked at." in prose(nothing_read)


def test_many_columns_are_cut_short():
    rng = np.random.default_rng(0)
    some = {f"sorted_{i}": np.sort(rng.normal(size=2_000)) for i in range(25)}
    text = as_text(order_report(some | {f"x{i}": rng.normal(size=2_000) for i in range(30)}))
    assert text.count("\nsorted_") == 20
    assert "and 5 more columns and " in text
    assert "No order was found in 30 columns: x0, x1, " in " ".join(text.split())


def test_a_name_that_would_disturb_the_terminal():
    text = as_text(order_report({"a\nb\x1b": np.arange(N)}))
    assert "\x1b" not in text
    assert r"a\nb\x1b" in text


def test_plurals_and_sizes():
    text = as_text(order_report(pa.table({"x": [1.0]})))
    assert text.endswith("1 row in 1 fragment, about 8 bytes in memory. All of it was looked at.")
    sizes = [0, 1, 1_023, 1_024, 5_000_000, 3 * 2**30, 2**50]
    assert [_bytes(size) for size in sizes] == [
        "0 bytes", "1 byte", "1,023 bytes", "1.0 KiB", "4.8 MiB", "3.0 GiB", "1,024.0 TiB",
    ]  # fmt: skip


def test_a_wide_terminal_does_not_make_long_lines(report):
    file = StringIO()
    print_report(report, Console(file=file, width=300))
    text = [line for line in file.getvalue().splitlines() if not line.startswith("    ")]
    assert 80 < max(map(len, text)) <= 100


def test_every_field_is_in_the_reference():
    page = REFERENCE.read_text()
    for record in (OrderReport, ColumnOrder, RelationOrder):
        for name in {f.name for f in fields(record)} - {"judgement", "ranges"}:
            assert f"`{name}`" in page


def test_json_is_strict(report):
    def refuse(constant):
        raise AssertionError(constant)

    text = json.dumps(report.to_dict(), allow_nan=False)
    plain = json.loads(text, parse_constant=refuse)
    late = plain["columns"][3]
    assert late["findings"]["share of nulls"][0] == "trend"
    assert plain["steps"] == 10_000


def test_numbers_that_json_has_not_become_null():
    column = ColumnOrder("x", "double", None, (), p_value=float("nan"))
    made = OrderReport(
        "unknown", "", "", (column,), (), (), None, 0, 1.0, 1, 0, None, None, {}, (), 1, 1, 1,
        float("inf"), np.float64(0.5),
    )  # fmt: skip
    plain = made.to_dict()
    assert plain["columns"][0]["p_value"] is None
    assert plain["error_in_order"] is None
    assert plain["error_buffered"] == 0.5
    json.dumps(plain, allow_nan=False)
