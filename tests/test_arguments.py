from __future__ import annotations

import numpy as np
import pytest

from pymc_streaming.arguments import (
    one_of,
    parse_bytes,
    random_generator,
    seed_or_drawn,
    whole_number,
)
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


@pytest.mark.parametrize("seed", ["one", 1.5, -1])
def test_no_seeds_of_a_generator(seed):
    with pytest.raises(ArgumentError, match=r"random_seed must be a whole number, a numpy"):
        random_generator(seed)


def test_a_generator_stays_the_one_that_it_is():
    generator = np.random.default_rng(1)
    assert random_generator(generator) is generator


@pytest.mark.parametrize("value", ["c", "", None, 3, "A", ["a"]])
def test_none_of_the_options(value):
    with pytest.raises(ArgumentError, match="way must be 'a' or 'b', found"):
        one_of("way", value, ("a", "b"))
    assert one_of("way", "b", ("a", "b")) == "b"
