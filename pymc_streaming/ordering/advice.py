"""From a judgement to what to do: stream as is, a larger buffer, or a shuffle on disk."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pymc_streaming.ordering.effects import Stream
from pymc_streaming.ordering.judge import Judgement
from pymc_streaming.sources.files import Paths

__all__ = [
    "CHOOSE_OTHERS",
    "HARMLESS",
    "STREAM_IT",
    "Advice",
    "advise",
    "off_by",
    "shuffle_command",
    "source_line",
]

#: Errors by the order that are not worth a change, in posterior standard deviations.
HARMLESS = 0.1
#: Nineteen fits of twenty are off by less than this many times their prediction.
UPPER = 1.5
#: A buffer for which nobody should be asked for memory, in multiples of the one there is.
LARGEST_BUFFER = 16
#: Passes over a table that are many: what is harmless in so many need not be in one.
MANY_PASSES = 10

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
        Predicted errors, in posterior standard deviations; infinite where they cannot be told.
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


def source_line(
    kind: str, path: Paths, columns: Sequence[str] | None, has_text: bool = False
) -> str:
    """The line that makes the source of files.

    Parameters
    ----------
    kind : {"parquet", "arrow"}
        Of the files.
    path : path or paths
        Where they are.
    columns : sequence of str, optional
        Those that were asked for.
    has_text : bool, default False
        Whether one of them holds text, which a model takes as levels.

    Examples
    --------
    >>> source_line("parquet", "sales.parquet", ["day"])
    "source = parquet_source('sales.parquet', columns=['day'])"
    """
    where: str | list[str]
    if isinstance(path, str | os.PathLike):
        where = os.fspath(path)
    else:
        where = [os.fspath(one) for one in path]
    chosen = "" if columns is None else f", columns={list(columns)!r}"
    levels = ', categories="auto"' if has_text else ""
    return f"source = {kind}_source({where!r}{chosen}{levels})"


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
    judgement: Judgement,
    in_order: Stream,
    buffered: Stream,
    steps: int,
    path: Paths | None,
    source: str | None = None,
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
    source : str, optional
        The line that makes its source, to be pasted; where there is none yet.
    """
    if judgement.verdict == "shuffled":
        return Advice(0.0, 0.0, STREAM_IT)
    error, _ = judgement.added_error(in_order, steps)
    left, _ = judgement.added_error(buffered, steps)
    on_disk = _shuffle_once(path)
    if judgement.verdict == "unknown":
        what = f"If the rows may have an order, by time for example, {_lower(on_disk)}"
    elif max(error, left) < HARMLESS:
        what = f"{STREAM_IT} {_why_harmless(judgement, in_order, steps)}"
    elif left < HARMLESS:
        what = (
            f"Stream it with shuffle=True and a buffer of {buffered.buffer_size:,} rows or more:"
            f"\n\n{_loader(buffered, source)}"
        )
    elif (larger := _large_enough(judgement, buffered, steps)) is not None:
        rows = larger.buffer_size
        which = "the whole table" if rows == judgement.total_rows else f"{rows:,} rows"
        what = (
            f"Raise the buffer to {which}, if memory allows:\n\n{_loader(larger, source)}\n\n"
            f"Or {_lower(on_disk)}"
        )
    else:
        what = f"{on_disk}\n\nNo buffer that is much smaller than the table mixes it."
    return Advice(error, left, what)


def _why_harmless(judgement: Judgement, in_order: Stream, steps: int) -> str:
    passes = steps * in_order.batch_size / judgement.total_rows
    if passes >= MANY_PASSES:
        one_pass = math.ceil(steps / passes)
        if judgement.added_error(in_order, one_pass)[0] >= HARMLESS:
            return (
                f"In {steps:,} steps, about {float(f'{passes:.1g}'):,.0f} passes over the table, "
                "the order does no harm; in a much shorter fit it may."
            )
    return "The order is too weak, or too local, to matter."


def _large_enough(judgement: Judgement, stream: Stream, steps: int) -> Stream | None:
    """A larger buffer that leaves no harm, if there is one."""
    assert stream.buffer_size is not None
    most = min(judgement.total_rows, LARGEST_BUFFER * stream.buffer_size)
    larger = stream.buffer_size
    while larger < most:
        larger = min(2 * larger, judgement.total_rows)
        larger_stream = replace(stream, buffer_size=larger)
        if judgement.added_error(larger_stream, steps)[0] < HARMLESS:
            return larger_stream
    return None


def _shuffle_once(path: Paths | None) -> str:
    """How to shuffle a table once; code is in lines of its own, four spaces in."""
    if path is None:
        return _IN_MEMORY
    if isinstance(path, str | os.PathLike):
        return f"Shuffle the table on disk, once:\n\n    {shuffle_command(path)}"
    line = f'preshuffle({[os.fspath(one) for one in path]!r}, "shuffled", seed=0)'
    return f"Shuffle the table on disk, once:\n\n    {line}"


def _loader(stream: Stream, source: str | None) -> str:
    return (f"    {source}\n" if source else "") + (
        f"    DataLoader(source, batch_size={stream.batch_size}, shuffle=True, "
        f"buffer_size={stream.buffer_size})"
    )


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
