"""When it is time to save."""

from __future__ import annotations

import time

import pytest

from pymc_streaming import errors
from pymc_streaming.checkpoints import Schedule


def test_by_time(monkeypatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    schedule = Schedule("1min 30s")
    for now, due in (  # noqa: B007
        (100, False),
        (189, False),
        (190, True),
        (279, False),
        (281, True),
    ):
        assert schedule.is_due(10**9) is due


def test_by_steps() -> None:
    schedule = Schedule(10)
    assert [schedule.is_due(steps) for steps in (9, 1, 25, 5, 5)] == [
        False,
        True,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("every", ["5", "min", "5 days", "", "0s", 0, -1, 1.5, True])
def test_what_cannot_be_meant(every) -> None:
    with pytest.raises(errors.ArgumentError, match="checkpoint_every must be"):
        Schedule(every)
