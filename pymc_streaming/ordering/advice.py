"""From a judgement to what to do: stream as is, a larger buffer, or a shuffle on disk."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace

from pymc_streaming.ordering.effects import Stream
from pymc_streaming.ordering.judge import Judgement
from pymc_streaming.sources.files import Paths

__all__ = ["HARMLESS", "Advice", "advise", "off_by", "shuffle_command"]

#: Errors by the order that are not worth a change, in posterior standard deviations.
HARMLESS = 0.1
#: Nineteen fits of twenty are off by less than this many times their prediction.
UPPER = 1.5
#: A buffer for which nobody should be asked for memory, in multiples of the one there is.
LARGEST_BUFFER = 16


@dataclass(frozen=True)
class Advice:
    """What a fit would make of the order, and what to do.

    Parameters
    ----------
    error_in_order, error_buffered : float
        Predicted errors, in posterior standard deviations; infinite where they cannot be told.
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


def off_by(error: float) -> str:
    """How far off the order may leave a fit, in words that say no more than a prediction knows.

    Parameters
    ----------
    error : float
        Predicted error, in posterior standard deviations.

    Examples
    --------
    >>> off_by(24.0)
    'off by up to 100 posterior standard deviations'
    """
    if not math.isfinite(error):
        return "off by an amount that cannot be told from what was looked at"
    least = UPPER * error
    below = 10.0 ** math.floor(math.log10(least))
    bound = next(step * below for step in (1, 3, 10) if step * below >= least)
    shown = f"{bound:,.0f}" if bound >= 1 else f"{bound:.1g}"
    return f"off by up to {shown} posterior standard deviation{'s' * (shown != '1')}"


def advise(
    judgement: Judgement, in_order: Stream, buffered: Stream, steps: int, path: Paths | None
) -> Advice:
    """Predict the errors of a fit of so many steps, and recommend the least effort.

    Parameters
    ----------
    judgement : Judgement
        On the table.
    in_order, buffered : Stream
        The rows as they are, and through a buffer.
    steps : int
        Steps of the fit.
    path : path or paths, optional
        The table, for the command.
    """
    if judgement.verdict == "shuffled":
        return Advice(0.0, 0.0, "Stream it as it is, in order or with shuffle=True.")
    error, _ = judgement.added_error(in_order, steps)
    left, _ = judgement.added_error(buffered, steps)
    command = shuffle_command(path)
    if judgement.verdict == "unknown":
        what = (
            "If the rows may have an order, by time for example, shuffle them on disk, once: "
            f"{command}"
        )
    elif left < HARMLESS:
        what = f"Stream it with shuffle=True and buffer_size={buffered.buffer_size:,} or more"
        if error < HARMLESS:
            what += ", or as it is: the order is too local to matter."
        else:
            what += f"; with shuffle=False, a fit would be {off_by(error)}."
    elif (larger := _large_enough(judgement, buffered, steps)) is not None:
        which = "the whole table" if larger == judgement.total_rows else f"{larger:,} rows"
        what = (
            f"Raise the buffer to {which} (shuffle=True, buffer_size={larger}) if memory allows, "
            f"or shuffle the table on disk, once: {command}"
        )
    else:
        what = (
            f"Shuffle the table on disk, once: {command}  No buffer that is much smaller than the "
            f"table mixes it; with {buffered.buffer_size:,} rows a fit would be {off_by(left)}."
        )
    return Advice(error, left, what)


def _large_enough(judgement: Judgement, stream: Stream, steps: int) -> int | None:
    """Rows of a larger buffer that leaves no harm, if there is one."""
    assert stream.buffer_size is not None
    larger = stream.buffer_size
    while larger < min(judgement.total_rows, LARGEST_BUFFER * stream.buffer_size):
        larger = min(2 * larger, judgement.total_rows)
        if judgement.added_error(replace(stream, buffer_size=larger), steps)[0] < HARMLESS:
            return larger
    return None
