"""Saving what runs while it runs."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from pymc_streaming import errors
from pymc_streaming.checkpoints import CheckpointFolder, Keeper, Schedule, State


def keeper_in(folder, state) -> Keeper:
    return Keeper(CheckpointFolder(folder, 2), Schedule(2), lambda: state)


def test_it_saves_when_it_is_time(tmp_path) -> None:
    with keeper_in(tmp_path, State({"x": np.zeros(1)})) as keeper:
        seen = []
        for _ in range(4):
            keeper.reached(1)
            seen.append(keeper.latest)
    assert seen[0] is None
    assert seen[1] == seen[2] != seen[3]


def test_there_may_be_nothing_to_save_yet(tmp_path) -> None:
    with keeper_in(tmp_path, None) as keeper:
        keeper.save()
    assert keeper.latest is None


def test_signals_wait_for_what_is_done_wholly(tmp_path) -> None:
    done = []

    def doing(keeper: Keeper) -> None:
        with keeper.whole():
            with keeper.whole():
                os.kill(os.getpid(), signal.SIGINT)
                done.append(1)
            done.append(2)
        done.append(3)

    with keeper_in(tmp_path, None) as keeper, pytest.raises(KeyboardInterrupt):
        doing(keeper)
    assert done == [1, 2]


def test_signals_are_left_alone_without_a_folder() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Keeper() as keeper:
        assert signal.getsignal(signal.SIGTERM) is before
        keeper.reached(10**9)
        keeper.save()


def test_handlers_are_put_back(tmp_path) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with keeper_in(tmp_path, None):
        pass
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_handler_of_the_user_is_heard(tmp_path) -> None:
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with keeper_in(tmp_path, None):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [1]


def test_after_sigterm_the_process_ends_as_it_would_have(tmp_path) -> None:
    program = f"""
        import os, signal
        from pathlib import Path
        from pymc_streaming.checkpoints import CheckpointFolder, Keeper, Schedule, State

        with Keeper(CheckpointFolder(Path({str(tmp_path)!r}), 2), Schedule(1), State) as keeper:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt:
                keeper.save()
        print("not reached")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, check=False
    )
    assert ended.returncode == -signal.SIGTERM
    assert ended.stdout == b""
    assert CheckpointFolder(tmp_path, 2).newest() is not None


def test_a_checkpoint_that_cannot_be_written_is_no_end(tmp_path, monkeypatch, caplog) -> None:
    with keeper_in(tmp_path, State()) as keeper:
        keeper.save()
        first = keeper.latest

        def full(handle):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        keeper.save()
    assert keeper.latest == first
    assert "No checkpoint was written" in caplog.text


def test_a_folder_that_is_in_use_is_refused(tmp_path) -> None:
    with (
        keeper_in(tmp_path, None),
        pytest.raises(errors.OutputExistsError),
        keeper_in(tmp_path, None),
    ):
        pass


def test_in_another_thread_signals_are_left_alone(tmp_path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with keeper_in(tmp_path, State()) as keeper:
            seen.append(signal.getsignal(signal.SIGTERM))
            keeper.save()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
    assert CheckpointFolder(tmp_path, 2).newest() is not None
