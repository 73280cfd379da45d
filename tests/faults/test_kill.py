"""A short version of ``python -m tests.faults.kill``."""

from __future__ import annotations

from tests.faults.kill import kill_fits, kill_shuffles


def test_fits_that_are_killed_lose_nothing(tmp_path) -> None:
    tally = kill_fits(tmp_path, ["steps", "passes", "rounds", "in memory"], kills=8, seed=1)
    assert tally.kills == 8
    assert (tally.different, tally.unreadable) == (0, 0)


def test_shuffles_that_are_killed_lose_nothing(tmp_path) -> None:
    tally = kill_shuffles(tmp_path, kills=4, seed=1)
    assert tally.kills == 4
    assert tally.different == 0
