"""What goes wrong while reading, in the package's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from pymc_streaming.errors import (
    ChangedFileError,
    CorruptFileError,
    MissingFileError,
    SchemaError,
    SourceError,
    StreamingError,
    TransferError,
)
from pymc_streaming.sources.patience import is_passing, is_replaced, wait_asked_for
from pymc_streaming.sources.remote import failure_behind
from pymc_streaming.sources.skipped import ADVICE

__all__ = ["reading"]


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn what goes wrong while reading into the package's errors, with the place."""
    try:
        yield
    except pa.ArrowMemoryError as error:
        raise CorruptFileError(
            f"{where}: this says that it takes more memory than can be had: {error}. If the file "
            f"is meant to be so, write it in smaller pieces. {ADVICE}"
        ) from error
    except (StreamingError, MemoryError):
        raise
    except Exception as error:
        raise _translated(failure_behind(error) or error, where) from error


def _translated(error: Exception, where: str) -> SourceError:
    if is_replaced(error):
        return ChangedFileError(
            f"{where}: the file was replaced since it was first looked at. Rows of both would be "
            "mixed; begin anew, with a new source."
        )
    if is_passing(error):
        return TransferError(
            f"{where}: the connection failed: {type(error).__name__}: {str(error).rstrip('.')}.",
            wait_asked_for(error),
        )
    if isinstance(error, FileNotFoundError):
        return MissingFileError(f"{where}: the file is not there.")
    if isinstance(error, PermissionError):
        return SourceError(f"{where}: the file may not be read: {error}")
    # pyarrow says plain OSError for damaged content; the system and the network say more.
    if type(error) is OSError and error.errno is None:
        return CorruptFileError(_corrupt(where, error))
    if isinstance(error, pa.ArrowNotImplementedError):
        return SchemaError(
            f"{where}: Arrow cannot read this: {error}. Leave the column out with `columns`, or "
            "write it with another type."
        )
    if isinstance(error, pa.ArrowException | EOFError) and not isinstance(error, OSError):
        return CorruptFileError(_corrupt(where, error))
    # A remote file system has errors of its own.
    return SourceError(f"{where}: reading failed: {type(error).__name__}: {error}")


def _corrupt(where: str, error: Exception) -> str:
    return (
        f"{where}: this file is damaged, or not of the format it should be: "
        f"{str(error).rstrip('. \n')}. {ADVICE}"
    )
