"""The look at the order before a fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from pymc_streaming.errors import SourceError
from pymc_streaming.ordering.advice import HARMLESS, off_by, shuffle_command
from pymc_streaming.ordering.effects import Stream
from pymc_streaming.ordering.progress import looking
from pymc_streaming.ordering.report import judge_source, place_of
from pymc_streaming.ordering.sampling import column_places
from pymc_streaming.sources import IterableDataset

__all__ = ["order_warning"]


def order_warning(
    source: IterableDataset,
    total_size: int,
    stream: Stream,
    steps: int,
    names: Mapping[str, str],
    unread: Callable[[], Collection[tuple[str, int]]] = tuple,
    progressbar: bool = False,
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
    stream : Stream
        How the loader gives them out.
    steps : int
        Steps of the fit.
    names : mapping of str to str
        From the arrays of the source to the ``pm.Data`` that they go to.
    unread : callable, optional
        Gives the columns that the model does not read, as array and number; asked only when
        there is an order. Default: none.
    progressbar : bool, default False
        Whether to show progress.
    """
    if source.is_shuffled or (stream.buffer_size is not None and stream.buffer_size >= total_size):
        return None
    try:
        with looking(progressbar) as advance:
            judgement, _ = judge_source(source, total_size, advance=advance)
    except SourceError:  # which the fit meets where it stands, and keeps what it has until then
        return None
    error, evidence = judgement.added_error(stream, steps)
    if evidence is not None and error >= HARMLESS and (idle := unread()):
        read = {label for label, *place in column_places(source) if tuple(place) not in idle}
        without = judgement.columns.keys() - read
        error, evidence = judgement.added_error(stream, steps, without)
    if evidence is None or error < HARMLESS:
        return None
    columns = {column for spec in source.layout.values() for column in spec.columns}
    written = [_as_written(name, columns, names) for name in evidence.names]
    how = (
        "read in order"
        if stream.buffer_size is None
        else f"mixed in a buffer of {stream.buffer_size:,} rows, too few for it"
    )
    return (
        f"The rows are in a meaningful order: {_what(written)} along the table. They are {how}, so "
        f"that the result may be {off_by(error)}, more than a fit to as many shuffled rows. "
        f"Shuffle the table on disk, once: {shuffle_command(place_of(source))}  "
        '(on_ordered="ignore" to fit it all the same)'
    )


def _as_written(name: str, columns: Collection[str], names: Mapping[str, str]) -> str:
    """A column of a file by its name; one of an array as a model writes it, ``batch[:, 1]``."""
    if name in columns:
        return f"column {name!r}"
    array, bracket, place = name.partition("[")
    return names.get(array, array) + bracket + place


def _what(names: Sequence[str]) -> str:
    first, *others = names
    if not others:
        return f"{first} changes"
    if others[0] == first:
        return f"the variance of {first} changes"
    return f"the relation of {first} and {others[0]} changes"
