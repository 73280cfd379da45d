"""How much memory a file will take, by what it declares, before any of it is decompressed.

A few kilobytes may stand for gigabytes, by mistake or on purpose. How many is written in front of
each compressed piece: the pages of Parquet, the buffers of Arrow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
import psutil

from pymc_streaming.errors import CorruptFileError
from pymc_streaming.limits import memory_limit
from pymc_streaming.sources.file_facts import FileFacts
from pymc_streaming.sources.skipped import ADVICE
from pymc_streaming.sources.thrift import page_facts

__all__ = ["body_of", "check_pages", "check_record_batch"]

# So much may be taken without a look at how much there is.
_LITTLE = 64 * 2**20


def check_pages(
    content: np.ndarray, facts: FileFacts, group: int, names: Sequence[str], where: str
) -> None:
    """Raise `CorruptFileError` if columns of a row group have pages too large for the memory.

    The largest page of every column is in memory at a time, with its column's dictionary.

    Parameters
    ----------
    content : ndarray of uint8
        The file.
    facts : FileFacts
        What its footer says.
    group : int
        Number of the row group.
    names : sequence of str
        The columns that will be read.
    where : str
        The row group, for the message.
    """
    needed, worst = 0, (0, "")
    for name in facts.leaves(names):
        chunk = facts.chunk(group, name)
        start, dictionary = chunk["data_page"], chunk["dictionary_page"]
        if 0 < dictionary < start:
            start = dictionary
        try:
            n_values, largest, levels = page_facts(content, start, start + chunk["compressed"])
            if n_values != chunk["n_values"]:
                raise ValueError(f"{n_values:,} values instead of {chunk['n_values']:,}")
        except ValueError as error:
            raise CorruptFileError(
                f"{where}, column {name!r}: there are not the pages that the footer announces: "
                f"{error}. {ADVICE}"
            ) from error
        needed, worst = needed + largest + levels, max(worst, (largest + levels, name))
    _check(needed, f"{where}, column {worst[1]!r} and others", "pages")


def _check(needed: int, where: str, what: str) -> None:
    if needed <= _LITTLE:
        return
    limit = memory_limit()
    left = max(0, limit.nbytes - psutil.Process().memory_info().rss)
    if needed > left:
        raise CorruptFileError(
            f"{where}: {what} that take {needed:,} bytes once they are decompressed, and there are "
            f"{left:,} left of the memory that this process may take ({limit.nbytes:,} bytes, by "
            f"{limit.source}). If it is meant to be so, write it with smaller {what}. {ADVICE}"
        )


def check_record_batch(content: memoryview, number: int, where: str) -> None:
    """Raise `CorruptFileError` if a record batch is too large for the memory once decompressed.

    Parameters
    ----------
    content : memoryview
        The file.
    number : int
        Number of the record batch in it.
    where : str
        The record batch, for the message.
    """
    try:
        needed = sum(_buffer_sizes(content, number))
    except (IndexError, ValueError, struct.error) as error:
        raise CorruptFileError(
            f"{where}: the file does not say how large this is: {error}. {ADVICE}"
        ) from error
    _check(needed, where, "buffers")


def body_of(content: memoryview, number: int) -> memoryview:
    """The bytes of a record batch that passed `check_record_batch`."""
    place, header, nbytes = _block(content, _footer(content), 3, number)
    return content[place + header : place + header + nbytes]


def _buffer_sizes(content: memoryview, number: int) -> Iterator[int]:
    """Bytes of the compressed buffers of a record batch, and of the dictionaries, decompressed."""
    footer = _footer(content)
    dictionaries = range(_vector(content, footer, 2)[1])
    wanted = [*((2, each) for each in dictionaries), (3, number)]
    for offset, header, _ in (_block(content, footer, *each) for each in wanted):
        (marker,) = struct.unpack_from("<i", content, offset)
        message = _root(content, offset + (8 if marker == -1 else 4))
        kind, batch = _at(content, message, 1), _table(content, message, 2)
        if kind is not None and content[kind] == 2:  # a dictionary, which has a record batch
            batch = _table(content, batch, 1)
        if _at(content, batch, 3) is None:  # not compressed
            continue
        start, count = _vector(content, batch, 2)
        for each in range(count):
            place, nbytes = struct.unpack_from("<qq", content, start + 16 * each)
            if nbytes >= 8:
                (size,) = struct.unpack_from("<q", content, offset + header + place)
                yield nbytes if size == -1 else max(0, size)


def _footer(content: memoryview) -> int:
    """Where the table is that lists the messages; after it are its length and six letters."""
    (length,) = struct.unpack_from("<i", content, len(content) - 10)
    return _root(content, len(content) - 10 - length)


# Tables of FlatBuffers: in front of each, how far back the list of its fields' places is.


def _root(content: memoryview, at: int) -> int:
    return at + int(struct.unpack_from("<I", content, at)[0])


def _at(content: memoryview, table: int, field: int) -> int | None:
    """Where a field of a table is, if it has it."""
    places = table - struct.unpack_from("<i", content, table)[0]
    (size,) = struct.unpack_from("<H", content, places)
    if 4 + 2 * field >= size:
        return None
    (offset,) = struct.unpack_from("<H", content, places + 4 + 2 * field)
    return table + offset if offset else None


def _table(content: memoryview, table: int, field: int) -> int:
    place = _at(content, table, field)
    if place is None:
        raise ValueError("a part of it is missing")
    return _root(content, place)


def _vector(content: memoryview, table: int, field: int) -> tuple[int, int]:
    """Where the first element of a list is, and how many there are."""
    if _at(content, table, field) is None:
        return 0, 0
    start = _table(content, table, field)
    return start + 4, int(struct.unpack_from("<I", content, start)[0])


def _block(content: memoryview, footer: int, field: int, number: int) -> tuple[int, int, int]:
    """Where a message is, and bytes of its header and of its body."""
    start, count = _vector(content, footer, field)
    if number >= count:
        raise ValueError("it is not in the list of them")
    place, header, body = struct.unpack_from("<qi4xq", content, start + 24 * number)
    return place, header, body
