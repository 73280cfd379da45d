from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymc_streaming import limits
from pymc_streaming.errors import ArgumentError
from pymc_streaming.limits import ENVIRONMENT, check_fraction, check_limit, memory_limit

GIB = 2**30
OWN = 1 * GIB  # what the process has already


@pytest.fixture(autouse=True)
def own_memory(monkeypatch):
    """A process of a known size."""

    class Process:
        def memory_info(self):
            return type("Info", (), {"rss": OWN})

    monkeypatch.setattr(limits.psutil, "Process", Process)


@pytest.fixture
def limit(tmp_path):
    """`memory_limit` on a machine with 16 GiB free, and the control groups in `tmp_path`."""

    def found(given=None, fraction=0.75, environment=None, free=16 * GIB):
        return memory_limit(
            given,
            fraction,
            environment=environment or {},
            free=free,
            groups=tmp_path / "groups",
            membership=tmp_path / "membership",
        )

    return found


def member(folder: Path, *lines: str) -> None:
    (folder / "membership").write_text("".join(f"{line}\n" for line in lines))


def group(folder: Path, path: str, **files: object) -> None:
    place = folder / "groups" / path
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / f"memory.{name}").write_text(f"{text}\n")


def test_a_part_of_free_memory_and_of_what_the_process_has(limit) -> None:
    assert limit().nbytes == int(0.75 * 17 * GIB)
    assert limit().source == "0.75 of free memory"
    assert limit(fraction=0.5).nbytes == 17 * GIB // 2
    assert limit(free=8 * GIB).nbytes == int(0.75 * 9 * GIB)


def test_by_default_free_memory_is_what_the_system_says(monkeypatch, tmp_path) -> None:
    memory = type("Memory", (), {"available": 3 * GIB})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    found = memory_limit(fraction=1.0, environment={}, membership=tmp_path / "none")
    assert found.nbytes == 4 * GIB


def test_the_environment_and_above_it_the_argument(limit) -> None:
    environment = {ENVIRONMENT: " 8GB "}
    assert limit(environment=environment).nbytes == 8 * 10**9
    assert limit(environment=environment).source == ENVIRONMENT
    # The fraction is not taken of a limit that is given.
    assert limit(environment=environment, fraction=0.1).nbytes == 8 * 10**9
    found = limit(4 * 10**9, environment=environment)
    assert (found.nbytes, found.source) == (4 * 10**9, "memory_limit")
    assert limit(environment={ENVIRONMENT: ""}) == limit()
    with pytest.raises(ArgumentError, match=rf"{ENVIRONMENT} must be bytes.*found 'much'"):
        limit(environment={ENVIRONMENT: "much"})


def test_no_more_is_given_than_there_is(limit) -> None:
    found = limit(48 * 10**9)
    assert found.nbytes == 17 * GIB
    assert found.source == "free memory, less than memory_limit"


def test_version_2(limit, tmp_path) -> None:
    member(tmp_path, "0::/job")
    group(tmp_path, "job", max=6 * GIB, current=2 * GIB, stat=f"anon 5\ninactive_file {GIB // 2}")
    # 6 - (2 - 0.5), and the GiB that the process has is among what is used.
    assert limit().nbytes == int(0.75 * 5.5 * GIB)
    assert limit().source == "0.75 of what the container leaves"
    group(tmp_path, "job", high=5 * GIB)  # where the system begins to slow it down
    assert limit().nbytes == int(0.75 * 4.5 * GIB)
    group(tmp_path, "job", max="max", high="max")
    assert limit().source == "0.75 of free memory"


def test_a_group_holds_others(limit, tmp_path) -> None:
    member(tmp_path, "0::/outer/inner")
    group(tmp_path, "outer/inner", max="max", current=GIB)
    group(tmp_path, "outer", max=4 * GIB, current=2 * GIB)
    assert limit(fraction=1.0).nbytes == 3 * GIB
    group(tmp_path, "outer/inner", max=2 * GIB)
    assert limit(fraction=1.0).nbytes == 2 * GIB


def test_version_1(limit, tmp_path) -> None:
    member(tmp_path, "9:name=systemd:/", "4:cpu,memory:/job", "0::/")
    stat = f"inactive_file 1\ntotal_inactive_file {GIB}"
    group(tmp_path, "memory/job", limit_in_bytes=6 * GIB, usage_in_bytes=3 * GIB, stat=stat)
    group(tmp_path, "memory", limit_in_bytes=9223372036854771712, usage_in_bytes=9 * GIB)
    assert limit(fraction=1.0).nbytes == 5 * GIB


def test_a_container_that_sees_its_own_root_only(limit, tmp_path) -> None:
    member(tmp_path, "4:memory:/docker/abcdef")
    group(tmp_path, "memory", limit_in_bytes=3 * GIB, usage_in_bytes=2 * GIB)
    assert limit(fraction=1.0).nbytes == 2 * GIB


def test_a_group_that_is_full_leaves_nothing_more(limit, tmp_path) -> None:
    member(tmp_path, "0::/")
    group(tmp_path, "", max=GIB, current=2 * GIB)
    assert limit(fraction=1.0).nbytes == OWN


@pytest.mark.parametrize(
    "lines", [[], ["0::/job"], ["nonsense"], ["1:2"], [""], ["0::/../../x"], ["5:memory:"]]
)
def test_groups_without_files(limit, tmp_path, lines) -> None:
    member(tmp_path, *lines)
    assert limit().source == "0.75 of free memory"
    group(tmp_path, "job", max="lots", current="", stat="inactive_file\nx y z")
    assert limit().source == "0.75 of free memory"


@given(
    free=st.integers(0, 2**40),
    allowed=st.integers(0, 2**40),
    used=st.integers(0, 2**40),
    fraction=st.floats(0.01, 1.0),
    asked=st.none() | st.integers(1, 2**41),
)
def test_the_smallest_of_all(free, allowed, used, fraction, asked, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("groups")
    member(folder, "0::/")
    group(folder, "", max=allowed, current=used)
    can_be_had = OWN + min(free, max(0, allowed - used))
    expected = int(fraction * can_be_had) if asked is None else min(asked, can_be_had)
    found = memory_limit(
        asked,
        fraction,
        environment={},
        free=free,
        groups=folder / "groups",
        membership=folder / "membership",
    )
    assert found.nbytes == expected


@pytest.mark.parametrize("fraction", [0, -0.5, 1.5, math.nan, math.inf, True, "0.5", None, 10**400])
def test_no_fraction(fraction) -> None:
    with pytest.raises(ArgumentError, match="memory_fraction must be a number above 0"):
        check_fraction(fraction)


def test_fractions() -> None:
    assert [check_fraction(each) for each in (1, 0.75, np.float32(0.5))] == [1.0, 0.75, 0.5]


@pytest.mark.parametrize(
    "given", ["", "lots", "-1GB", -1, 0, "0", "0GB", True, 1.5, None, "1 PB", 16, "512"]
)
def test_no_limit(given) -> None:
    with pytest.raises(ArgumentError, match=r"^memory_limit must be"):
        check_limit("memory_limit", given)


def test_limits() -> None:
    given = [2**20, "1048576", "0.5GB", "2 GiB", np.int64(2**21), " 2000000 "]
    expected = [2**20, 2**20, 5 * 10**8, 2**31, 2**21, 2_000_000]
    assert [check_limit("x", each) for each in given] == expected
