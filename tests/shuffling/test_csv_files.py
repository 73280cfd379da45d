from __future__ import annotations

import csv
import datetime as dt
import logging
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given

from pymc_streaming import preshuffle
from pymc_streaming.errors import SchemaError
from pymc_streaming.shuffling.inputs import open_table
from tests.tables import expected_order, rows_of

DAY, NOON = dt.date(2020, 2, 29), dt.datetime(2020, 2, 29, 12)


def write_csv(path: Path, columns: dict[str, list[str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def read(path: Path, columns: list[str] | None = None) -> pa.Table:
    """The table in the order of the file."""
    table = open_table(path, columns)
    return pa.Table.from_batches(
        (batch for unit in table.units() for batch, _ in table.read(unit)), table.stored
    )


@pytest.mark.parametrize(
    ("texts", "kind", "values"),
    [
        (["1", "-20", "0"], pa.int64(), [1, -20, 0]),
        ([" 1", "2 ", "\t3"], pa.int64(), [1, 2, 3]),
        (["1", "", "NA"], pa.int64(), [1, None, None]),
        (["9223372036854775807", "1", "2"], pa.int64(), [2**63 - 1, 1, 2]),
        (["9223372036854775808", "9223372036854775809", "1"], pa.string(), None),
        (["12345678901234567890123", "0.5", "1"], pa.string(), None),
        (["9007199254740993", "0.5", "1"], pa.string(), None),
        (["9007199254740993.0", "0.5", "1"], pa.string(), None),
        (["9007199254740993e0", "0.5", "1"], pa.string(), None),
        (["-12345678901234567890.0", "0.5", "1"], pa.string(), None),
        (["12345678901234567168.0", "1.2345678901234567e+19", "1e23"], pa.float64(),
         [12345678901234567168.0, 1.2345678901234567e19, 1e23]),
        (["1.234567890123456717e+19", "0.1", "9007199254740992.0"], pa.float64(),
         [1.2345678901234567e19, 0.1, 2.0**53]),
        (["9007199254740991", "0.5", "-0"], pa.float64(), [2.0**53 - 1, 0.5, 0.0]),
        (["00012", "1", "2"], pa.string(), None),
        (["0.5", "00.5", "1"], pa.string(), None),
        (["-0.5", "-007", "1"], pa.string(), None),
        (["+4930901820", "+4930901821", "1"], pa.string(), None),
        (["0x1F", "1", "2"], pa.string(), None),
        (["1e400", "1", "2"], pa.string(), None),
        (["1e-400", "1", "2"], pa.string(), None),
        (["0e5", "0.0", ".0"], pa.float64(), [0.0, 0.0, 0.0]),
        (["+1.5", "1e300", "-inf"], pa.float64(), [1.5, 1e300, float("-inf")]),
        (["1", "nan", "2.5"], pa.float64(), [1.0, None, 2.5]),
        (["true", "False", "TRUE"], pa.bool_(), [True, False, True]),
        (["true", "1", "0"], pa.string(), None),
        (["0", "1", "0"], pa.int64(), [0, 1, 0]),
        (["2020-02-29", "", "2020-02-29"], pa.date32(), [DAY, None, DAY]),
        (["2020-02-29", "2020-02-29 12:00:00", ""], pa.timestamp("s"),
         [dt.datetime(2020, 2, 29), NOON, None]),
        (["2020-02-29T14:00:00+02:00", "2020-02-29T12:00:00Z", ""], pa.timestamp("s", "UTC"),
         [NOON.replace(tzinfo=dt.UTC), NOON.replace(tzinfo=dt.UTC), None]),
        (["3000-01-01 00:00:00.5", "", "2020-01-01"], pa.string(), None),
        (["NA", "", "null"], pa.string(), None),
        (["NA", "", "text"], pa.string(), None),
        (["12:30", "12:31", "1"], pa.string(), None),
    ],
)  # fmt: skip
def test_types_that_keep_every_value(texts, kind, values, tmp_path):
    found = read(write_csv(tmp_path / "a.csv", {"x": texts, "y": ["1", "2", "3"]}))
    assert found.schema.types == [kind, pa.int64()]
    assert found["x"].to_pylist() == (texts if values is None else values)


@given(st.lists(st.one_of(
    st.integers().map(str), st.integers(0, 99).map("{:04d}".format), st.floats().map(repr),
    st.sampled_from(["", "NA", "nan", "1e5", "+1", ".5", "0x5", "true", "2020-01-01", " 7"]),
    st.text("0123456789+-.eE ", max_size=6),
), min_size=1, max_size=4))  # fmt: skip
def test_no_value_changes(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("csv")
    found = read(write_csv(folder / "a.csv", {"x": texts, "y": ["1"] * len(texts)}))["x"]
    for text, value in zip(texts, found.to_pylist(), strict=True):
        if isinstance(value, bool | str | dt.date):
            assert str(value).lower() == text.lower()
        elif value is None:
            assert text.lower() in {"", "na", "nan"}
        elif isinstance(value, int):
            assert str(value) == text.strip()
        else:
            assert float(text) == value
            if text.strip().lstrip("-").isdigit():
                assert int(text) == value


def test_an_empty_line_is_a_row_where_there_is_one_column(tmp_path):
    """So other programs write a null; with more columns its row has commas."""
    (tmp_path / "a.csv").write_text("x\n1\n\n3\n")
    assert read(tmp_path / "a.csv").to_pydict() == {"x": [1, None, 3]}
    preshuffle(tmp_path / "a.csv", tmp_path / "out", progressbar=False)
    assert rows_of(tmp_path / "out")["x"].null_count == 1
    (tmp_path / "b.csv").write_text("\nx,y\n1,2\n\n3,4\n\n")
    assert read(tmp_path / "b.csv", ["x"]).to_pydict() == {"x": [1, 3]}
    (tmp_path / "c.csv").write_text("\nx\n1\n")
    with pytest.raises(SchemaError, match=r"c\.csv: expected the name of the column in the first"):
        read(tmp_path / "c.csv")


def test_types_come_from_all_rows_of_all_files(tmp_path):
    rows = "1,\n" * 400_000  # more than one block
    (tmp_path / "a.csv").write_text("x,y\n" + rows)
    assert open_table(tmp_path / "a.csv", None).stored.types == [pa.int64(), pa.string()]
    write_csv(tmp_path / "b.csv", {"y": ["2"], "x": ["0.5"]})
    write_csv(tmp_path / "c.csv", {"x": [], "y": []})
    table = open_table(tmp_path, None)
    assert (table.stored.names, table.n_rows) == (["x", "y"], 400_001)
    assert table.stored.types == [pa.float64(), pa.int64()]
    (tmp_path / "d.csv").write_text("x,y\n" + rows + "one,3\n")
    assert open_table(tmp_path, None).stored.types == [pa.string(), pa.int64()]


def test_a_shuffle_keeps_codes(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    texts = [f"{number:05d}" for number in range(50)]
    write_csv(tmp_path / "a.csv", {"zip": texts, "name": [f"n{t}" for t in texts]})
    preshuffle(tmp_path / "a.csv", tmp_path / "out", progressbar=False)
    assert rows_of(tmp_path / "out")["zip"].to_pylist() == [texts[i] for i in expected_order(50, 0)]
    assert "Column 'zip' is kept as text: as a number, '00000' would be changed." in caplog.text
    assert "'name'" not in caplog.text
    with pytest.raises(SchemaError, match="'zip' holds strings"):
        preshuffle(tmp_path / "a.csv", tmp_path / "32", dtype="float32", progressbar=False)


def test_only_the_columns_asked_for_are_read(tmp_path):
    path = write_csv(tmp_path / "a.csv", {"x": ["1"], "y": ["00"], "z": ["2"]})
    found: Any = read(path, ["z", "x"])
    assert found.to_pydict() == {"z": [2], "x": [1]}


def test_other_separators_are_not_taken_for_one_column(tmp_path):
    for separator in ";\t|":
        (tmp_path / "a.csv").write_text(f"x{separator}y\n1{separator}2\n")
        with pytest.raises(SchemaError, match=r"a\.csv: expected commas between the fields, found"):
            open_table(tmp_path / "a.csv", None)


@pytest.mark.parametrize(
    ("first", "warned"),
    [("x,y", False), ("0,1", False), ("1,2", True), ("-0.5,1e9", True), ("1,y", False)],
)
def test_a_first_line_that_looks_like_a_row(first, warned, tmp_path, caplog):
    (tmp_path / "a.csv").write_text(f"{first}\n1,2\n")
    open_table(tmp_path / "a.csv", None)
    assert ("is read as the names of the columns" in caplog.text) == warned


def test_a_column_that_is_there_twice(tmp_path):
    (tmp_path / "a.csv").write_text("x,x,y\n1,2,3\n")
    with pytest.raises(SchemaError, match=r"a\.csv: column 'x' is there more than once"):
        open_table(tmp_path / "a.csv", None)
    assert read(tmp_path / "a.csv", ["y"]).to_pydict() == {"y": [3]}
