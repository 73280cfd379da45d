"""Footers and page headers of Parquet files, read without trusting them; compiled.

Arrow ends the process when it is asked for some parts of a footer that contradicts itself, and
takes a damaged page header at its word.

References
----------
The format is that of parquet.thrift of Apache Parquet, in Thrift's compact protocol.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

__all__ = ["CHUNK", "footer_facts", "page_facts"]

#: What is taken of a column chunk: 0 where a footer does not say, but -1 for nulls and levels.
CHUNK = (
    "type", "n_values", "uncompressed", "compressed", "data_page", "dictionary_page", "nulls",
    "repetition_levels", "definition_levels",
)  # fmt: skip

# Kinds of values; what is nested deeper than so is not of this format.
_BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT, _MOST_NESTED = 3, 7, 8, 9, 10, 12, 16


@numba.njit(cache=True, nogil=True)
def _varint(content: Any, at: Any) -> Any:
    value, shift = np.uint64(0), np.uint64(0)
    while True:
        if at >= len(content) or shift > 63:
            raise ValueError("a number without end")
        byte = np.uint64(content[at])
        at += 1
        value |= (byte & np.uint64(127)) << shift
        if byte < 128:
            return value, at
        shift += np.uint64(7)


@numba.njit(cache=True, nogil=True)
def _whole(content: Any, at: Any) -> Any:
    """A number with a sign."""
    value, at = _varint(content, at)
    return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at


@numba.njit(cache=True, nogil=True)
def _field(content: Any, at: Any, number: Any) -> Any:
    """Number and kind of the next field of a struct, kind 0 at its end."""
    if at >= len(content):
        raise ValueError("a structure without end")
    head = np.int64(content[at])
    at += 1
    if head == 0:
        return number, 0, at
    if head >> 4:
        return number + (head >> 4), head & 15, at
    number, at = _whole(content, at)
    return number, head & 15, at


@numba.njit(cache=True, nogil=True)
def _list(content: Any, at: Any) -> Any:
    """How many elements a list has, and of which kind."""
    if at >= len(content):
        raise ValueError("a list without end")
    head = np.int64(content[at])
    at += 1
    count = head >> 4
    if count == 15:
        long, at = _varint(content, at)
        count = np.int64(long)
    if count < 0 or count > len(content) - at:  # each takes a byte at least
        raise ValueError("a list that is longer than the file")
    return count, head & 15, at


@numba.njit(cache=True, nogil=True)
def _after(content: Any, at: Any, kind: Any) -> Any:
    """Where a value ends that nobody wants."""
    # Recursion without recursing: of each structure or list that is open, what is still to come.
    left = np.zeros(_MOST_NESTED, np.int64)  # elements of a list, -1 for a structure
    kinds = np.zeros(_MOST_NESTED, np.int64)
    numbers = np.zeros(_MOST_NESTED, np.int64)
    depth = 0
    in_list = False
    while True:
        if kind in (_STRUCT, _LIST, _SET):
            if depth == _MOST_NESTED:
                raise ValueError("what is nested too deep")
            if kind == _STRUCT:
                left[depth], numbers[depth] = -1, 0
            else:
                left[depth], kinds[depth], at = _list(content, at)
            depth += 1
        elif kind == 1 or kind == 2:  # true and false, which are all of a field
            at += 1 if in_list else 0
        elif kind == _BYTE:
            at += 1
        elif kind == 4 or kind == 5 or kind == 6:
            _, at = _varint(content, at)
        elif kind == _DOUBLE:
            at += 8
        elif kind == _BINARY:
            length, at = _varint(content, at)
            if length > np.uint64(len(content) - at):
                raise ValueError("text without end")
            at += np.int64(length)
        else:
            raise ValueError("what is not of this format")
        while True:  # the next value of what is open, if anything is
            if depth == 0:
                return at
            if left[depth - 1] == -1:
                numbers[depth - 1], kind, at = _field(content, at, numbers[depth - 1])
                in_list = False
                if kind:
                    break
            elif left[depth - 1] > 0:
                left[depth - 1] -= 1
                kind, in_list = kinds[depth - 1], True
                break
            depth -= 1


@numba.njit(cache=True, nogil=True)
def _is_whole(kind: Any) -> Any:
    return 4 <= kind <= 6


@numba.njit(cache=True, nogil=True)
def _list_length(content: Any, at: Any, kind: Any) -> Any:
    """How long a list is, and where it ends."""
    if kind != _LIST:
        return np.int64(-1), _after(content, at, kind)
    count, _, _ = _list(content, at)
    return count, _after(content, at, kind)


@numba.njit(cache=True, nogil=True)
def _column(content: Any, at: Any, facts: Any) -> Any:
    """ColumnMetaData."""
    number = 0
    while True:
        number, kind, at = _field(content, at, number)
        if kind == 0:
            return at
        if _is_whole(kind):
            value, at = _whole(content, at)
            if number == 1:
                facts[0] = value
            elif number == 5:
                facts[1] = value
            elif number == 6:
                facts[2] = value
            elif number == 7:
                facts[3] = value
            elif number == 9:
                facts[4] = value
            elif number == 11:
                facts[5] = value
        elif kind == _STRUCT and (number == 12 or number == 16):
            inner = 0
            while True:
                inner, kind, at = _field(content, at, inner)
                if kind == 0:
                    break
                if number == 12 and inner == 3 and _is_whole(kind):
                    facts[6], at = _whole(content, at)
                elif number == 16 and inner == 2:
                    facts[7], at = _list_length(content, at, kind)
                elif number == 16 and inner == 3:
                    facts[8], at = _list_length(content, at, kind)
                else:
                    at = _after(content, at, kind)
        else:
            at = _after(content, at, kind)


@numba.njit(cache=True, nogil=True)
def _row_group(content: Any, at: Any, rows: Any, facts: Any) -> Any:
    """RowGroup."""
    number, columns = 0, 0
    while True:
        number, kind, at = _field(content, at, number)
        if kind == 0:
            if columns != len(facts):
                raise ValueError("a row group that does not have all columns")
            return at
        if number == 1 and kind == _LIST:
            columns, element, at = _list(content, at)
            if columns != len(facts) or element != _STRUCT:
                raise ValueError("a row group that does not have all columns")
            for column in range(columns):
                inner = 0
                while True:
                    inner, kind, at = _field(content, at, inner)
                    if kind == 0:
                        break
                    if inner == 3 and kind == _STRUCT:
                        at = _column(content, at, facts[column])
                    else:
                        at = _after(content, at, kind)
        elif number == 3 and _is_whole(kind):
            rows[0], at = _whole(content, at)
        else:
            at = _after(content, at, kind)


@numba.njit(cache=True, nogil=True)
def footer_facts(content: Any, n_groups: int, n_columns: int) -> Any:
    """What a footer says of every column chunk.

    Parameters
    ----------
    content : ndarray of uint8
        The footer.
    n_groups, n_columns : int
        Row groups and columns, of those that hold values, that there should be.

    Returns
    -------
    n_rows : int
        Rows of the file.
    group_rows : ndarray of int64, shape (n_groups,)
        Rows of each row group.
    facts : ndarray of int64, shape (n_groups, n_columns, 9)
        See `CHUNK`.

    Raises
    ------
    ValueError
        If it is no footer, or has others.
    """
    n_rows = np.int64(0)
    group_rows = np.zeros(n_groups, np.int64)
    facts = np.zeros((n_groups, n_columns, 9), np.int64)
    facts[:, :, 6:] = -1
    number, at, found = 0, 0, 0
    while True:
        number, kind, at = _field(content, at, number)
        if kind == 0:
            break
        if number == 3 and _is_whole(kind):
            n_rows, at = _whole(content, at)
        elif number == 4 and kind == _LIST:
            found, element, at = _list(content, at)
            if found != n_groups or (found and element != _STRUCT):
                raise ValueError("another number of row groups")
            for group in range(n_groups):
                at = _row_group(content, at, group_rows[group : group + 1], facts[group])
        else:
            at = _after(content, at, kind)
    if found != n_groups:
        raise ValueError("another number of row groups")
    return n_rows, group_rows, facts


@numba.njit(cache=True, nogil=True)
def page_facts(content: Any, at: Any, stop: int) -> Any:
    """What the headers of the pages of a column chunk say.

    Parameters
    ----------
    content : ndarray of uint8
        The file.
    at, stop : int
        Where the chunk begins and ends.

    Returns
    -------
    n_values : int
        Values, and nulls, in its data pages.
    largest, dictionary : int
        Bytes of its largest data page, and of its dictionary, once decompressed.

    Raises
    ------
    ValueError
        If there are no pages there, or others than should be.
    """
    if at < 0 or stop > len(content) or at > stop:
        raise ValueError("it would lie outside of the file")
    n_values = largest = dictionary = np.int64(0)
    while at < stop:
        kind_of_page, uncompressed, compressed, values = -1, -1, -1, np.int64(0)
        number = 0
        while True:
            number, kind, at = _field(content, at, number)
            if kind == 0:
                break
            if number <= 3 and _is_whole(kind):
                value, at = _whole(content, at)
                if number == 1:
                    kind_of_page = value
                elif number == 2:
                    uncompressed = value
                else:
                    compressed = value
            elif kind == _STRUCT and (number == 5 or number == 7 or number == 8):
                inner = 0
                while True:
                    inner, kind, at = _field(content, at, inner)
                    if kind == 0:
                        break
                    if inner == 1 and _is_whole(kind):
                        values, at = _whole(content, at)
                    else:
                        at = _after(content, at, kind)
            else:
                at = _after(content, at, kind)
        if uncompressed < 0 or compressed < 0 or values < 0:
            raise ValueError("a page without its size")
        if compressed > stop - at:
            raise ValueError("a page that ends after the column does")
        at += compressed
        if kind_of_page == 0 or kind_of_page == 3:
            n_values += values
            largest = max(largest, np.int64(uncompressed))
        elif kind_of_page == 2:
            if values > 8 * uncompressed:
                raise ValueError("a dictionary with more values than bytes")
            dictionary = max(dictionary, np.int64(uncompressed))
        elif kind_of_page != 1:
            raise ValueError("a page of no known kind")
    return n_values, largest, dictionary
