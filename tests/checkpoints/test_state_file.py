"""One state in one file."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pymc_streaming import errors
from pymc_streaming.checkpoints import State, read_state, write_state

DTYPES = ["float64", "float32", "int64", "uint64", "int8", "bool"]


@given(
    arrays=st.dictionaries(
        st.text("abc/", min_size=1, max_size=5),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, min_side=0, max_side=3))
        ),
        max_size=4,
    ),
    facts=st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.floats(), max_size=3),
)
def test_what_is_read_is_what_was_written(tmp_path_factory, arrays, facts) -> None:
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    write_state(path, State(arrays, facts))
    state = read_state(path)
    assert state.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        found = state.arrays[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(state.arrays[name], array)
    assert repr(state.facts) == repr(facts)  # NaN is not equal to itself
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "state.safetensors"
    write_state(path, State({"x": np.arange(5.0), "y": np.ones(3, bool)}, {"n": 1}))
    return path


def test_no_byte_can_be_changed_unnoticed(written) -> None:
    content = written.read_bytes()
    state = read_state(written)
    for place in range(len(content)):
        for flipped in (1, 128):
            damaged = bytearray(content)
            damaged[place] ^= flipped
            written.write_bytes(damaged)
            try:
                found = read_state(written)
            except errors.CheckpointError:
                continue
            # What does not matter: a space of the header, say, that became another.
            assert found.facts == state.facts
            for name, array in state.arrays.items():
                np.testing.assert_array_equal(found.arrays[name], array)


def test_a_part_of_a_file_is_none(written) -> None:
    content = written.read_bytes()
    for length in range(len(content)):
        written.write_bytes(content[:length])
        with pytest.raises(errors.CorruptCheckpointError, match=r"state\.safetensors"):
            read_state(written)


def test_another_file_is_none(tmp_path) -> None:
    with pytest.raises(errors.MissingCheckpointError, match="no such file"):
        read_state(tmp_path / "none")
    (tmp_path / "other").write_text("something else" * 100)
    with pytest.raises(errors.CorruptCheckpointError):
        read_state(tmp_path / "other")
    with pytest.raises(errors.CorruptCheckpointError):
        read_state(tmp_path)


def test_a_full_disk_keeps_what_was_there(written, monkeypatch) -> None:
    before = written.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(errors.DiskSpaceError, match="No space left"):
        write_state(written, State({"x": np.zeros(2)}))
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_a_file_of_a_later_version_is_refused(tmp_path, monkeypatch) -> None:
    path = tmp_path / "state.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("pymc_streaming.checkpoints.state_file._FORMAT", "2")
        write_state(path, State())
    with pytest.raises(errors.CheckpointMismatchError, match="another version"):
        read_state(path)
