"""CSV files, and types for their columns that change no value."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pymc_streaming.errors import SchemaError
from pymc_streaming.sources.columns import shortened
from pymc_streaming.sources.files import DataFile
from pymc_streaming.sources.reading import reading

__all__ = ["open_csv", "survey_csv"]

logger = logging.getLogger(__name__)

# From the narrowest on; text takes what none of them does.
_KINDS = (
    pa.int64(),
    pa.bool_(),
    pa.date32(),
    pa.timestamp("s"),
    pa.timestamp("ns"),
    pa.timestamp("s", "UTC"),
    pa.timestamp("ns", "UTC"),
    pa.float64(),
)
_BOOLEANS = pa.array(["true", "True", "TRUE", "false", "False", "FALSE"])
# From here on, whole numbers that differ may be one floating-point number.
_FIRST_INEXACT = 2**53


def survey_csv(
    files: Sequence[DataFile], columns: Sequence[str] | None
) -> list[tuple[pa.Schema, list[int]]]:
    """The schema of every file and its rows, a list of one number, from reading all files once.

    A column has the same type in all files: the narrowest that keeps every value. A number that
    would come out as another one, such as ``00012`` or a whole number of more than 64 bits, makes
    its column text; so does a column without any value.

    Parameters
    ----------
    files : sequence of DataFile
        The files.
    columns : sequence of str or None
        The columns to find types for; the others are called text. None for all.

    Raises
    ------
    SchemaError
        If a file cannot be read as CSV.
    """
    found_in: list[tuple[list[str], int]] = []
    evidence: dict[str, _Evidence] = {}
    for file in files:
        with reading(file.path):
            names = _names(file)
            _check_names(names, file.path)
            asked = [
                (number, evidence.setdefault(name, _Evidence()))
                for number, name in enumerate(names)
                if columns is None or name in columns
            ]
            n_rows = 0
            with open_csv(file, dict.fromkeys(names, pa.string()), missing=True) as opened:
                if opened.schema.names != names:
                    raise SchemaError(
                        f"{file.path}: expected the name of the column in the first line, found "
                        "that empty. Remove it."
                    )
                for batch in opened:
                    n_rows += batch.num_rows
                    for number, found in asked:
                        found.add(batch.column(number).drop_null())
        found_in.append((names, n_rows))
    for name, found in evidence.items():
        if found.kept_as_text is not None and found.kind == pa.string():
            logger.info(
                "Column %r is kept as text: as a number, %r would be changed.",
                name,
                found.kept_as_text,
            )
    kinds = {name: found.kind for name, found in evidence.items()}
    return [
        (pa.schema([(name, kinds.get(name, pa.string())) for name in names]), [n_rows])
        for names, n_rows in found_in
    ]


@contextmanager
def open_csv(
    file: DataFile, types: Mapping[str, pa.DataType], *, missing: bool = False
) -> Iterator[Any]:
    """A reader of batches.

    Parameters
    ----------
    file : DataFile
        The file; compressed if its name ends in ``.gz``.
    types : mapping of str to pyarrow.DataType
        Types by name of the columns to read.
    missing : bool, default False
        Read all columns, with ``NA``, an empty field and the like as null in text too, and not
        only in numbers.

    Raises
    ------
    SchemaError
        If the content is not what is expected.
    """
    # Others write a null so that is alone in its row; where rows have commas, a line has no row.
    ignored = len(_names(file)) > 1
    conversion = pa.csv.ConvertOptions(
        column_types=types,
        include_columns=[] if missing else list(types),
        strings_can_be_null=missing,
    )
    with _opened(file, conversion, ignore_empty_lines=ignored) as opened:
        yield opened


def _names(file: DataFile) -> list[str]:
    """The names of all columns."""
    with _opened(file, pa.csv.ConvertOptions(), ignore_empty_lines=True) as opened:
        return list(opened.schema.names)


@contextmanager
def _opened(file: DataFile, conversion: Any, *, ignore_empty_lines: bool) -> Iterator[Any]:
    compression = "gzip" if file.path.lower().endswith(".gz") else None
    with file.filesystem.open_input_stream(file.inner_path, compression=compression) as raw:
        try:
            with pa.csv.open_csv(
                raw,
                read_options=pa.csv.ReadOptions(use_threads=False),
                parse_options=pa.csv.ParseOptions(
                    newlines_in_values=True, ignore_empty_lines=ignore_empty_lines
                ),
                convert_options=conversion,
            ) as opened:
                yield opened
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise SchemaError(
                f"{file.path}: {error}. Expected UTF-8 text with commas between the fields and the "
                "names of the columns in the first line; write the table so, or to Parquet."
            ) from error


def _check_names(names: list[str], path: str) -> None:
    """Look whether the first line has the names of the columns, with commas between them."""
    if len(names) == 1 and any(separator in names[0] for separator in ";\t|"):
        raise SchemaError(
            f"{path}: expected commas between the fields, found the one column {names[0]!r}. Write "
            "the table with commas, or to Parquet."
        )
    # Tables without names are often written with 0, 1, 2 for them.
    numbered = [str(number) for number in range(len(names))]
    is_number = re.compile(r"[+-]?[\d.]+([eE][+-]?\d+)?").fullmatch
    if names != numbered and all(map(is_number, names)):
        logger.warning(
            "%s: the first line, %s, is read as the names of the columns. If it is a row of the "
            "table, put a line of names before it.",
            path,
            shortened(names),
        )


class _Evidence:
    """What the values of a column have shown so far.

    Attributes
    ----------
    kept_as_text : str or None
        A value that reads as a number but would be changed by it.
    """

    def __init__(self) -> None:
        self._kinds, self._has_values = list(_KINDS), False
        self.kept_as_text: str | None = None

    @property
    def kind(self) -> pa.DataType:
        """The narrowest type that keeps all values."""
        return self._kinds[0] if self._has_values and self._kinds else pa.string()

    def add(self, text: pa.Array) -> None:
        """Take note of values, none of them null."""
        if len(text):
            self._has_values = True
            self._kinds = [kind for kind in self._kinds if self._keeps(kind, text)]

    def _keeps(self, kind: pa.DataType, text: pa.Array) -> bool:
        if pa.types.is_boolean(kind):
            return bool(pc.all(pc.is_in(text, _BOOLEANS)).as_py())
        if not pa.types.is_timestamp(kind):  # around these, the reader ignores blanks
            text = pc.ascii_trim(text, " \t")
        try:
            text[:1].cast(kind)  # Arrow writes a message for each value that does not fit
            values = text.cast(kind)
        except pa.ArrowInvalid:
            return False
        if pa.types.is_integer(kind):
            return bool(pc.all(pc.equal(values.cast(pa.string()), text)).as_py())
        if pa.types.is_floating(kind):
            changed = _changed_as_float(text, values)
            self.kept_as_text = changed
            return changed is None
        return True


def _changed_as_float(text: pa.Array, values: pa.Array) -> str | None:
    """A value that is not the number it reads as, apart from rounding its decimals; or None."""
    whole = pc.invert(pc.match_substring_regex(text, r"[.eEnN]"))  # n of inf
    changed = (
        (None, r"^[+-]?0[0-9]"),
        (whole, r"^\+"),
        (pc.and_(whole, pc.greater_equal(pc.abs(values), _FIRST_INEXACT)), ""),
        (pc.is_inf(values), r"^[^nN]*$"),
        (pc.equal(values, 0.0), r"^[^eE]*[1-9]"),
    )
    for which, pattern in changed:
        some = text if which is None else text.filter(which)
        found = some.filter(pc.match_substring_regex(some, pattern)) if len(some) else some
        if len(found):
            return str(found[0].as_py())
    large = pc.and_(pc.greater_equal(pc.abs(values), _FIRST_INEXACT), pc.is_finite(values))
    text, values = text.filter(large), values.filter(large)
    # Most are as Arrow writes them; only the others are worth a closer look, one by one.
    large = pc.not_equal(values.cast(pa.string()), text)
    numbers = zip(text.filter(large).to_pylist(), values.filter(large).to_pylist(), strict=True)
    return next((written for written, number in numbers if _loses_digits(written, number)), None)


def _loses_digits(text: str, number: float) -> bool:
    """Whether `number`, written with as many digits as `text`, is another one."""
    digits = re.split("[eE]", text)[0].replace(".", "").strip("+-0")
    return Decimal(f"{number:.{len(digits) - 1}e}") != Decimal(text)
