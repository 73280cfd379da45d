"""From a judgement to what to do: stream as is, a larger buffer, or a shuffle on disk."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

from pymc_streaming.ordering.effects import Stream
from pymc_streaming.ordering.judge import Judgement
from pymc_streaming.sources.files import Paths

__all__ = ["CHOOSE_OTHERS", "HARMLESS", "STREAM_IT", "Advice", "advise", "shuffle_command"]

#: Errors by the order that are not worth a change, in posterior standard deviations.
HARMLESS = 0.1
#: A buffer for which nobody should be asked for memory, in multiples of the one there is.
LARGEST_BUFFER = 16

STREAM_IT = "Stream it as it is, in order or with shuffle=True."
CHOOSE_OTHERS = (
    "Look at the columns that a model would use, written as numbers, or at the source that turns "
    "them into numbers: order_report(source)."
)
_IN_MEMORY = (
    "Shuffle the rows before you make the source. Of a data frame:\n\n"
    "    frame = frame.sample(frac=1.0, random_state=0)\n\n"
    "What a function makes can be written to Parquet, and shuffled there: pymc-streaming shuffle."
)


@dataclass(frozen=True)
class Advice:
    """What a fit would make of the order, and what to do.

    Parameters
    ----------
    error_in_order, error_buffered : float
        Predicted errors, in posterior standard deviations.
    recommendation : str
        What to do.
    """

    error_in_order: float
    error_buffered: float
    recommendation: str


def shuffle_command(path: Paths | None) -> str:
    """The command that shuffles a table on disk, ready to be pasted where the path is known."""
    if not isinstance(path, str | os.PathLike):
        return "pymc-streaming shuffle SOURCE OUTPUT --seed 0"
    return f"pymc-streaming shuffle {shlex.quote(os.fspath(path))} shuffled --seed 0"


def advise(
    judgement: Judgement, batch_size: int, buffer_size: int, steps: int, path: Paths | None
) -> Advice:
    """Predict the errors of a fit of so many steps, and recommend the least effort.

    Parameters
    ----------
    judgement : Judgement
        On the table.
    batch_size, buffer_size : int
        Rows.
    steps : int
        Steps of the fit.
    path : path or paths, optional
        The table, for the command.
    """
    if judgement.verdict == "shuffled":
        return Advice(0.0, 0.0, STREAM_IT)
    in_order, _ = judgement.expected_error(Stream(batch_size), steps)
    buffered, _ = judgement.expected_error(Stream(batch_size, buffer_size), steps)

    def advice(text: str) -> Advice:
        return Advice(in_order, buffered, text)

    on_disk = _shuffle_once(path)
    if judgement.verdict == "unknown":
        return advice(f"If the rows may have an order, by time for example, {_lower(on_disk)}")
    if max(in_order, buffered) < HARMLESS:
        return advice(f"{STREAM_IT} The order is too weak, or too local, to matter.")
    if buffered < HARMLESS:
        return advice(
            f"Stream it with shuffle=True and a buffer of {buffer_size:,} rows or more:\n\n"
            f"{_loader(batch_size, buffer_size)}"
        )
    total = judgement.sample.n_rows or 0
    larger = buffer_size
    while larger < min(total, LARGEST_BUFFER * buffer_size):
        larger = min(2 * larger, total)
        if judgement.expected_error(Stream(batch_size, larger), steps)[0] < HARMLESS:
            which = "the whole table" if larger == total else f"{larger:,} rows"
            return advice(
                f"Raise the buffer to {which}, if memory allows:\n\n"
                f"{_loader(batch_size, larger)}\n\nOr {_lower(on_disk)}"
            )
    return advice(f"{on_disk}\n\nNo buffer that is much smaller than the table mixes it.")


def _shuffle_once(path: Paths | None) -> str:
    """How to shuffle a table once; code is in lines of its own, four spaces in."""
    if path is None:
        return _IN_MEMORY
    if isinstance(path, str | os.PathLike):
        return f"Shuffle the table on disk, once:\n\n    {shuffle_command(path)}"
    line = f'preshuffle({[os.fspath(one) for one in path]!r}, "shuffled", seed=0)'
    return f"Shuffle the table on disk, once:\n\n    {line}"


def _loader(batch_size: int, buffer_size: int) -> str:
    return (
        f"    DataLoader(source, batch_size={batch_size}, shuffle=True, buffer_size={buffer_size})"
    )


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
