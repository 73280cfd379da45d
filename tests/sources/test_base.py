"""What every source is held to, by the one reader they share."""

from __future__ import annotations

import numpy as np
import pytest

from pymc_streaming import ArraySpec, DataLoader, Fragment, IterableDataset, errors
from pymc_streaming.sources import read_checked

FLOAT, INT = np.dtype("float64"), np.dtype("int64")


class Given(IterableDataset):
    """Yields the blocks it is given."""

    def __init__(self, *blocks, n_rows=4):
        self.layout = {"X": ArraySpec((2,), FLOAT, ("a", "b")), "k": ArraySpec((), INT, ("k",))}
        self.blocks = blocks
        self.fragments = [Fragment(n_rows, "part 3")]

    def read(self, fragment):
        yield from self.blocks


def block(rows=4, **changes):
    return {"X": np.arange(2.0 * rows).reshape(rows, 2), "k": np.arange(rows)} | changes


def read(source):
    return [rows.block(source.layout) for rows in read_checked(source, source.fragments[0])]


def test_what_conforms_passes():
    (found,) = read(Given(block()))
    np.testing.assert_array_equal(found["X"], block()["X"])
    assert found["k"].dtype == INT
    assert Given().n_rows == 4
    assert Given(n_rows=None).n_rows is None
    assert Given().columns == ("a", "b", "k")
    assert Given().row_nbytes == 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": np.arange(3)}, r"part 3.*different numbers of rows.*'X': 4, 'k': 3"),
        ({"X": np.zeros((4, 3))}, r"part 3.*'X' should have shape \(2,\).*\(4, 3\)"),
        ({"X": np.zeros(4)}, r"'X' should have shape \(2,\)"),
        ({"k": np.array(3)}, "'k' should have shape"),
        ({"k": np.arange(4.0)}, r"'k' should hold int64, found float64"),
        ({"X": np.array([["a", "b"]] * 4)}, "'X' should hold float64"),
        ({"other": np.arange(4)}, r"expected the arrays \['X', 'k'\], found \['X', 'k', 'other'\]"),
    ],
)
def test_what_does_not_conform_is_named(changes, message):
    with pytest.raises(errors.SchemaError, match=message):
        read(Given(block(**changes)))


def test_a_missing_array():
    with pytest.raises(errors.SchemaError, match=r"found \['X'\]"):
        read(Given({"X": np.zeros((4, 2))}))


def test_nan_names_place_and_column():
    X = np.zeros((4, 2))
    X[2, 1] = np.nan
    with pytest.raises(errors.MissingValueError, match=r"part 3.*1 NaN.*column 'b' at row 2"):
        read(Given(block(X=X)))


def test_infinity_is_a_number():
    X = np.zeros((4, 2))
    X[0], X[1] = np.inf, -np.inf
    (found,) = read(Given(block(X=X)))
    np.testing.assert_array_equal(found["X"], X)


@pytest.mark.parametrize("rows", [0, 3, 5, 8])
def test_rows_other_than_announced(rows):
    with pytest.raises(errors.RowCountError, match=r"part 3: expected 4 rows"):
        read(Given(block(rows)))


def test_what_is_read_is_not_the_array_of_the_source():
    given = block(X=np.asfortranarray(block()["X"]))
    (found,) = read(Given(given))
    for name, array in found.items():
        assert not np.shares_memory(array, given[name])
        assert array.flags.c_contiguous


def test_rows_are_written_from_anywhere_on_and_looked_at_there():
    X = np.arange(8.0).reshape(4, 2)
    X[0, 1] = np.nan
    (rows,) = read_checked(source := Given(block(X=X)), source.fragments[0])
    out = {name: spec.empty(2) for name, spec in source.layout.items()}
    assert not rows.write(1, out)
    np.testing.assert_array_equal(out["X"], X[1:3])
    np.testing.assert_array_equal(out["k"], [1, 2])
    with pytest.raises(errors.MissingValueError, match="rows from 0"):
        rows.write(0, out)


@pytest.mark.parametrize(
    ("given", "layout"),
    [
        (np.array([3_000_000_000]), "int32"),
        (np.array([2**63 + 1], "uint64"), "int64"),
        (np.array([2**53 + 1]), "float64"),
        (np.array([1e300]), "float32"),
    ],
)
def test_a_number_that_does_not_fit_is_refused(given, layout):
    source = Given({"x": given}, n_rows=1)
    source.layout = {"x": ArraySpec((), np.dtype(layout))}
    with pytest.raises((errors.PrecisionError, errors.SchemaError), match=r"part 3.*'x'"):
        read(source)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros(4), "should yield dicts of arrays by name, found ndarray"),
        (None, "should yield dicts of arrays by name, found NoneType"),
    ],
)
def test_a_block_that_is_no_dict(given, message):
    with pytest.raises(errors.SchemaError, match=rf"part 3.*{message}"):
        read(Given(given))


@pytest.mark.parametrize("returned", [None, {"X": np.zeros((4, 2)), "k": np.arange(4)}])
def test_read_that_does_not_yield(returned):
    source = Given()
    source.read = lambda fragment: returned
    with pytest.raises(errors.SchemaError, match=r"part 3: read should yield blocks"):
        read(source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": None}, "layout should be a dict of names and ArraySpec"),
        ({"layout": {}}, "layout should be a dict"),
        ({"layout": {"X": (2,)}}, "layout should be a dict"),
        ({"fragments": []}, "fragments should be a list of Fragment, at least one"),
        ({"fragments": [100, 50]}, "fragments should be a list of Fragment"),
    ],
)
def test_a_source_that_does_not_say_what_it_has(changes, message):
    source = Given(block())
    vars(source).update(changes)
    with pytest.raises(errors.SchemaError, match=rf"Given\.{message}"):
        DataLoader(source, 2)


def test_a_dtype_by_its_name():
    assert ArraySpec((2,), "float64").row_nbytes == 16
