"""States of what runs, on disk: written wholly or not at all, and checked when read."""

from pymc_streaming.checkpoints.folder import CheckpointFolder
from pymc_streaming.checkpoints.keeper import Keeper, Terminated
from pymc_streaming.checkpoints.schedule import Schedule
from pymc_streaming.checkpoints.state import State, random_state, set_random_state
from pymc_streaming.checkpoints.state_file import read_state, write_state

__all__ = [
    "CheckpointFolder",
    "Keeper",
    "Schedule",
    "State",
    "Terminated",
    "random_state",
    "read_state",
    "set_random_state",
    "write_state",
]
