"""A shuffle that was stopped: the output is absent or complete, and the same call goes on."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import re
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pymc_streaming import preshuffle
from pymc_streaming.errors import (
    DiskSpaceError,
    MissingValueError,
    OutputExistsError,
    PrecisionError,
    SchemaError,
    SourceError,
)
from pymc_streaming.shuffling import external, inputs, workspace
from pymc_streaming.shuffling.inputs import InputTable
from pymc_streaming.shuffling.scratch import Partition
from pymc_streaming.sources.manifest import MANIFEST_NAME, Manifest
from tests import tables
from tests.tables import contents, expected_order, rows_of, small_pieces, write

# Processes forked from one that has imported everything start at once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pymc_streaming", "tests.tables"])

QUIET = {"seed": 0, "progressbar": False}


def in_process(function: Any, *arguments: Any, **options: Any) -> Any:
    process = PROCESSES.Process(target=function, args=arguments, kwargs=options)
    process.start()
    return process


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all runs that are written from now on in the first pass."""
    names: list[str] = []
    write_run = Partition.write

    def spy(self: Partition, name: str, *rest: Any) -> Any:
        if name.startswith("task"):
            names.append(name)
        return write_run(self, name, *rest)

    monkeypatch.setattr(Partition, "write", spy)
    return names


def small(tmp_path: Path, name: str = "a") -> Path:
    rows = np.arange(600)
    table = pa.table({"row": rows, "text": [f"text {row}" for row in rows]})
    return write(tmp_path / f"{name}.parquet", table, [100] * 5)


OPTIONS: dict[str, Any] = {"shards": 3, "workers": 1, "memory_limit": 9000}


@pytest.fixture
def complete(tmp_path: Path) -> dict[str, bytes]:
    """What the small table should be shuffled into."""
    with small_pieces():
        preshuffle(small(tmp_path), tmp_path / "complete", **QUIET, **OPTIONS)
    return contents(tmp_path / "complete")


# Killed --------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_between_two_acts_on_files(overwrite, tmp_path, complete, runs):
    source, output = small(tmp_path), tmp_path / "out"
    options = OPTIONS | {"overwrite": overwrite}
    if overwrite:  # what is there must stay until the new one is complete
        preshuffle(source, tmp_path / "former", **QUIET, shards=1)
        shutil.copytree(tmp_path / "former", output)
        former = contents(output)
    runs.clear()
    with small_pieces():
        preshuffle(source, tmp_path / "plain", **QUIET, **OPTIONS)
    from_nothing, fewer = len(runs), 0
    process = in_process(tables.shuffle_and_die, source, output, None, options)
    process.join()
    assert contents(output) == complete
    acts = (tmp_path / "events").read_text().split("\n")
    # Some at random; all on the output, and those after them; and the last ones, that tidy up.
    chosen = {i + more for i, act in enumerate(acts) if f"{output}'" in act for more in (0, 1, 2)}
    chosen |= {*random.Random(0).sample(range(len(acts)), 4), len(acts) - 9, len(acts) - 1}
    for act in sorted(chosen & set(range(len(acts)))):
        shutil.rmtree(output)
        if overwrite:
            shutil.copytree(tmp_path / "former", output)
        process = in_process(tables.shuffle_and_die, source, output, act, options)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        if output.exists():
            assert contents(output) in ([complete, former] if overwrite else [complete])
        runs.clear()
        with small_pieces():
            if output.exists() and not overwrite:
                with pytest.raises(OutputExistsError):
                    preshuffle(source, output, **QUIET, **options)
            else:
                preshuffle(source, output, **QUIET, **options)
                fewer += len(runs) < from_nothing
        assert contents(output) == complete
        assert not list(tmp_path.glob(".out*"))
    assert fewer


def test_killed_at_random_moments(tmp_path, runs):
    rng = np.random.default_rng(0)
    table = pa.table({f"x{i}": rng.normal(size=400_000).round(1) for i in range(8)})
    source = write(tmp_path / "a.parquet", table, [50_000] * 7)
    options = {"memory_limit": "24MiB", "workers": 1, "shards": 4, "format": "arrow", **QUIET}

    def begun(output: Path) -> Any:
        """A process that shuffles, from the moment on in which that can be seen."""
        process = in_process(preshuffle, source, output, **options)
        while not list(tmp_path.glob(".out-*")) and not output.exists():
            time.sleep(0.001)
        return process

    preshuffle(source, tmp_path / "complete", **options)
    process, started = begun(tmp_path / "out-first"), time.perf_counter()
    process.join()
    seconds = time.perf_counter() - started
    complete, from_nothing, fewer = contents(tmp_path / "complete"), len(runs), 0
    for number, share in enumerate(rng.uniform(size=10)):
        output = tmp_path / f"out-{number}"
        process = begun(output)
        process.join(share * seconds)
        process.kill()
        process.join()
        if output.exists():
            assert contents(output) == complete
            continue
        runs.clear()
        preshuffle(source, output, **options)
        fewer += len(runs) < from_nothing
        assert contents(output) == complete
        assert [path.name for path in tmp_path.glob(".*")] == []
    assert fewer


def interrupted(source: Path, output: Path) -> None:
    """Ctrl-C in the middle of the second pass; exit status 3 if that is what comes out."""
    written, first = external.write_shard, threading.Lock()

    def interrupt(*arguments: Any) -> Any:
        shard = written(*arguments)
        if first.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGINT)
        return shard

    external.write_shard = interrupt
    with small_pieces():
        try:
            preshuffle(source, output, **QUIET, **OPTIONS | {"workers": 2, "memory_limit": 18_000})
        except KeyboardInterrupt:
            os._exit(3)


def test_interrupted_by_the_keyboard(tmp_path, complete, runs):
    process = in_process(interrupted, small(tmp_path), tmp_path / "out")
    process.join(60)
    assert process.exitcode == 3
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".out.shuffling/part-*.json"))
    with small_pieces():
        preshuffle(small(tmp_path), tmp_path / "out", **QUIET, **OPTIONS | {"memory_limit": 18_000})
    # The file was written again, so it is another table for all that is known.
    assert runs
    assert contents(tmp_path / "out") == complete


# Going on ------------------------------------------------------------------------------


class Stop(Exception):
    """Not an error that is caught anywhere."""


def stop_after(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, calls: int) -> None:
    """Let a function raise when it is called for the last time."""
    function, left = getattr(module, name), calls

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stop
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, counted)


def stopped(tmp_path: Path, source: Path, shards_written: int = 1, **options: Any) -> Path:
    """The workspace of a shuffle that was stopped after some shards."""
    with pytest.MonkeyPatch.context() as patch, small_pieces():
        stop_after(patch, external, "write_shard", shards_written)
        with pytest.raises(Stop):
            preshuffle(source, tmp_path / "out", **QUIET, **OPTIONS | options)
    return tmp_path / ".out.shuffling"


def go_on(tmp_path: Path, source: Path, **options: Any) -> Manifest:
    with small_pieces():
        return preshuffle(source, tmp_path / "out", **QUIET | OPTIONS | options)


def test_what_was_finished_is_not_done_again(tmp_path, complete, runs, monkeypatch, caplog):
    source = tmp_path / "a.parquet"
    stopped(tmp_path, source, shards_written=2)
    runs.clear()
    stop_after(monkeypatch, external, "write_shard", 1)  # which is the last one
    caplog.set_level(logging.INFO)
    go_on(tmp_path, source)
    assert not runs
    assert contents(tmp_path / "out") == complete
    (percent,) = re.findall(r"Going on with an interrupted shuffle: (\d+) % is done", caplog.text)
    assert 50 < int(percent) < 100


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({}, None),
        ({"workers": 3}, None),
        ({"memory_limit": 90_000}, None),
        ({"memory_limit": 8999}, "it needs a memory_limit of"),
        ({"seed": 1}, "these have changed: seed"),
        ({"shards": 2}, "these have changed: shards"),
        ({"format": "arrow"}, "these have changed: format"),
        ({"columns": ["row"]}, "these have changed: set of columns"),
        ({"columns": ["text", "row"]}, "these have changed: set of columns"),
        ({"rows_per_fragment": 7}, "these have changed: rows_per_fragment"),
        ({"columns": ["row"], "dtype": "float32"}, "set of columns, dtype"),
    ],
)
def test_another_task_begins_anew(changes, again, tmp_path, runs, caplog):
    source = small(tmp_path)
    with small_pieces():
        preshuffle(source, tmp_path / "wanted", **QUIET | OPTIONS | changes)
    stopped(tmp_path, source)
    runs.clear()
    caplog.set_level(logging.INFO)
    go_on(tmp_path, source, **changes)
    assert bool(runs) == (again is not None)
    assert ("Going on" in caplog.text) == (again is None)
    (*warned,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == (again is not None)
    assert all(f"cannot go on, since {again}" in w or again in w for w in warned)
    assert contents(tmp_path / "out") == contents(tmp_path / "wanted")


def test_another_source_begins_anew(tmp_path, runs):
    stopped(tmp_path, small(tmp_path))
    runs.clear()
    go_on(tmp_path, small(tmp_path, "b"))
    assert runs


def test_a_rerun_keeps_to_its_memory(tmp_path, monkeypatch):
    """Pieces that were cut for one worker are not held by four at a time."""
    source = small(tmp_path)
    stopped(tmp_path, source, workers=1)
    used: list[int] = []
    pool = external.ThreadPoolExecutor
    monkeypatch.setattr(
        external, "ThreadPoolExecutor", lambda n, name: used.append(n) or pool(n, name)
    )
    go_on(tmp_path, source, workers=4, memory_limit=9000)
    assert used == [1, 1]


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_source_that_was_changed_since(keep_times, tmp_path, runs):
    csv = tmp_path / "a.csv"
    lines = [f"{number},{'x' * 2600}" for number in range(600)]
    csv.write_text("\n".join(["row,text", *lines]))
    stopped(tmp_path, csv)
    before = csv.stat()
    # In the middle, where only the time tells; or at the end, where the content does.
    number = 599 if keep_times else 100
    csv.write_text("\n".join(["row,text", *lines]).replace(f"\n{number},xx", f"\n{number},yy"))
    assert csv.stat().st_size == before.st_size
    if keep_times:
        os.utime(csv, ns=(before.st_atime_ns, before.st_mtime_ns))
    runs.clear()
    go_on(tmp_path, csv)
    assert runs
    texts = dict(zip(*rows_of(tmp_path / "out").to_pydict().values(), strict=True))
    assert texts[number].startswith("yy")


def test_a_source_that_is_changed_while_it_is_read(tmp_path, monkeypatch):
    csv = tmp_path / "a.csv"
    text = "row,text\n" + "\n".join(f"{number},{'x' * 2600}" for number in range(600))
    csv.write_text(text)
    read = InputTable.read

    def write_meanwhile(self: InputTable, pieces: Any) -> Any:
        yield from read(self, pieces)
        csv.write_text(text.replace("\n100,xx", "\n100,yy"))

    with monkeypatch.context() as patch:
        patch.setattr(InputTable, "read", write_meanwhile)
        with pytest.raises(SchemaError, match=r"a\.csv: files were changed while they were read"):
            go_on(tmp_path, csv)
    assert not (tmp_path / "out").exists()
    go_on(tmp_path, csv)
    assert rows_of(tmp_path / "out")["row"].to_pylist() == expected_order(600, 0)


def test_a_source_that_is_changed_after_its_types_were_found(tmp_path, monkeypatch):
    csv = tmp_path / "a.csv"
    csv.write_text("row,zip\n" + "".join(f"{row},10501\n" for row in range(600)))
    survey = inputs.survey_csv

    def write_meanwhile(*arguments: Any) -> Any:
        found = survey(*arguments)
        csv.write_text(csv.read_text().replace("10501", "00501"))
        return found

    monkeypatch.setattr(inputs, "survey_csv", write_meanwhile)
    with pytest.raises(SchemaError, match=r"a\.csv: files were changed while they were read"):
        go_on(tmp_path, csv)
    assert not (tmp_path / "out").exists()


def test_a_finished_shard_that_was_lost_or_cut(tmp_path, complete, runs):
    source = tmp_path / "a.parquet"
    for harm in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])):
        folder = stopped(tmp_path, source, shards_written=2)
        harm(folder / "shards" / "part-00001.parquet")
        runs.clear()
        go_on(tmp_path, source)
        assert runs
        assert contents(tmp_path / "out") == complete
        for path in (tmp_path / "out").iterdir():
            path.unlink()


def test_rows_between_the_passes_that_were_lost_or_cut(tmp_path, complete, runs):
    source = tmp_path / "a.parquet"
    for harm in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])):
        folder = stopped(tmp_path, source)
        harm(next((folder / "runs" / "group-02").iterdir()))
        runs.clear()
        go_on(tmp_path, source)
        assert runs
        assert contents(tmp_path / "out") == complete
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("meanwhile", ["nothing", "an empty folder", "another table"])
def test_what_was_to_be_replaced_is_put_back(meanwhile, tmp_path, complete, monkeypatch):
    """Stopped between taking the old output away and putting the new one there."""
    source = tmp_path / "a.parquet"
    go_on(tmp_path, source)
    rename = Path.rename

    def stop_at_shards(path: Path, target: Path) -> Path:
        if path.name == "shards":
            raise Stop
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop_at_shards)
        with pytest.raises(Stop):
            go_on(tmp_path, source, seed=1, overwrite=True)
    if meanwhile == "an empty folder":
        (tmp_path / "out").mkdir()
    if meanwhile == "another table":
        preshuffle(source, tmp_path / "other", **QUIET, shards=1)
        (tmp_path / "other").rename(tmp_path / "out")
        with pytest.raises(OutputExistsError, match=r"a shuffle was stopped .*former"):
            go_on(tmp_path, source, seed=2, overwrite=True)
        shutil.rmtree(tmp_path / "out")
    with pytest.raises(SourceError):
        go_on(tmp_path, tmp_path / "nothing.parquet", seed=2, overwrite=True)
    assert contents(tmp_path / "out") == complete


def test_a_plan_that_is_damaged_or_gone(tmp_path, complete):
    source = tmp_path / "a.parquet"
    for harm in (Path.unlink, lambda path: path.write_text("{"), lambda path: path.write_text("")):
        harm(stopped(tmp_path, source) / "plan.json")
        go_on(tmp_path, source)
        assert contents(tmp_path / "out") == complete
        for path in (tmp_path / "out").iterdir():
            path.unlink()


def test_the_work_of_another_version_is_not_taken_up(tmp_path, complete, runs, monkeypatch):
    source = tmp_path / "a.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(external, "version", lambda _: "0.0.1")
        stopped(tmp_path, source)
    runs.clear()
    go_on(tmp_path, source)
    assert runs
    assert contents(tmp_path / "out") == complete


@pytest.mark.parametrize(
    ("column", "options", "error"),
    [
        ([1.0] * 99 + [None], {"dtype": "float32"}, MissingValueError),
        ([0] * 99 + [2**60], {"dtype": "float64"}, PrecisionError),
    ],
)
def test_nothing_is_kept_where_the_table_is_at_fault(column, options, error, tmp_path):
    write(tmp_path / "a.parquet", pa.table({"x": column}), [50])
    with small_pieces(), pytest.raises(error):
        preshuffle(tmp_path / "a.parquet", tmp_path / "out", **QUIET, **OPTIONS | options)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_false_start_does_not_harm_what_was_finished(tmp_path, complete, runs):
    source = tmp_path / "a.parquet"
    stopped(tmp_path, source)
    with pytest.raises(FileNotFoundError):
        preshuffle(tmp_path / "typo.parquet", tmp_path / "out", **QUIET)
    runs.clear()
    go_on(tmp_path, source)
    assert not runs


# The disk ------------------------------------------------------------------------------


def shuffle_with_files_up_to(limit: int, source: Path, output: Path) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    message = r"\.out\.shuffling: the disk is full .*run the same again"
    with small_pieces(), pytest.raises(DiskSpaceError, match=message):
        preshuffle(source, output, **QUIET, **OPTIONS | {"shards": 1})
    os._exit(3)


@pytest.mark.parametrize("limit", [2000, 3500, 5000])
def test_a_full_disk(limit, tmp_path, complete):
    source = tmp_path / "a.parquet"
    process = in_process(shuffle_with_files_up_to, limit, source, tmp_path / "out")
    process.join(60)
    assert process.exitcode == 3
    assert not (tmp_path / "out").exists()
    go_on(tmp_path, source)
    assert contents(tmp_path / "out") == complete


def test_a_disk_that_fills_up_while_shards_are_written(tmp_path, complete, runs, monkeypatch):
    source, written = tmp_path / "a.parquet", 0
    write_bytes = external.write_shard.__globals__["_Hashed"].write

    def full(self: Any, data: Any) -> int:
        nonlocal written
        written += 1
        if written == 9:
            raise OSError(28, "No space left on device")
        return write_bytes(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(external.write_shard.__globals__["_Hashed"], "write", full)
        with pytest.raises(DiskSpaceError, match="No space left"):
            go_on(tmp_path, source)
    assert not (tmp_path / "out").exists()
    runs.clear()
    go_on(tmp_path, source)
    assert not runs
    assert contents(tmp_path / "out") == complete


def test_too_little_room_is_said_before_anything_is_read(tmp_path, runs, monkeypatch):
    source = small(tmp_path)
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(workspace.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskSpaceError, match=r"needs about 19\.8 kB .*1\.0 kB are free"):
        go_on(tmp_path, source)
    assert not runs


def test_what_is_written_needs_no_room_again(tmp_path, complete, monkeypatch):
    """A rerun asks for what is missing, not for what stands on the disk in shards already."""
    source = tmp_path / "a.parquet"
    asked: list[int] = []
    monkeypatch.setattr(external, "check_room", lambda folder, needed: asked.append(needed))
    folder = stopped(tmp_path, source)
    rows = [*folder.glob("runs/**/*.arrow"), *folder.glob("shards/*.parquet")]
    assert {path.suffix for path in rows} == {".arrow", ".parquet"}
    there = sum(path.stat().st_size for path in rows)
    go_on(tmp_path, source)
    assert asked[1] <= asked[0] - there


# Several processes ---------------------------------------------------------------------


def test_two_at_a_time(tmp_path, complete, monkeypatch):
    source = tmp_path / "a.parquet"
    written = external.write_shard
    refused = 0

    def try_meanwhile(*arguments: Any) -> Any:
        nonlocal refused
        with pytest.raises(OutputExistsError, match="another process is shuffling"):
            preshuffle(source, tmp_path / "out", **QUIET)
        refused += 1
        return written(*arguments)

    monkeypatch.setattr(external, "write_shard", try_meanwhile)
    go_on(tmp_path, source)
    assert refused == 3
    assert contents(tmp_path / "out") == complete
    assert (tmp_path / "out" / MANIFEST_NAME).exists()


def test_the_next_one_begins_while_the_last_one_tidies_up(tmp_path, complete, monkeypatch):
    """Between the removal of the lock and of its folder, another process makes its own."""
    source, folder = tmp_path / "a.parquet", tmp_path / ".out.shuffling"
    remove = os.rmdir

    def begin_meanwhile(path: Any, **options: Any) -> None:
        if Path(path).name == folder.name:
            (folder / "lock").write_text("")
        remove(path, **options)

    monkeypatch.setattr(os, "rmdir", begin_meanwhile)
    go_on(tmp_path, source)
    assert contents(tmp_path / "out") == complete
    assert [path.name for path in folder.iterdir()] == ["lock"]


@pytest.mark.parametrize("moment", ["before it is found", "before it is locked"])
def test_the_last_one_tidies_up_while_the_next_one_begins(moment, tmp_path, monkeypatch):
    source, folder = small(tmp_path), tmp_path / ".out.shuffling"
    mkdir = Path.mkdir

    def vanish(path: Path, *arguments: Any, **options: Any) -> None:
        if path != folder:
            mkdir(path, *arguments, **options)
        elif moment == "before it is found":
            raise FileExistsError(17, "File exists", str(path))

    monkeypatch.setattr(Path, "mkdir", vanish)
    with pytest.raises(OutputExistsError, match="another process is shuffling"):
        go_on(tmp_path, source)
