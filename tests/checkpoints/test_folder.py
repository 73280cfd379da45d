"""The last few states, in a folder."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from pymc_streaming import errors
from pymc_streaming.checkpoints import CheckpointFolder, State


def numbered(number: int) -> State:
    return State({"x": np.full(3, float(number))}, {"number": number})


def test_the_newest_are_kept(tmp_path) -> None:
    with CheckpointFolder(tmp_path / "deep" / "folder", 3) as folder:
        assert folder.newest() is None
        paths = [folder.save(numbered(number)) for number in range(7)]
        assert sorted(folder.path.glob("checkpoint-*")) == paths[-3:]
        path, state = folder.newest()
    assert (path, state.facts) == (paths[-1], {"number": 6})
    with CheckpointFolder(folder.path, 3) as again:
        assert again.save(numbered(7)).name > path.name


def test_where_the_newest_is_damaged_the_one_before_it_is_taken(tmp_path, caplog) -> None:
    with CheckpointFolder(tmp_path, 3) as folder:
        first, second, third = (folder.save(numbered(number)) for number in range(3))
        third.write_bytes(third.read_bytes()[:-1])
        second.write_bytes(b"")
        with caplog.at_level(logging.WARNING):
            assert folder.newest()[0] == first
        assert second.name in caplog.text
        assert third.name in caplog.text
        first.write_bytes(b"no checkpoint")
        with pytest.raises(errors.CorruptCheckpointError, match="no checkpoint is whole"):
            folder.newest()


def test_what_was_being_written_is_removed(tmp_path) -> None:
    (tmp_path / "checkpoint-00000003.safetensors.part").write_bytes(b"half")
    (tmp_path / "notes.part").write_text("not ours")
    with CheckpointFolder(tmp_path, 3) as folder:
        assert folder.newest() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "notes.part"]


def test_one_at_a_time(tmp_path) -> None:
    with (
        CheckpointFolder(tmp_path, 3),
        pytest.raises(errors.OutputExistsError, match="another fit"),
        CheckpointFolder(tmp_path, 3),
    ):
        pass
    with CheckpointFolder(tmp_path, 3):
        pass


def test_a_folder_that_cannot_be(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(errors.OutputError, match="cannot be kept here"),
        CheckpointFolder(tmp_path / "file", 3),
    ):
        pass
