"""Which call of fit a program that is run again is at."""

from __future__ import annotations

import json

import pytest

from pymc_streaming import errors
from pymc_streaming.fits.calls import Call, Calls, Place

STEPS, PASSES = Call(1_000, None, "auto"), Call(None, 3, "auto")


def again(calls: Calls) -> Calls:
    """What a new process has of it."""
    new = Calls()
    new.load(json.loads(json.dumps(calls.to_dict())))
    return new


def test_a_program_that_is_run_again() -> None:
    calls = Calls()
    assert calls.place(STEPS, "auto") is Place.NEW
    calls.ended = True
    assert calls.place(PASSES, "auto") is Place.NEW
    # It was interrupted; here, and in a new process.
    assert calls.place(PASSES, "auto") is Place.INTERRUPTED
    calls = again(calls)
    assert calls.place(STEPS, "auto") is Place.PAST
    assert calls.place(PASSES, "auto") is Place.INTERRUPTED
    calls.ended = True
    assert calls.place(STEPS, "auto") is Place.NEW


def test_from_a_path() -> None:
    calls = Calls()
    calls.place(STEPS, None)
    assert again(calls).place(STEPS, "path") is Place.INTERRUPTED
    calls.ended = True
    assert again(calls).place(STEPS, "path") is Place.NEW


def test_without_resuming_an_interrupted_call_is_left_as_it_is() -> None:
    calls = Calls()
    calls.place(STEPS, None)
    assert calls.place(STEPS, None) is Place.NEW


@pytest.mark.parametrize(
    "other", [PASSES, Call(1_001, None, "auto"), Call(1_000, None, "streaming")]
)
def test_another_call_is_refused(other) -> None:
    calls = Calls()
    calls.place(STEPS, None)
    with pytest.raises(errors.CheckpointMismatchError, match=r"of a fit\(1_000\)"):
        again(calls).place(other, "auto")


def test_how_to_go_on() -> None:
    assert STEPS.to_resume == "fit(1_000, resume='auto')"
    assert Call(None, None, "auto").to_resume == "fit(resume='auto')"
