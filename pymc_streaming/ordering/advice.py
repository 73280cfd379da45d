"""From a judgement to what to do: stream as is, a larger buffer, or a shuffle on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pymc_streaming.ordering.effects import Stream
from pymc_streaming.ordering.judge import Judgement
from pymc_streaming.sources.files import Paths

__all__ = ["HARMLESS", "Advice", "advise", "shuffle_command"]

#: Errors by the order that are not worth a change, in posterior standard deviations.
HARMLESS = 0.1
#: A buffer for which nobody should be asked for memory, in multiples of the one there is.
LARGEST_BUFFER = 16


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
    """The command that shuffles a table on disk."""
    one = os.fspath(path) if isinstance(path, str | os.PathLike) else "SOURCE"
    quoted = f"'{one}'" if any(letter in one for letter in " *?[") else one
    return f"pymc-streaming shuffle {quoted} OUTPUT --seed 0"


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
    command = shuffle_command(path)
    if judgement.verdict == "shuffled":
        return Advice(0.0, 0.0, "Stream it as it is, in order or with shuffle=True.")
    in_order, _ = judgement.expected_error(Stream(batch_size), steps)
    buffered, _ = judgement.expected_error(Stream(batch_size, buffer_size), steps)
    if judgement.verdict == "unknown":
        return Advice(
            in_order,
            buffered,
            "If the rows may have an order, by time for example, shuffle them on disk, once: "
            f"{command}",
        )
    if buffered < HARMLESS:
        return Advice(
            in_order,
            buffered,
            f"Stream it with shuffle=True and buffer_size={buffer_size:,} or more"
            + (
                ", or as it is: the order is too local to matter."
                if in_order < HARMLESS
                else f"; with shuffle=False, a fit would be off by {in_order:.2g} posterior "
                "standard deviations."
            ),
        )
    total = judgement.sample.n_rows or 0
    larger = buffer_size
    while larger < min(total, LARGEST_BUFFER * buffer_size):
        larger = min(2 * larger, total)
        if judgement.expected_error(Stream(batch_size, larger), steps)[0] < HARMLESS:
            which = "the whole table" if larger == total else f"{larger:,} rows"
            return Advice(
                in_order,
                buffered,
                f"Raise the buffer to {which} (shuffle=True, buffer_size={larger}) if memory "
                f"allows, or shuffle the table on disk, once: {command}",
            )
    return Advice(
        in_order,
        buffered,
        f"Shuffle the table on disk, once: {command}  No buffer that is much smaller than the "
        f"table mixes it; with {buffer_size:,} rows a fit would be off by about {buffered:.2g} "
        "posterior standard deviations.",
    )
