from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymc_streaming import Plan
from pymc_streaming.limits import MemoryLimit
from pymc_streaming.planning.strategy import Way, choose

MIB = 2**20
WAYS = [
    Way("in_memory", 10, 50, {"process now": 400 * MIB, "table": 600 * MIB}),
    Way("accumulate", 10, 50, {"process now": 400 * MIB, "sample": 100 * MIB}),
    Way("accumulate", 10, 5, {"process now": 400 * MIB, "sample": 10 * MIB}, "of 5 rows"),
]


def chosen(mib: int, asked: str = "auto", ways=WAYS) -> Plan:
    return choose(asked, ways, 1_000, MemoryLimit(mib * MIB, "memory_limit"))


@pytest.mark.parametrize(
    ("mib", "strategy", "sample_rows", "reason"),
    [
        (1000, "in_memory", 50, "it fits"),
        (999, "accumulate", 50, "in_memory would take 1,000 MiB, accumulate fits"),
        (
            499,
            "accumulate",
            5,
            (
                "in_memory would take 1,000 MiB, accumulate would take 500 MiB, "
                "accumulate of 5 rows fits"
            ),
        ),
    ],
)
def test_the_first_that_fits(mib, strategy, sample_rows, reason) -> None:
    plan = chosen(mib)
    assert (plan.strategy, plan.sample_rows, plan.reason) == (strategy, sample_rows, reason)
    assert plan.fits
    assert not plan.is_fallback


def test_nothing_fits() -> None:
    plan = chosen(1)
    assert (plan.strategy, plan.sample_rows, plan.fits) == ("accumulate", 5, False)
    assert plan.reason.endswith("accumulate of 5 rows takes least, and exceeds the limit")


def test_what_was_asked_for() -> None:
    assert chosen(1000, "in_memory").reason == "as asked for, and it fits"
    assert not chosen(1000, "in_memory").is_fallback
    assert chosen(999, "in_memory").is_fallback
    assert not chosen(499, "accumulate", WAYS[1:]).is_fallback


def test_one_line() -> None:
    assert str(chosen(999)) == (
        "strategy accumulate: 1,000 rows, estimated peak 500 MiB, limit 999 MiB (memory_limit), "
        "blocks of 10 rows; in_memory would take 1,000 MiB, accumulate fits"
    )


@given(st.lists(st.integers(0, 1000), min_size=1), st.integers(0, 1000))
def test_the_most_memory_within_the_limit(sizes, limit) -> None:
    sizes = sorted(sizes, reverse=True)
    ways = [Way(f"way {i}", 1, 0, {"all": nbytes}) for i, nbytes in enumerate(sizes)]
    plan = choose("auto", ways, 1, MemoryLimit(limit, "memory_limit"))
    assert plan.peak_bytes == max((size for size in sizes if size <= limit), default=sizes[-1])
    assert plan.fits == (sizes[-1] <= limit)
