"""Damage small tables in every way, read each, and see that nothing wrong is delivered in silence.

A table is written, some of its bytes are changed, and it is read to its end as a user would read
it, in another process: one that dies or hangs costs that process only, and is counted.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import hashlib
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import track

from pymc_streaming import DataLoader, arrow_source, parquet_source, preshuffle
from pymc_streaming.errors import ManifestError, StreamingError
from pymc_streaming.sources.manifest import MANIFEST_NAME, Manifest, sample_digest

__all__ = ["HARMFUL", "VERDICTS", "Outcome", "Tally", "fuzz", "main"]

MIB = 2**20

#: What can come of reading a damaged table, in words.
VERDICTS = {
    "HARMLESS": "the rows are those of the table that was not damaged",
    "REFUSED": "an error of the package, with the name of the file in its text",
    "UNDETECTABLE": "other rows, but no checksum covers all the bytes that were changed",
    "NAMELESS": "an error of the package, without the name of the file",
    "WRONG": "other rows, although a checksum covers what was changed; or not as many as announced",
    "FOREIGN": "an exception that is not of the package; MemoryError is one",
    "CRASH": "the interpreter died",
    "HANG": "it was not over in time, and was killed",
}
#: Those that must not come up.
HARMFUL = ("NAMELESS", "WRONG", "FOREIGN", "CRASH", "HANG")

# Reading takes some hundredths of a second; the first time there are functions to compile.
HANG_SECONDS, FIRST_SECONDS = 10.0, 120.0
# A process whose peak rose by so much is noted, and replaced: it would hide the next such peak.
JUMP_BYTES = 256 * MIB
# No process may ask for more memory than this: a declared size is not to take the whole machine.
ADDRESS_SPACE = 8 * 2**30


# --- Tables, and how they are read -------------------------------------------------------------


def mixed_table(n_rows: int, seed: int) -> pa.Table:
    """A column of every type that is a number in some way, one with nulls, and one of strings."""
    chance = np.random.default_rng(seed)
    whole = chance.integers(-1_000_000, 1_000_000, n_rows)
    real = chance.normal(size=n_rows)
    return pa.table(
        {
            "i64": whole,
            "i32": chance.integers(0, 50, n_rows, dtype=np.int32),
            "f32": real.astype(np.float32),
            "f64": chance.normal(size=n_rows),
            "flag": chance.random(n_rows) < 0.3,
            "when": pa.array(1_700_000_000_000_000 + whole * 1_000, pa.timestamp("us")),
            "day": pa.array(chance.integers(0, 20_000, n_rows, dtype=np.int32), pa.date32()),
            "price": pc.round(pa.array(real * 100.0), 2).cast(pa.decimal128(9, 2), safe=False),
            "kind": pa.array(chance.choice(["ash", "beech", "cedar", "oak"], n_rows)),
            "maybe": pa.array(real, mask=chance.random(n_rows) < 0.1),
        }
    )


def float_table(n_rows: int, seed: int) -> pa.Table:
    """Six columns of floats."""
    chance = np.random.default_rng(seed)
    return pa.table({f"x{i}": np.round(chance.normal(size=n_rows), 3) for i in range(6)})


def fill_nulls(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A transform."""
    maybe = columns["maybe"]
    return {"maybe": np.nan_to_num(maybe), "missing": np.isnan(maybe), "i32": columns["i32"]}


NUMBERS = ["i64", "i32", "f32", "f64", "day", "price"]
BY_NAME = {"X": ["f64", "i32"], "i64": "i64", "flag": "flag", "when": "when", "kind": "kind"}

#: Ways to read a table. The workers know them by these names.
READINGS: dict[str, Callable[[Path], Any]] = {
    "parquet, all columns": parquet_source,
    "parquet, one array": lambda path: parquet_source(path, columns=NUMBERS),
    "parquet, by name": lambda path: parquet_source(path, columns=BY_NAME, categories="auto"),
    "parquet, transform": lambda path: parquet_source(
        path, columns=["maybe", "i32"], transform=fill_nulls
    ),
    "parquet, filter": lambda path: parquet_source(
        path, columns=["i64", "maybe"], filters=pc.field("maybe") > 0.0
    ),
    "arrow, all columns": arrow_source,
    "arrow, one array": lambda path: arrow_source(path, columns=NUMBERS),
    "arrow, by name": lambda path: arrow_source(path, columns=BY_NAME, categories="auto"),
    "arrow, transform": lambda path: arrow_source(
        path, columns=["maybe", "i32"], transform=fill_nulls
    ),
}
OF_MIXED = ["one array", "by name", "transform"]


@dataclass
class Base:
    """A table that is not damaged, and what it is for.

    Parameters
    ----------
    kind : str
        What the results are counted by.
    path : Path
        A file, or a folder that was shuffled.
    target : Path
        The file to damage: the same one, or one in that folder.
    other : bytes
        Such a file of another table with the same columns.
    readings : sequence of str
        Ways to read it, names among `READINGS`.
    mutations : sequence of callable
        Ways to damage it.
    """

    kind: str
    path: Path
    target: Path
    other: bytes
    readings: Sequence[str]
    mutations: Sequence[Mutation]
    expected: dict[str, Reading] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        return self.path != self.target


def make_bases(folder: Path, seed: int) -> list[Base]:
    """Tables of all kinds, in a folder."""
    bases = []
    for codec in ("none", "snappy", "zstd", "gzip"):
        for checksum in (True, False):
            kind = f"Parquet, {codec}, {'page checksums' if checksum else 'no checksums'}"
            for dictionary in (True, False):
                options: dict[str, Any] = {
                    "compression": codec,
                    "write_page_checksum": checksum,
                    "use_dictionary": dictionary,
                    "row_group_size": 1_000,
                    "data_page_size": 2_048,
                    "write_batch_size": 128,
                    "data_page_version": "1.0" if dictionary == checksum else "2.0",
                }
                for make, names in (
                    (mixed_table, [*OF_MIXED, "filter"]),
                    (float_table, ["all columns"]),
                ):
                    path = folder / f"{len(bases)}.parquet"
                    pq.write_table(make(2_400, seed + 1), path, **options)
                    other = path.read_bytes()
                    pq.write_table(make(3_000, seed), path, **options)
                    readings = [f"parquet, {name}" for name in names]
                    bases.append(Base(kind, path, path, other, readings, PARQUET))
    for packing in ("none", "lz4", "zstd", "dictionary"):
        for make, names in ((mixed_table, OF_MIXED), (float_table, ["all columns"])):
            path = folder / f"{len(bases)}.arrow"
            write_arrow(make(2_400, seed + 1), path, packing)
            other = path.read_bytes()
            write_arrow(make(3_000, seed), path, packing)
            readings = [f"arrow, {name}" for name in names]
            bases.append(Base(f"Arrow, {packing}", path, path, other, readings, ARROW))
    # Of larger shards a reader compares a sample only.
    for form, make, n_rows, reading in (
        ("arrow", float_table, 12_000, "arrow, all columns"),
        ("parquet", mixed_table, 24_000, "parquet, by name"),
    ):
        folders = []
        for number in range(2):
            source = folder / f"source {form} {number}.parquet"
            pq.write_table(make(n_rows - 1_000 * number, seed + number), source)
            options = {"format": form, "rows_per_fragment": 2_000, "shards": 2, "seed": seed}
            if form == "arrow":
                options["dtype"] = "float64"
            folders.append(folder / f"shuffled {form} {number}")
            preshuffle(source, folders[-1], progressbar=False, **options)
        shards = sorted(path.name for path in folders[0].glob("part-*"))
        for name in (*shards, MANIFEST_NAME):
            is_shard = name != MANIFEST_NAME
            bases.append(
                Base(
                    f"Shuffled {form}, {'a shard' if is_shard else 'the manifest'}",
                    folders[0],
                    folders[0] / name,
                    (folders[1] / name).read_bytes(),
                    [reading],
                    (ARROW if form == "arrow" else PARQUET) if is_shard else MANIFEST,
                )
            )
    return bases


def write_arrow(table: pa.Table, path: Path, packing: str) -> None:
    """A file in the format of Arrow, compressed or with strings in a dictionary."""
    if packing == "dictionary":
        strings = [n for n in table.column_names if table.schema.field(n).type == pa.string()]
        for name in strings:
            position = table.schema.get_field_index(name)
            table = table.set_column(position, name, table[name].dictionary_encode())
        packing = "none"
    options = pa.ipc.IpcWriteOptions(compression=None if packing == "none" else packing)
    with pa.ipc.new_file(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=1_000)


# --- Reading, in a process that may die --------------------------------------------------------


@dataclass
class Reading:
    """What came of reading a table once.

    Parameters
    ----------
    end : {"rows", "refused", "foreign", "crash", "hang"}
        How it ended.
    digest : str
        Of all rows, and the names of columns and levels.
    counts : tuple of int
        Rows delivered, rows of the source, and of the loader.
    error : str
        The error in words.
    details : str
        Its traceback, or where the process was.
    peak : int
        The most memory the process had so far, in bytes.
    """

    end: str
    digest: str = ""
    counts: tuple[int | None, ...] = ()
    error: str = ""
    details: str = ""
    peak: int = 0


def deliver(reading: str, path: Path) -> Reading:
    """Read a table to its end."""
    source = READINGS[reading](path)
    loader = DataLoader(source, 256)
    digests = {name: hashlib.sha256() for name in source.layout}
    n_rows = 0
    for batch in loader:
        for name, array in batch.items():
            digests[name].update(np.ascontiguousarray(array).view(np.uint8).data)
        n_rows += len(array)
    what = [source.columns, source.categories, [d.hexdigest() for d in digests.values()]]
    digest = hashlib.sha256(repr(what).encode()).hexdigest()
    return Reading("rows", digest, (n_rows, source.n_rows, len(loader)))


def read(reading: str, path: Path) -> Reading:
    """The same, errors told apart."""
    try:
        return deliver(reading, path)
    except BaseException as error:  # noqa: BLE001 - any other would be a finding
        end = "refused" if isinstance(error, StreamingError) else "foreign"
        details = "" if end == "refused" else traceback.format_exc()
        return Reading(end, error=f"{type(error).__name__}: {error}", details=details)


def work(connection: Connection, log: Path) -> None:
    """What a process does until it is told to stop: read what it is given."""
    with log.open("a+b", buffering=0) as file:
        os.dup2(file.fileno(), 2)  # what C libraries have to say before they abort
        faulthandler.enable(file)
        faulthandler.register(signal.SIGUSR1, file)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.simplefilter("ignore")
        gc.freeze()  # what is imported need not be looked at again and again
        while (order := connection.recv()) is not None:
            file.truncate(0)
            found = read(*order)
            gc.collect()  # what dies when it is collected dies with the file that it is of
            found.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            connection.send(found)


# Forked from a process that has imported everything, they are at work at once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pymc_streaming.shuffling", "pyarrow.parquet", "rich.progress"])


class Worker:
    """A process that reads one table after the other, and is replaced when it dies.

    Parameters
    ----------
    folder : Path
        Where it writes down what it dies of.
    """

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log"
        self._process: Any = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def read(self, reading: str, path: Path, seconds: float = HANG_SECONDS) -> Reading:
        """What comes of reading a table within so many seconds."""
        if self._process is None:
            self._start()
        try:
            self._connection.send((reading, path))
            if not self._connection.poll(seconds):
                os.kill(self._process.pid, signal.SIGUSR1)  # it writes down where it is
                self._process.join(1.0)
                self._process.kill()
                return Reading("hang", error=f"after {seconds:g} s", details=self._end())
            found: Reading = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return Reading("crash", error=name, details=self._end())
        rise, self._peak = found.peak - self._peak, found.peak
        if rise > JUMP_BYTES:
            self.stop()
        return found

    @property
    def peak(self) -> int:
        """The most memory it had so far, before it reads anything else."""
        return self._peak if self._process is not None else 0

    def _start(self) -> None:
        self._connection, theirs = PROCESSES.Pipe()
        self._process = PROCESSES.Process(target=work, args=(theirs, self._log))
        self._process.start()
        theirs.close()  # so that its end is seen
        self._peak = 0

    def _end(self) -> str:
        self._process.join()
        self._process = None
        self._connection.close()
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            with suppress(OSError):  # it may have died since
                self._connection.send(None)
            self._end()


# --- Numbers in Parquet files: Thrift's compact protocol ----------------------------------------

# A struct is a list of [number of the field, type, value]; a list is (type, [values]).
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
WHOLE = (I16, I32, I64)


class ThriftReader:
    """Reads structs from bytes, beginning at `place`."""

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place

    def take(self, count: int) -> bytes:
        self.place += count
        return self.data[self.place - count : self.place]

    def unsigned(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    def signed(self) -> int:
        value = self.unsigned()
        return (value >> 1) ^ -(value & 1)

    def value(self, kind: int) -> Any:
        if kind in WHOLE:
            return self.signed()
        if kind == BINARY:
            return self.take(self.unsigned())
        if kind == STRUCT:
            return self.struct()
        if kind in (LIST, SET):
            (head,) = self.take(1)
            count = head >> 4 if head >> 4 < 15 else self.unsigned()
            return head & 15, [self.value(head & 15) for _ in range(count)]
        return self.take({BYTE: 1, DOUBLE: 8, TRUE: 1, FALSE: 1}[kind])

    def struct(self) -> list[list[Any]]:
        fields, number = [], 0
        while (head := self.take(1)[0]) != 0:
            kind = head & 15
            number = number + (head >> 4) if head >> 4 else self.signed()
            fields.append([number, kind, None if kind in (TRUE, FALSE) else self.value(kind)])
        return fields


def unsigned_bytes(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def signed_bytes(value: int) -> bytes:
    return unsigned_bytes(2 * value if value >= 0 else -2 * value - 1)


def value_bytes(kind: int, value: Any) -> bytes:
    if kind in WHOLE:
        return signed_bytes(value)
    if kind == BINARY:
        return unsigned_bytes(len(value)) + value
    if kind == STRUCT:
        return struct_bytes(value)
    if kind in (LIST, SET):
        element, values = value
        count = len(values)
        head = bytes([count << 4 | element]) if count < 15 else bytes([0xF0 | element])
        rest = b"" if count < 15 else unsigned_bytes(count)
        return head + rest + b"".join(value_bytes(element, each) for each in values)
    return value or b""


def struct_bytes(fields: list[list[Any]]) -> bytes:
    out, before = b"", 0
    for number, kind, value in fields:
        step = number - before
        head = bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + signed_bytes(number)
        out, before = out + head + value_bytes(kind, value), number
    return out + b"\0"


def get(fields: list[list[Any]], number: int) -> Any:
    """The value of a field, None if it is not there."""
    return next((field[2] for field in fields if field[0] == number), None)


def numbers_in(kind: int, value: Any, name: str = "") -> Iterator[tuple[str, list[Any], int]]:
    """Where all whole numbers of a value are: a name, and a list and a position in it."""
    if kind == STRUCT:
        for each in value:
            if each[1] in WHOLE:
                yield f"{name}.{each[0]}", each, 2
            else:
                yield from numbers_in(each[1], each[2], f"{name}.{each[0]}")
    elif kind == LIST:
        for position, each in enumerate(value[1]):
            if value[0] in WHOLE:
                yield f"{name}[{position}]", value[1], position
            else:
                yield from numbers_in(value[0], each, f"{name}[{position}]")


def footer_of(data: bytes) -> tuple[int, list[list[Any]]]:
    """Where the footer begins, and what it says."""
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    return start, ThriftReader(data, start).struct()


def with_footer(data: bytes, footer: list[list[Any]]) -> bytes:
    """The bytes of a table without a footer, and one."""
    encoded = struct_bytes(footer)
    return data + encoded + struct.pack("<I", len(encoded)) + b"PAR1"


def chunks_of(footer: list[list[Any]]) -> list[list[list[Any]]]:
    """The metadata of all column chunks."""
    return [get(chunk, 3) for group in get(footer, 4)[1] for chunk in get(group, 1)[1]]


@dataclass
class Page:
    """A page: where its header begins and its bytes, and after them."""

    header: int
    start: int
    stop: int
    has_checksum: bool


def pages_of(data: bytes) -> list[Page]:
    """All pages of a Parquet file."""
    pages = []
    for chunk in chunks_of(footer_of(data)[1]):
        place = min(n for n in (get(chunk, 9), get(chunk, 11)) if n is not None)
        stop = place + get(chunk, 7)
        while place < stop:
            reader = ThriftReader(data, place)
            header = reader.struct()
            end = reader.place + get(header, 3)
            pages.append(Page(place, reader.place, end, get(header, 4) is not None))
            place = end
    return pages


# --- Ways to damage a file ---------------------------------------------------------------------


@dataclass
class Damage:
    """A damaged file.

    Parameters
    ----------
    data : bytes
        The file.
    where : str
        What was done, in words.
    spans : list of (int, int), optional
        Which bytes of the file that was not damaged are others or gone, or where there are more;
        by default those that are others.
    """

    data: bytes
    where: str
    spans: list[tuple[int, int]] | None = None


#: From a file, such a file of another table, and chance.
Mutation = Callable[[bytes, bytes, random.Random], Damage]


def replaced(data: bytes, place: int, new: bytes, where: str) -> Damage:
    """Other bytes in the same place."""
    new = new[: len(data) - place]
    return Damage(data[:place] + new + data[place + len(new) :], f"{where} at {place:,}")


def flipped_bit(data: bytes, other: bytes, chance: random.Random) -> Damage:
    place = chance.randrange(len(data))
    return replaced(data, place, bytes([data[place] ^ 1 << chance.randrange(8)]), "one bit")


def flipped_bit_at_end(data: bytes, other: bytes, chance: random.Random) -> Damage:
    place = chance.randrange(max(0, len(data) - 2_048), len(data))
    return replaced(data, place, bytes([data[place] ^ 1 << chance.randrange(8)]), "one bit")


def random_bytes(data: bytes, other: bytes, chance: random.Random) -> Damage:
    changed, count = bytearray(data), chance.randint(1, 16)
    places = sorted(chance.randrange(len(data)) for _ in range(count))
    for place in places:
        changed[place] = chance.randrange(256)
    return Damage(bytes(changed), f"bytes at {places}")


def truncated(data: bytes, other: bytes, chance: random.Random) -> Damage:
    place = chance.randrange(1, len(data))
    return Damage(data[:place], f"cut at {place:,}", [(place, len(data))])


def emptied(data: bytes, other: bytes, chance: random.Random) -> Damage:
    return Damage(b"", "no bytes left", [(0, len(data))])


def wrong_magic(data: bytes, other: bytes, chance: random.Random) -> Damage:
    length = 4 if data.startswith(b"PAR1") else 6
    return replaced(data, chance.choice([0, len(data) - length]), chance.randbytes(length), "magic")


def zeroed_block(data: bytes, other: bytes, chance: random.Random) -> Damage:
    length = chance.choice([8, 64, 512, 4_096])
    return replaced(data, chance.randrange(len(data)), bytes(length), f"{length} zeros")


def copied_block(data: bytes, other: bytes, chance: random.Random) -> Damage:
    start, length = chance.randrange(len(data)), chance.choice([8, 64, 512, 4_096])
    block = data[start : start + length]
    return replaced(data, chance.randrange(len(data)), block, f"{len(block)} bytes of {start:,}")


def inserted_bytes(data: bytes, other: bytes, chance: random.Random) -> Damage:
    place, length = chance.randrange(len(data)), chance.choice([1, 2, 8, 64, 1_000])
    changed = data[:place] + chance.randbytes(length) + data[place:]
    return Damage(changed, f"{length} more bytes at {place:,}", [(place, place + 1)])


def removed_bytes(data: bytes, other: bytes, chance: random.Random) -> Damage:
    place, length = chance.randrange(len(data)), chance.choice([1, 2, 8, 64, 1_000])
    stop = min(place + length, len(data))
    return Damage(data[:place] + data[stop:], f"without {place:,} to {stop:,}", [(place, stop)])


def two_in_one(data: bytes, other: bytes, chance: random.Random) -> Damage:
    first, second = chance.choice([(data, data), (data, other), (other, data)])
    words = {id(data): "the table", id(other): "another"}
    where = f"{words[id(first)]} and after it {words[id(second)]}"
    return Damage(first + second, where, [(0, len(data))])


def footer_length(data: bytes, other: bytes, chance: random.Random) -> Damage:
    place = len(data) - (8 if data.startswith(b"PAR1") else 10)
    (length,) = struct.unpack_from("<i", data, place)
    lies = [0, 1, -1, 2**31 - 1, -(2**31), length - 1, length + 1, length + 8, len(data)]
    number = chance.choice([*lies, chance.randrange(len(data))])
    return replaced(data, place, struct.pack("<i", number), f"footer length {number}")


def a_lie(chance: random.Random, truth: int) -> int:
    """Another number that fits in a field of 64 bits."""
    near = [truth - 1, truth + 1, truth // 2, 2 * truth + 2, truth + 64]
    far = [0, 1, -1, 2**15, 2**31 - 1, 2**31, 2**32 + truth, 2**40, 2**62, 2**63 - 1, -(2**63)]
    return chance.choice([n for n in chance.choice([near, far]) if n != truth])


def lie_in_footer(data: bytes, other: bytes, chance: random.Random, names: str = "") -> Damage:
    """Any whole number of a Parquet footer, or one whose name matches."""
    start, footer = footer_of(data)
    found = [n for n in numbers_in(STRUCT, footer) if re.fullmatch(names or ".*", n[0])]
    name, holder, position = chance.choice(found)
    truth = holder[position]
    holder[position] = a_lie(chance, truth)
    where = f"footer field {name} from {truth} to {holder[position]}"
    return Damage(with_footer(data[:start], footer), where, [(start, len(data))])


def lie_about_rows(data: bytes, other: bytes, chance: random.Random) -> Damage:
    """Rows of the file or of a row group, or values of a column chunk."""
    names = chance.choice([r"\.3", r"\.4\[\d+\]\.3", r"\.4\[\d+\]\.1\[\d+\]\.3\.5"])
    return lie_in_footer(data, other, chance, names)


def lie_in_page_header(data: bytes, other: bytes, chance: random.Random, names: str = "") -> Damage:
    """Any whole number of a page header, or one whose name matches; all offsets follow."""
    page = chance.choice(pages_of(data))
    header = ThriftReader(data, page.header).struct()
    found = [n for n in numbers_in(STRUCT, header) if re.fullmatch(names or ".*", n[0])]
    name, holder, position = chance.choice(found)
    truth = holder[position]
    lie = chance.choice([2**31 - 1, 2**30, 2**28]) if names else a_lie(chance, truth)
    holder[position] = lie
    encoded = struct_bytes(header)
    longer = len(encoded) - (page.start - page.header)
    start, footer = footer_of(data)
    for chunk in chunks_of(footer):
        first = min(n for n in (get(chunk, 9), get(chunk, 11)) if n is not None)
        if first <= page.header < first + get(chunk, 7):
            next(each for each in chunk if each[0] == 7)[2] += longer
        for each in chunk:
            if each[0] in (9, 11) and each[2] > page.header:
                each[2] += longer
    changed = data[: page.header] + encoded + data[page.start : start]
    where = f"field {name} of the page header at {page.header:,} from {truth} to {lie}"
    return Damage(with_footer(changed, footer), where, [(page.header, page.start)])


def giant_page(data: bytes, other: bytes, chance: random.Random) -> Damage:
    """A page that says it is of gigabytes, or has as many values."""
    return lie_in_page_header(data, other, chance, r"\.[23]|\.[578]\.1")


def footer_of_another(data: bytes, other: bytes, chance: random.Random) -> Damage:
    start, _ = footer_of(data)
    return Damage(data[:start] + other[footer_of(other)[0] :], "footer of another", [(start, -1)])


def arrow_messages(data: bytes) -> list[tuple[int, int, int, int]]:
    """Of each message, where it begins, its metadata, its body, and what comes after."""
    reader = pa.BufferReader(data)
    reader.seek(8)
    found, start = [], 8
    while data[start : start + 8] != b"\xff\xff\xff\xff\0\0\0\0":  # the end of the stream
        message = pa.ipc.read_message(reader)
        body = start + 8 + message.metadata.size
        found.append((start, start + 8, body, reader.tell()))
        start = reader.tell()
    found.append((start, start + 8, len(data) - 10, len(data) - 10))  # the footer
    return found


def lie_in_metadata(data: bytes, other: bytes, chance: random.Random) -> Damage:
    """A number of the metadata of an Arrow message, or of the footer."""
    _, first, stop, _ = chance.choice(arrow_messages(data))
    width, form = chance.choice([(4, "<i"), (8, "<q")])
    places = [p for p in range(first, stop - width, width) if any(data[p : p + width])]
    place = chance.choice(places)
    (truth,) = struct.unpack_from(form, data, place)
    lie = a_lie(chance, truth) & (2 ** (8 * width) - 1)
    return replaced(data, place, lie.to_bytes(width, "little"), f"{truth} made {lie}")


def lie_about_arrow_rows(data: bytes, other: bytes, chance: random.Random) -> Damage:
    """The length of a record batch, or of one of its columns."""
    opened = pa.ipc.open_file(data)
    truth = opened.get_batch(chance.randrange(opened.num_record_batches)).num_rows
    places = [
        match.start()
        for _, first, stop, _ in arrow_messages(data)[1:-1]
        for match in re.compile(re.escape(struct.pack("<q", truth))).finditer(data, first, stop)
    ]
    lie = a_lie(chance, truth)
    return replaced(data, chance.choice(places), struct.pack("<q", lie), f"{truth} made {lie}")


def giant_arrow_size(data: bytes, other: bytes, chance: random.Random) -> Damage:
    """A length in front of a message's metadata, or of a compressed body, of gigabytes or more."""
    start, _, body, stop = chance.choice(arrow_messages(data)[:-1])
    lie = chance.choice([2**28, 2**30, 2**31 - 1])
    (length,) = struct.unpack_from("<q", data, body)
    is_length = body < stop and 0 < length < MIB  # else there is a number of the table itself
    if not is_length or chance.random() < 0.3:
        return replaced(data, start + 4, struct.pack("<i", lie), f"metadata length {lie}")
    lie = chance.choice([lie, 2**32, 2**36, 2**62])
    return replaced(data, body, struct.pack("<q", lie), f"length of the first buffer {lie}")


def lie_in_text(data: bytes, other: bytes, chance: random.Random) -> Damage:
    """A number in a manifest, or a whole value."""
    text = data.decode()
    match = chance.choice(list(re.finditer(r'(?<=: )(?:\d+|"[^"]*"|\[\]|\{\})', text)))
    lies = [
        "0",
        "-1",
        "1e400",
        "NaN",
        "null",
        "[]",
        '""',
        '"../x"',
        str(2**70),
        "true",
        "[" * 9_999,
    ]
    lie = chance.choice([*lies, f"1{match[0]}", match[0].replace("0", "1")])
    changed = (text[: match.start()] + lie + text[match.end() :]).encode()
    return Damage(changed, f"{match[0][:40]} made {lie[:40]}", [(match.start(), match.end())])


ANY = [
    flipped_bit,
    flipped_bit_at_end,
    random_bytes,
    truncated,
    emptied,
    zeroed_block,
    copied_block,
    inserted_bytes,
    removed_bytes,
    two_in_one,
]
PARQUET = [
    *ANY,
    wrong_magic,
    footer_length,
    lie_in_footer,
    lie_about_rows,
    lie_in_page_header,
    giant_page,
    footer_of_another,
]
ARROW = [
    *ANY,
    wrong_magic,
    footer_length,
    lie_in_metadata,
    lie_about_arrow_rows,
    giant_arrow_size,
]
MANIFEST = [*ANY, lie_in_text, lie_in_text]


def damage(base: Base, chance: random.Random) -> tuple[str, Damage]:
    """A file with some bytes changed, and the name of the way to do it."""
    data = base.target.read_bytes()
    mutation = chance.choice(base.mutations)
    while True:  # zeros may be zeros already
        found = mutation(data, base.other, chance)
        if found.data != data:
            break
    if found.spans is None:
        old, new = np.frombuffer(data, np.uint8), np.frombuffer(found.data, np.uint8)
        found.spans = [(place, place + 1) for place in np.flatnonzero(old != new).tolist()]
    return mutation.__name__.replace("_", " "), found


def are_covered(data: bytes, spans: list[tuple[int, int]]) -> bool:
    """Whether all bytes of a Parquet file that were changed have a checksum: those of pages do."""
    pages = [page for page in pages_of(data) if page.has_checksum]
    # What is inserted in front of the first byte of a page shifts it, and changes none of it.
    return all(any(p.start <= a and 0 <= b <= p.stop for p in pages) for a, b in spans)


# --- Judging -----------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What came of one damaged file.

    Parameters
    ----------
    number : int
        Its number; with the seed it says all of it.
    kind : str
        What kind of table it is.
    mutation, where : str
        How it was damaged, and where.
    reading : str
        How it was read.
    verdict : str
        One of `VERDICTS`.
    error, details : str
        What was raised, and from where.
    rise : int, default 0
        Bytes by which the most memory of the process rose.
    alone : str, default ""
        The verdict when it was read again in a process of its own.
    """

    number: int
    kind: str
    mutation: str
    where: str
    reading: str
    verdict: str
    error: str
    details: str
    rise: int = 0
    alone: str = ""

    @property
    def offends(self) -> bool:
        return self.verdict in HARMFUL or self.rise > JUMP_BYTES

    def __str__(self) -> str:
        rise = f"; memory rose by {self.rise / MIB:,.0f} MiB" if self.rise > JUMP_BYTES else ""
        alone = f"; in a fresh process {self.alone}" if self.alone else ""
        return (
            f"{self.number:06} {self.verdict}: {self.kind}; {self.mutation}: {self.where}; read as "
            f"{self.reading!r}{rise}{alone}. {self.error}"
        )


@dataclass
class Tally:
    """What came of all.

    Parameters
    ----------
    outcomes : list of Outcome
        What came of each file.
    peak : int
        The most memory a worker had, in bytes.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    peak: int = 0

    @property
    def offences(self) -> list[Outcome]:
        """Those that must not come up, and those that took much memory."""
        return [outcome for outcome in self.outcomes if outcome.offends]

    def of(self, *verdicts: str) -> int:
        """How many files have one of those verdicts."""
        return sum(outcome.verdict in verdicts for outcome in self.outcomes)

    def table(self, title: str, row_of: Callable[[Outcome], str]) -> str:
        """Numbers of files by verdict and something else, to print."""
        counts = Counter((row_of(outcome), outcome.verdict) for outcome in self.outcomes)
        rows = sorted({row for row, _ in counts})
        counts += Counter(("all", outcome.verdict) for outcome in self.outcomes)
        wide = max(map(len, (*rows, title)))
        lines = [f"{title:{wide}}" + "".join(f"{verdict:>14}" for verdict in VERDICTS)]
        for row in (*rows, "all"):
            numbers = "".join(f"{counts[row, verdict]:14,}" for verdict in VERDICTS)
            lines.append(f"{row:{wide}}{numbers}")
        return "\n".join(lines)


def judge(base: Base, reading: str, found: Reading, path: Path, target: Path, made: Damage) -> str:
    """The verdict on what came of reading a damaged table."""
    if found.end != "rows":
        has_name = target.name in found.error
        verdicts = {"foreign": "FOREIGN", "crash": "CRASH", "hang": "HANG"}
        return verdicts.get(found.end, "REFUSED" if has_name else "NAMELESS")
    if len(set(found.counts)) > 1:
        return "WRONG"
    if found.digest == base.expected[reading].digest:
        return "HARMLESS"
    if base.is_folder:
        if target.name != MANIFEST_NAME and sample_digest(target) != sample_digest(base.target):
            return "WRONG"  # a source compares samples
        try:
            Manifest.read(path).verify(path)
        except ManifestError:
            return "UNDETECTABLE"  # by a source; the user may ask for more
        return "WRONG"
    if base.target.suffix == ".parquet" and are_covered(base.target.read_bytes(), made.spans or []):
        return "WRONG"
    return "UNDETECTABLE"


def fuzz(
    folder: Path,
    n_files: int,
    seed: int = 0,
    *,
    first: int = 0,
    keep: Path | None = None,
    progressbar: bool = False,
) -> Tally:
    """Damage so many tables and read them.

    Parameters
    ----------
    folder : Path
        An empty folder to work in.
    n_files : int
        How many.
    seed : int, default 0
        Seed of the tables, and with the number of a file of what is done to it.
    first : int, default 0
        Number of the first file.
    keep : Path, optional
        A folder for the files that offend, and what is known of them.
    progressbar : bool, default False
        Show progress, where there is a terminal.
    """
    bases, tally = make_bases(folder, seed), Tally()
    console = Console(stderr=True)
    numbers = track(
        range(first, first + n_files),
        "reading damaged tables",
        console=console,
        disable=not (progressbar and console.is_terminal),
    )
    with Worker(folder) as worker:
        for number in numbers:
            chance = random.Random(f"{seed} {number}")
            # As many files for each kind of table, however many tables are of it.
            kind = chance.choice(sorted({base.kind for base in bases}))
            base = chance.choice([base for base in bases if base.kind == kind])
            reading = chance.choice(base.readings)
            if reading not in base.expected:
                base.expected[reading] = worker.read(reading, base.path, FIRST_SECONDS)
                if base.expected[reading].end != "rows":
                    raise RuntimeError(f"{base.kind}, {reading}: {base.expected[reading]}")
            mutation, made = damage(base, chance)
            path, target = put(base, made, folder / f"{number:06}")
            before = worker.peak
            found = worker.read(reading, path)
            outcome = Outcome(
                number,
                base.kind,
                mutation,
                made.where,
                reading,
                judge(base, reading, found, path, target, made),
                found.error,
                found.details,
                # What a worker takes before it reads anything is not due to the file.
                found.peak - before if before else 0,
            )
            tally.outcomes.append(outcome)
            tally.peak = max(tally.peak, found.peak)
            if outcome.verdict in HARMFUL:
                # An earlier file may have left the process in disorder.
                with Worker(folder) as fresh:
                    alone = fresh.read(reading, path)
                outcome.alone = judge(base, reading, alone, path, target, made)
            if outcome.offends and keep is not None:
                keep_offence(keep, outcome, base, path, made)
            shutil.rmtree(folder / f"{number:06}")
    return tally


def put(base: Base, made: Damage, folder: Path) -> tuple[Path, Path]:
    """Write a damaged table into a folder of its own; what to read, and the file in question."""
    folder.mkdir()
    if base.is_folder:
        path = Path(shutil.copytree(base.path, folder / "shuffled"))
        target = path / base.target.name
    else:
        path = target = folder / f"damaged-{folder.name}{base.target.suffix}"
    target.write_bytes(made.data)
    return path, target


def keep_offence(keep: Path, outcome: Outcome, base: Base, path: Path, made: Damage) -> None:
    """Keep a table that offends, and what is known of it."""
    place = keep / f"{outcome.number:06} {outcome.verdict}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if path.is_dir():
        shutil.copytree(path, place / path.name)
    else:
        shutil.copy(path, place)
    shutil.copy(base.target, place / f"as it was {base.target.name}")
    known = {"said": str(outcome), "changed": (made.spans or [])[:100]}
    (place / "known.json").write_text(json.dumps(known, indent=1) + "\n")
    (place / "details.txt").write_text(outcome.details)


def main(arguments: Sequence[str] | None = None) -> int:
    """Damage tables, and say what came of it; 1 if anything came up that must not."""
    wide = max(map(len, VERDICTS))
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            [
                "What can come of a file:",
                *(f"  {name:{wide}}  {words}" for name, words in VERDICTS.items()),
                f"It is all well unless one of {', '.join(HARMFUL)} comes up, or memory does not",
                "stay below the limit; the exit code is then 1.",
                "",
                "Examples:",
                "  2,000 files, some minutes; those that offend are kept, with their tracebacks:",
                "      python -m tests.faults.fuzz --files 2000 --keep offending",
                "  The file with number 1234 of that run once more, by itself:",
                "      python -m tests.faults.fuzz --first 1234 --files 1",
                "  Others; several runs with seeds of their own can go on at the same time:",
                "      python -m tests.faults.fuzz --files 2000 --seed 1",
            ]
        ),
    )
    parser.add_argument("--files", type=int, default=2_000, help="how many (default: 2000)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the tables and of what is done to them (default: 0)"
    )
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first file (default: 0)"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=1_024,
        metavar="MIB",
        help="most memory that reading may take (default: 1024)",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="folder for the files that offend (default: none)"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        tally = fuzz(
            Path(folder),
            options.files,
            options.seed,
            first=options.first,
            keep=options.keep,
            progressbar=True,
        )
    print(tally.table("kind of table", lambda outcome: outcome.kind), end="\n\n")
    print(tally.table("kind of damage", lambda outcome: outcome.mutation), end="\n\n")
    for outcome in tally.offences:
        print(outcome, end="\n\n")
    print(f"Peak of memory: {tally.peak / MIB:,.0f} MiB; the limit is {options.limit:,.0f} MiB.")
    is_well = not tally.of(*HARMFUL) and tally.peak <= options.limit * MIB
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
