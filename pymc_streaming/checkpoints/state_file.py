"""One state in one file: tensors in the safetensors format, and JSON in its header.

Reading it runs no code, whoever wrote it; what was damaged on the way is told by a checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pymc_streaming.checkpoints.state import State
from pymc_streaming.errors import (
    CheckpointMismatchError,
    CorruptCheckpointError,
    MissingCheckpointError,
)
from pymc_streaming.writing import write_wholly

__all__ = ["read_state", "write_state"]

# Raised when a reader of this version could not make sense of it any more.
_FORMAT = "1"


def write_state(path: Path, state: State) -> None:
    """Write a state, wholly or not at all, in the place of what is there.

    Raises
    ------
    DiskSpaceError
        If the disk is full.
    OutputError
        If the file cannot be written.
    """
    facts = json.dumps(state.facts)
    arrays = {name: np.asarray(array, order="C") for name, array in state.arrays.items()}
    header = {"format": _FORMAT, "facts": facts, "sha256": _digest(facts, arrays)}
    write_wholly(path, save(arrays, metadata=header))


def read_state(path: Path) -> State:
    """Read a state.

    Raises
    ------
    MissingCheckpointError
        If the file is not there.
    CorruptCheckpointError
        If it is not what was written, or no state.
    CheckpointMismatchError
        If a later version of the package wrote it.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise MissingCheckpointError(f"{path}: there is no such file.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptCheckpointError(f"{path}: this is no whole checkpoint: {error}.") from error
    if header.get("format", _FORMAT) != _FORMAT:
        raise CheckpointMismatchError(
            f"{path}: another version of the package wrote this checkpoint, in format "
            f"{header['format']!r}; this one reads format {_FORMAT!r}."
        )
    facts = header.get("facts", "")
    if header.get("sha256") != _digest(facts, arrays):
        raise CorruptCheckpointError(
            f"{path}: this checkpoint is damaged: its content does not have the checksum that "
            "was written with it."
        )
    return State(arrays, json.loads(facts))


def _digest(facts: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes() if not array.size else array.data)
    return digest.hexdigest()
