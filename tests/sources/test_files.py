from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from pymc_streaming import DataLoader, arrow_source, parquet_source
from pymc_streaming.errors import (
    ArgumentError,
    CorruptFileError,
    MissingFileError,
    SourceError,
    TransferError,
)
from pymc_streaming.sources import files
from pymc_streaming.sources.files import find_files
from pymc_streaming.sources.reading import reading


def labels(path: object, pattern: str = "*.parquet") -> list[str]:
    return [file.label for file in find_files(path, pattern)]  # type: ignore[arg-type]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = [
        "b/2.parquet",
        "b/10.parquet",
        "a.parquet",
        "notes.txt",
        "_temporary/x.parquet",
        ".hidden.parquet",
        "b/_SUCCESS.parquet",
        "c/.cache/y.parquet",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"x": [1.0]}), tmp_path / name)
    return tmp_path


def test_folder_is_searched_recursively_without_hidden_names(tree: Path) -> None:
    assert labels(tree) == ["a.parquet", "b/10.parquet", "b/2.parquet"]
    assert labels(f"{tree}/") == labels(tree)
    assert labels(tree, "1*.parquet") == ["10.parquet"]


def test_hidden_folder_is_read_when_named(tree: Path) -> None:
    assert labels(tree / "_temporary") == ["x.parquet"]
    assert labels(tree / ".hidden.parquet") == [".hidden.parquet"]
    assert labels(f"{tree}/_temp*/*") == ["x.parquet"]


def test_globs(tree: Path) -> None:
    assert labels(f"{tree}/*.parquet") == ["a.parquet"]
    assert labels(f"{tree}/**/*.parquet") == labels(tree)
    assert labels(f"{tree}/[b]") == ["10.parquet", "2.parquet"]
    assert labels(f"{tree}/b/?.parquet") == ["2.parquet"]


def test_list_keeps_its_order(tree: Path) -> None:
    assert labels([tree / "b" / "2.parquet", str(tree / "a.parquet")]) == [
        "b/2.parquet",
        "a.parquet",
    ]


def test_file_listed_twice_is_refused(tree: Path) -> None:
    with pytest.raises(ArgumentError, match=r"a\.parquet is listed more than once"):
        labels([tree, tree / "a.parquet"])


def test_url(tree: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/test_url/p/1.parquet", b"")
    memory.pipe("/test_url/p/_x/2.parquet", b"")
    (file,) = find_files("memory://test_url/", "*.parquet")
    assert file.path == "memory:///test_url/p/1.parquet"
    assert not file.is_local
    assert labels("memory://test_url/*/*.parquet") == ["1.parquet"]
    assert labels(f"file://{tree}/b") == ["10.parquet", "2.parquet"]


@pytest.mark.parametrize("name", ["nothing", "no*thing", "b/*.csv"])
def test_nothing_found(tree: Path, name: str) -> None:
    with pytest.raises(MissingFileError, match=str(tree)):
        labels(tree / name)


def test_folder_without_match_says_what_was_searched(tree: Path) -> None:
    with pytest.raises(
        MissingFileError, match=r"no file matches '\*\.csv' in this folder"
    ) as error:
        labels(tree, "*.csv")
    assert isinstance(error.value, FileNotFoundError)


def test_capitals_in_the_end_of_a_name(tmp_path: Path) -> None:
    for name in ("a.parquet", "B.PARQUET", "c.d.Parquet", "e.parquet.bak"):
        (tmp_path / name).touch()
    assert labels(tmp_path) == ["B.PARQUET", "a.parquet", "c.d.Parquet"]
    assert labels(tmp_path, "[a-z]*.parquet") == ["a.parquet", "c.d.Parquet"]


@pytest.mark.parametrize("other", ["x.csv", "x.CSV.gz", "deep/x.arrow", "x.feather"])
def test_tables_of_another_kind_are_not_passed_over(other: str, tmp_path: Path) -> None:
    for name in ("a.parquet", "README.txt", "_hidden.csv", ".csv", other):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(
        ArgumentError, match=rf"several kinds, .*a.parquet and .*{other}.*'.*/\*\*/"
    ):
        labels(tmp_path)
    (tmp_path / "b.parquet").touch()
    for path, pattern in ((tmp_path, "a*"), (tmp_path / "**" / "a.parquet", "*.parquet")):
        assert labels(path, pattern) == ["a.parquet"]


@pytest.mark.parametrize("path", [[], [1], 3.5, "nosuchprotocol://x/y.parquet"])
def test_no_path(path: object) -> None:
    with pytest.raises(ArgumentError):
        labels(path)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (FileNotFoundError("gone"), MissingFileError),
        (PermissionError("no"), SourceError),
        (TimeoutError("slow"), TransferError),
        (ConnectionResetError("reset"), TransferError),
        (OSError(5, "input/output error"), SourceError),
        (OSError("Unexpected end of stream"), CorruptFileError),
        (pa.ArrowInvalid("magic bytes"), CorruptFileError),
        (RuntimeError("of some remote library"), SourceError),
    ],
)
def test_errors_are_translated(raised: Exception, expected: type[SourceError]) -> None:
    with pytest.raises(SourceError, match=r"part-0\.parquet") as error, reading("part-0.parquet"):
        raise raised
    assert type(error.value) is expected
    assert error.value.__cause__ is raised


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("t.feather", parquet_source, "Arrow or Feather file; read it with arrow_source"),
        ("t.ARROW", parquet_source, "read it with arrow_source"),
        ("t.parquet", arrow_source, "Parquet file; read it with parquet_source"),
        ("t.csv.gz", parquet_source, "pymc-streaming shuffle"),
        ("t.csv", lambda path: DataLoader(path, 1), "pymc-streaming shuffle"),
    ],
)
def test_the_right_reader_is_named(tmp_path: Path, name, make, message) -> None:
    (tmp_path / name).write_bytes(b"whatever it is")
    with pytest.raises(ArgumentError, match=message):
        make(tmp_path / name)


def test_a_loader_reads_feather_files(tmp_path: Path) -> None:
    pa.feather.write_feather(pa.table({"x": [1.0, 2.0]}), tmp_path / "t.feather")
    assert len(DataLoader(tmp_path / "t.feather", 1)) == 2


def test_what_may_not_be_read(tmp_path, monkeypatch) -> None:
    """Made up, since who runs the tests may be allowed everything."""
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "b.parquet")
    look = files._version_here

    def refused(path: str) -> str:
        if path.endswith("b.parquet"):
            raise PermissionError(13, "Permission denied", path)
        return look(path)

    monkeypatch.setattr(files, "_version_here", refused)
    with pytest.raises(SourceError, match=r"may not be read.*b\.parquet"):
        parquet_source(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["Übersicht März", "表", "🛫", "a b\tc", "x" * 240, "[0-9]*?", "%20", "'quoted\"", "-rf"],
)
def test_names_of_any_letters(tmp_path, name) -> None:
    folder = tmp_path / name
    folder.mkdir()
    pq.write_table(pa.table({name: [1.0, 2.0]}), folder / f"{name}.parquet")
    for path in (folder, folder / f"{name}.parquet"):
        source = parquet_source(path)
        assert source.columns == (name,)
        assert len(DataLoader(source, 2)) == 2
