"""The look at the order before a fit."""

from __future__ import annotations

from pymc_streaming.errors import SourceError
from pymc_streaming.ordering.advice import HARMLESS, shuffle_command
from pymc_streaming.ordering.effects import Stream
from pymc_streaming.ordering.judge import Judgement
from pymc_streaming.ordering.report import judge_source, place_of
from pymc_streaming.sources import IterableDataset

__all__ = ["order_warning"]


def order_warning(
    source: IterableDataset,
    total_size: int,
    batch_size: int,
    buffer_size: int | None,
    steps: int,
) -> str | None:
    """What to say before a fit that the order would spoil; None when there is nothing to say.

    Nothing is read where nothing can be wrong: the rows are known to be shuffled, or the buffer
    holds them all.

    Parameters
    ----------
    source : IterableDataset
        Where batches come from.
    total_size : int
        Its rows.
    batch_size : int
        Rows of a batch.
    buffer_size : int or None
        Rows of the shuffle buffer; None without ``shuffle=True``.
    steps : int
        Steps of the fit.
    """
    if source.is_shuffled or (buffer_size is not None and buffer_size >= total_size):
        return None
    try:
        judgement, _ = judge_source(source, total_size)
    except SourceError:  # which the fit meets where it stands, and keeps what it has until then
        return None
    return _message(judgement, Stream(batch_size, buffer_size), steps, place_of(source))


def _message(judgement: Judgement, stream: Stream, steps: int, path: str | None) -> str | None:
    error, evidence = judgement.added_error(stream, steps)
    if evidence is None or error < HARMLESS:
        return None
    first, *rest = evidence.names
    if not rest:
        what = f"column {first!r}"
    elif rest[0] == first:
        what = f"the spread of column {first!r}"
    else:
        what = f"the relation of columns {first!r} and {rest[0]!r}"
    how = (
        "read in order"
        if stream.buffer_size is None
        else f"mixed in a buffer of {stream.buffer_size:,} rows, too few for it"
    )
    effect = judgement.design_effect(evidence, stream)
    return (
        f"The rows are in a meaningful order: {what} follows it. They are {how}, so that the mean "
        f"of a batch has {effect:,.3g} times the variance that random rows give it, and the result "
        f"would be off by about {error:.2g} posterior standard deviations. Shuffle the table on "
        f'disk, once: {shuffle_command(path)}  (on_ordered="ignore" to fit it all the same)'
    )
