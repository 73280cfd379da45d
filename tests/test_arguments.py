from __future__ import annotations

import numpy as np
import pytest

from pymc_streaming.arguments import parse_bytes, seed_or_drawn, whole_number
from pymc_streaming.errors import ArgumentError


@pytest.mark.parametrize(
    ("value", "n_bytes"),
    [
        (0, 0),
        (np.int32(5), 5),
        ("7B", 7),
        ("64MB", 64_000_000),
        (" 64 mb ", 64_000_000),
        ("1.5kB", 1500),
        ("32 MiB", 2**25),
        ("2GiB", 2**31),
        ("1TB", 10**12),
    ],
)
def test_bytes(value, n_bytes):
    assert parse_bytes("room", value) == n_bytes


@pytest.mark.parametrize(
    "value", ["", "64", "MB", "64 M", "-1MB", "1e3MB", "64MBs", "64iB1", -1, 1.5, True, None]
)
def test_bytes_that_cannot_be_meant(value):
    with pytest.raises(ArgumentError, match=r"^room must be"):
        parse_bytes("room", value)


@pytest.mark.parametrize("value", [1, np.int64(1), np.uint8(1), 2**80])
def test_whole_numbers(value):
    found = whole_number("count", value)
    assert found == value
    assert type(found) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True, np.float64(1), np.True_, [1]])
def test_no_whole_numbers(value):
    with pytest.raises(ArgumentError, match=r"count must be a whole number of at least 1, found"):
        whole_number("count", value)


def test_seed():
    assert seed_or_drawn(0) == 0
    assert seed_or_drawn(None) != seed_or_drawn(None)
    with pytest.raises(ArgumentError, match="seed must be"):
        seed_or_drawn(-1)
