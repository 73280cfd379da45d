"""How much memory a file will take, by what it declares, before any of it is decompressed.

A few kilobytes may stand for gigabytes, by mistake or on purpose. How many is written in front of
each compressed piece: the pages of Parquet, the buffers of Arrow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import psutil
import pyarrow.parquet as pq

from pymc_streaming.errors import CorruptFileError
from pymc_streaming.limits import memory_limit

__all__ = ["check_pages", "check_record_batch"]

# So much may be taken without a look at how much there is.
_LITTLE = 64 * 2**20

# In a header of Thrift's compact protocol: what is nested deeper is none.
_MOST_NESTED = 16


def check_pages(
    content: memoryview, group: pq.RowGroupMetaData, names: Sequence[str], where: str
) -> None:
    """Raise `CorruptFileError` if columns of a row group have pages too large for the memory.

    The largest page of every column is in memory at a time, with its column's dictionary.

    Parameters
    ----------
    content : memoryview
        The file.
    group : pyarrow.parquet.RowGroupMetaData
        What the footer says of the row group.
    names : sequence of str
        The columns that will be read.
    where : str
        The row group, for the message.
    """
    needed, worst = 0, (0, "")
    for number in range(group.num_columns):
        chunk = group.column(number)
        name = chunk.path_in_schema
        if name not in names:
            continue
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
            start = chunk.dictionary_page_offset
        try:
            sizes = list(_page_sizes(content, start, start + chunk.total_compressed_size))
        except (IndexError, ValueError) as error:
            raise CorruptFileError(
                f"{where}, column {name!r}: there are no pages where the footer says that they "
                f"are: {error}. Write or download the file again, or leave it out of `path`."
            ) from error
        largest = sum(sorted(sizes)[-2:])
        needed, worst = needed + largest, max(worst, (largest, name))
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
            f"{limit.source}). If the file is meant to be so, write it with smaller {what}; if "
            "not, leave it out of `path`."
        )


def _page_sizes(content: memoryview, at: int, stop: int) -> Iterator[int]:
    """Bytes of each page once decompressed.

    Raises
    ------
    IndexError, ValueError
        If there is no header of a page where one should be.
    """
    while at < stop:
        sizes, at = _page_header(content, at)
        if 2 not in sizes or 3 not in sizes or min(sizes[2], sizes[3]) < 0:
            raise ValueError("a page without its sizes")
        yield sizes[2]
        at += sizes[3]


def _page_header(content: memoryview, at: int) -> tuple[dict[int, int], int]:
    """Whole numbers of a header by the number of their field, and where it ends."""
    found: dict[int, int] = {}
    number = 0
    while kind := content[at]:
        at += 1
        number, kind, at = _field(content, at, number, kind)
        if kind in (4, 5, 6):
            value, at = _varint(content, at)
            found[number] = (value >> 1) ^ -(value & 1)
        else:
            at = _skip(content, at, kind, 0)
    return found, at + 1


def _field(content: memoryview, at: int, number: int, head: int) -> tuple[int, int, int]:
    if head >> 4:
        return number + (head >> 4), head & 15, at
    value, at = _varint(content, at)
    return (value >> 1) ^ -(value & 1), head & 15, at


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number without end")


def _skip(content: memoryview, at: int, kind: int, depth: int) -> int:
    """Where a value ends that nobody wants."""
    if depth > _MOST_NESTED:
        raise ValueError("a header nested too deep")
    if kind in (1, 2):  # true and false, which are all of the field
        return at
    if kind == 3:
        return at + 1
    if kind in (4, 5, 6):
        return _varint(content, at)[1]
    if kind == 7:
        return at + 8
    if kind == 8:
        length, at = _varint(content, at)
        return at + length
    if kind in (9, 10):
        size, kind = content[at] >> 4, content[at] & 15
        at += 1
        if size == 15:
            size, at = _varint(content, at)
        for _ in range(min(size, len(content))):
            at = at + 1 if kind in (1, 2) else _skip(content, at, kind, depth + 1)
        return at
    if kind == 12:
        number = 0
        while head := content[at]:
            number, kind, at = _field(content, at + 1, number, head)
            at = _skip(content, at, kind, depth + 1)
        return at + 1
    raise ValueError("what is no header of a page")


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
            f"{where}: the file does not say how large this is: {error}. Write or download it "
            "again, or leave it out of `path`."
        ) from error
    _check(needed, where, "buffers")


def _buffer_sizes(content: memoryview, number: int) -> Iterator[int]:
    """Bytes of the compressed buffers of a record batch, and of the dictionaries, decompressed."""
    (length,) = struct.unpack_from("<i", content, len(content) - 10)
    footer = _root(content, len(content) - 10 - length)
    dictionaries = range(_vector(content, footer, 2)[1])
    wanted = [*((2, each) for each in dictionaries), (3, number)]
    for offset, header in (_block(content, footer, *each) for each in wanted):
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


def _block(content: memoryview, footer: int, field: int, number: int) -> tuple[int, int]:
    """Where a message is, and bytes of its header."""
    start, count = _vector(content, footer, field)
    if number >= count:
        raise ValueError("it is not in the list of them")
    place, header = struct.unpack_from("<qi", content, start + 24 * number)
    return place, header
