from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pymc_streaming import Manifest, cli, demo

REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "command-line.md"


def test_help_teaches(capsys):
    for arguments in (["--help"], ["demo", "--help"], ["inspect", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            cli.main(arguments)
    text = capsys.readouterr().out
    for word in ("--rows", "--seed", "--output", "Exit status", "2000000", "Example",
                 "inspect", "--json", "--plot", "--columns", "4096"):  # fmt: skip
        assert word in text


@pytest.mark.parametrize("command", ["demo", "fit", "inspect", "shuffle", "verify"])
def test_the_reference_shows_the_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    assert capsys.readouterr().out in REFERENCE.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["demo", "--rows", "ten"],
        ["demo", "--rows", "10"],
        ["fit", "model", "--data", "a", "--output", "b"],
        ["fit", "m:f", "--data", "a", "--output", "b", "--checkpoint-every", "often"],
        ["fit", "m:f", "--data", "a", "--output", "b", "--memory-limit", "lots"],
        ["fit", "m:f", "--data", "a", "--output", "b", "--resume", "--overwrite"],
        ["inspect"],
        ["inspect", "t.parquet", "--batch-size", "0"],
        ["shuffle", "t.parquet"],
        ["shuffle", "t.parquet", "out", "--format", "csv"],
        ["verify"],
        ["fit", "m.py:model"],
        ["fit", "m.py:model", "--data", "t.parquet"],
        ["fit", "m.py:model", "--data", "t.parquet", "--output", "o", "--steps", "0"],
        ["fit", "m.py:model", "--data", "t", "--output", "o", "--steps", "9", "--max-passes", "2"],
        ["fit", "m.py:model", "--data", "t", "--output", "o", "--method", "nuts"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert capsys.readouterr().out == ""


def test_a_number_that_is_none(capsys):
    for command in (["inspect", "t.parquet", "--batch-size", "ten"], ["demo", "--rows", "ten"]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(command)
        assert "expected a number of rows, found 'ten'" in capsys.readouterr().err


def test_a_failure_exits_with_1(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--output", str(tmp_path / "file")]) == 1
    assert "pymc-streaming: " in capsys.readouterr().err


def test_interrupted_exits_with_130(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run_demo", interrupted)
    assert cli.main(["demo", "--output", str(tmp_path)]) == 130


@pytest.mark.parametrize(
    "arguments", [["inspect", "a"], ["shuffle", "a", "b"], ["verify", "a"], ["demo"]]
)
def test_interrupted_while_it_is_still_importing(arguments, tmp_path):
    """Which takes seconds: a module that everything needs stands for Ctrl-C in one of them."""
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt")
    command = f"import sys; from pymc_streaming.cli import main; sys.exit(main({arguments}))"
    run = subprocess.run(
        [sys.executable, "-c", command],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(cli.__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 130
    assert run.stderr.startswith("pymc-streaming: interrupted")
    assert run.stderr.count("\n") == 1


def test_the_demo_end_to_end(tmp_path, monkeypatch, capfd):
    fits = demo.run_demo(60_000, 0, tmp_path, n_steps=3_000)
    streaming, minibatch, reference = fits
    assert np.abs(streaming.mean - reference.mean).max() < 0.03
    assert np.abs(minibatch.mean - reference.mean).max() < 3.0
    output = capfd.readouterr().out
    for word in ("intercept", "I13", "M rows/s", "peak memory", "demo.png"):
        assert word in output
    picture = (tmp_path / "demo.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert not list(tmp_path.glob("**/*.tmp*"))
    assert [part.name for part in (tmp_path / "criteo").iterdir()] == ["part-0000.parquet"]


def test_the_table_is_the_same_for_the_same_seed(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        demo.write_table(tmp_path / name, 12_000, seed)
    a, b, c = ((tmp_path / name / "part-0000.parquet").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.fixture
def by_day(tmp_path):
    path = tmp_path / "by day.parquet"
    noise = np.random.default_rng(0).normal(size=30_000)
    table = pa.table({"a_day_with_a_long_name": np.arange(30_000) // 300, "noise": noise})
    pq.write_table(table, path, row_group_size=3_000)
    return path


def test_inspect(by_day, capsys):
    assert cli.main(["inspect", str(by_day)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("ORDERED")
    assert "a_day_with_a_long_name" in out
    assert max(len(line) for line in out.splitlines() if not line.startswith("    ")) <= 80
    assert err == ""


def test_inspect_as_json_with_a_picture(by_day, tmp_path, capsys):
    picture = tmp_path / "order.png"
    arguments = ["--json", "--plot", str(picture), "--columns", "noise", "--batch-size", "1_000"]
    assert cli.main(["inspect", str(by_day), *arguments]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["verdict"], report["batch_size"]) == ("shuffled", 1_000)
    assert [column["name"] for column in report["columns"]] == ["noise"]
    assert "order.png" in err
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_inspect_what_is_not_there(tmp_path, capsys):
    assert cli.main(["inspect", str(tmp_path / "no.parquet")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "no.parquet" in err


@pytest.mark.parametrize("asked", [["noise,a_day_with_a_long_name"], ["noise,", "a_day"]])
def test_columns_with_commas_between(by_day, capsys, asked):
    assert cli.main(["inspect", str(by_day), "--columns", *asked]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "with spaces between: --columns noise a_day" in err


def test_a_column_with_a_comma_in_its_name(tmp_path, capsys):
    pq.write_table(pa.table({"a,b": np.arange(3_000)}), tmp_path / "t.parquet")
    assert cli.main(["inspect", str(tmp_path / "t.parquet"), "--columns", "a,b"]) == 0
    assert "'a,b'" in capsys.readouterr().out


def test_the_report_is_printed_where_there_is_no_picture(tmp_path, capsys):
    pq.write_table(pa.table({"same": np.ones(3_000)}), tmp_path / "t.parquet")
    arguments = ["inspect", str(tmp_path / "t.parquet"), "--plot", str(tmp_path / "order.png")]
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out.startswith("UNKNOWN")
    assert "no picture" in err


def test_shuffle_then_verify(by_day, tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO)
    folder = tmp_path / "shuffled"
    arguments = [str(by_day), str(folder), "--seed", "7", "--format", "arrow", "--shards", "3"]
    assert cli.main(["shuffle", *arguments, "--columns", "noise", "--dtype", "float32"]) == 0
    out = capsys.readouterr().out
    assert "30,000 rows in 3 arrow shards" in out
    assert out.count("\n") == 1
    assert "kB of disk" in caplog.text
    manifest = Manifest.read(folder)
    assert (manifest.seed, manifest.n_rows, len(manifest.shards)) == (7, 30_000, 3)
    assert cli.main(["verify", str(folder)]) == 0
    assert "30,000 rows in 3 shards, as they were written" in capsys.readouterr().out


def test_verify_names_the_shard_that_was_changed(by_day, tmp_path, capsys):
    folder = tmp_path / "shuffled"
    assert cli.main(["shuffle", str(by_day), str(folder), "--shards", "3"]) == 0
    shard = folder / "part-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    capsys.readouterr()
    assert cli.main(["verify", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "part-00001.parquet was changed" in err


def test_shuffle_into_what_is_there_needs_overwrite(by_day, tmp_path, capsys):
    folder = tmp_path / "shuffled"
    assert cli.main(["shuffle", str(by_day), str(folder)]) == 0
    assert cli.main(["shuffle", str(by_day), str(folder)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(["shuffle", str(by_day), str(folder), "--seed", "1", "--overwrite"]) == 0
    assert Manifest.read(folder).seed == 1


def test_a_url_is_no_local_folder(by_day, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["shuffle", str(by_day), "s3://bucket/out"]) == 1
    assert cli.main(["verify", "s3://bucket/out"]) == 1
    assert capsys.readouterr().err.count("'s3://bucket/out'") == 2
    assert list(tmp_path.iterdir()) == [by_day]


def test_files_that_the_shell_has_found_are_one_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        pq.write_table(pa.table({"x": [number] * 3, "y": [0.5] * 3}), f"p{number}.parquet")
    files = ["p0.parquet", "p1.parquet"]
    assert cli.main(["shuffle", *files, "out", "--columns", "x"]) == 0
    assert sorted(pq.read_table("out")["x"].to_pylist()) == [0, 0, 0, 1, 1, 1]
    capsys.readouterr()
    assert cli.main(["inspect", *files, "--columns", "x", "y", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 6


def test_the_package_runs_as_a_module():
    shown = subprocess.run(
        [sys.executable, "-m", "pymc_streaming", "verify", "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shown.startswith("usage: pymc-streaming verify")
