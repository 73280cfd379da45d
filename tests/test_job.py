"""A fit from the command line, from files to results."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr

from pymc_streaming import Trainer, cli, errors
from pymc_streaming.job import Job, run_job

PROGRAM = """
import pymc as pm

COORDS = {"feature": ["one", "two"]}


def model(loader):
    zeros = loader.placeholder()
    with pm.Model(coords=COORDS) as model:
        b = pm.Normal("b", 0.0, 2.0, dims="feature")
        X, y = pm.Data("X", zeros["X"]), pm.Data("y", zeros["y"])
        pm.Normal("likelihood", X @ b, 1.0, observed=y, total_size=len(loader))
    return model


def filled(columns):
    return {"X": columns["X"], "y": columns["y"]}


def nothing(loader):
    pass


broken = 3
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    X = random.normal(size=(20_000, 2))
    y = X @ [1.0, -0.5] + random.normal(size=20_000)
    table = pa.table({"u": X[:, 0], "v": X[:, 1], "y": y})
    pq.write_table(table, "table.parquet", row_group_size=2_000)
    Path("models.py").write_text(PROGRAM)
    return tmp_path


COMMAND = [
    "fit", "models.py:model", "--data", "table.parquet", "--columns", "X=u,v", "y=y",
    "--output", "result", "--batch-size", "500",
]  # fmt: skip


def test_from_files_to_results(place, capsys) -> None:
    assert cli.main(COMMAND) == 0
    out, _ = capsys.readouterr()
    assert "20,000 rows" in out
    assert "Converged" in out
    found = sorted(path.name for path in Path("result").iterdir())
    assert found == [
        "checkpoints", "diagnosis.json", "diagnosis.png", "fit.json", "history.csv",
        "parameters.csv", "posterior.nc",
    ]  # fmt: skip
    posterior = xr.open_datatree("result/posterior.nc", engine="h5netcdf")["posterior"]
    assert posterior["b"].dims == ("chain", "draw", "feature")
    assert posterior["b"].shape == (1, 1000, 2)
    with Path("result/parameters.csv").open() as file:
        parameters = {row["parameter"]: float(row["mean"]) for row in csv.DictReader(file)}
    assert parameters.keys() == {"b[one]", "b[two]"}
    X = pq.read_table("table.parquet").to_pandas().to_numpy()
    exact = np.linalg.lstsq(X[:, :2], X[:, 2])[0]
    np.testing.assert_allclose(list(parameters.values()), exact, atol=2e-3)
    np.testing.assert_allclose(posterior["b"].mean(("chain", "draw")), exact, atol=2e-3)
    facts = json.loads(Path("result/fit.json").read_text())
    assert facts["converged"]
    assert facts["rows"] == 20_000
    assert json.loads(Path("result/diagnosis.json").read_text())["trusted"]
    # What is there is not written over in passing.
    assert cli.main(COMMAND) == 1
    assert "--resume" in capsys.readouterr().err
    # And what is finished needs no fit.
    before = Path("result/parameters.csv").read_text()
    assert cli.main([*COMMAND, "--resume", "--json", "--no-diagnosis"]) == 0
    assert json.loads(capsys.readouterr().out)["converged"]
    assert Path("result/parameters.csv").read_text() == before


def job(**options: Any) -> Job:
    named = {"model": "models.py:model", "data": "table.parquet", "output": Path("result")}
    columns = {"X": ["u", "v"], "y": "y"}
    return Job(**{**named, "columns": columns, "batch_size": 500, "progressbar": False, **options})


@pytest.mark.filterwarnings("ignore:1 damaged file")
@pytest.mark.parametrize("steps", [None, 50])
@pytest.mark.filterwarnings("ignore:Not converged")
def test_what_was_left_out_is_in_the_result(place, capsys, steps) -> None:
    Path("other.parquet").write_bytes(Path("table.parquet").read_bytes()[:-10])
    command = [*COMMAND[:3], "table.parquet", "other.parquet", *COMMAND[4:]]
    command += ["--no-diagnosis"] if steps is None else ["--no-diagnosis", "--steps", str(steps)]
    assert cli.main(command) == 1
    assert "other.parquet" in capsys.readouterr().err
    assert cli.main([*command, "--overwrite", "--on-bad-file", "skip"]) == 0
    assert "left out: " in capsys.readouterr().out
    facts = json.loads(Path("result/fit.json").read_text())
    assert facts["rows"] == 20_000
    assert [Path(each["path"]).name for each in facts["skipped"]] == ["other.parquet"]
    if steps is None:
        assert "1 damaged file with an unknown number of rows was left out" in facts["how_it_ended"]
        assert facts["result"]["skipped"] == facts["skipped"]


@pytest.mark.filterwarnings("ignore:Not converged")
def test_steps_that_are_interrupted_and_resumed(place, monkeypatch, capsys) -> None:
    steps = {"steps": 400, "diagnosis": False, "checkpoint_every": "0.001s"}
    run_job(job(**steps, output=Path("whole")))
    fit = Trainer.fit

    def interrupted(trainer: Trainer, *arguments: Any, **options: Any) -> Any:
        prepare = trainer._fits.prepare_steps

        def prepared(batch: Any) -> Any:
            made = prepare(batch)
            advance = made._advance

            def advancing(*arguments: Any) -> None:
                if made.step.completed > 150:
                    os.kill(os.getpid(), signal.SIGTERM)
                advance(*arguments)

            made._advance = advancing
            return made

        trainer._fits.prepare_steps = prepared
        return fit(trainer, *arguments, **options)

    command = [*COMMAND, "--steps", "400", "--no-diagnosis", "--checkpoint-every", "0.001s"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", interrupted)
        patch.setattr(sys, "argv", ["/some/where/pymc-streaming", *command])
        assert cli.main(command) == 130
    error = capsys.readouterr().err
    assert "pymc-streaming fit models.py:model --data table.parquet" in error
    assert "--resume\n" in error
    assert not Path("result/fit.json").exists()
    with pytest.raises(errors.OutputExistsError, match="an interrupted fit"):
        run_job(job(**steps))
    run_job(job(**steps, resume=True))
    whole, resumed = (Path(name, "parameters.csv").read_text() for name in ("whole", "result"))
    assert resumed == whole


@pytest.mark.filterwarnings("ignore:Not converged")
def test_overwriting_begins_anew(place) -> None:
    first = run_job(job(steps=50, diagnosis=False)).facts["how_it_ended"]
    second = run_job(job(steps=60, diagnosis=False, overwrite=True)).facts["how_it_ended"]
    assert (first, second) == ("50 steps", "60 steps")


REFUSED = {
    "models.py": "must be MODULE:FUNCTION",
    "none.py:model": "cannot be imported",
    "no_such_module:model": "cannot be imported",
    "models.py:other": r"no function 'other'; it has \['model', 'filled', 'nothing'\]",
    "models.py:broken": "no function 'broken'",
    "models.py:nothing": "should return a pm.Model, found NoneType",
}


@pytest.mark.parametrize("model", REFUSED)
def test_models_that_are_none(place, model) -> None:
    with pytest.raises(errors.ArgumentError, match=REFUSED[model]):
        run_job(job(model=model))


def test_data_that_cannot_be_fitted(place) -> None:
    Path("table.csv").write_text("a\n1\n")
    with pytest.raises(errors.ArgumentError, match="pymc-streaming shuffle"):
        run_job(job(data="table.csv"))
    with pytest.raises(errors.MissingFileError):
        run_job(job(data="none.parquet"))
    Path("taken").write_text("")
    with pytest.raises(errors.OutputError, match="cannot be written here"):
        run_job(job(output=Path("taken")))


def test_ctrl_c_in_a_process_of_its_own(place) -> None:
    """A job scheduler sends SIGTERM, and the same command with --resume finishes the job."""
    command = [sys.executable, "-m", "pymc_streaming", *COMMAND, "--steps", "300000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(Path("result/checkpoints").glob("*.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "To go on:\npython -m pymc_streaming fit models.py:model" in error
