"""The benchmark suite: its entry point, its records, its pages; no timing."""

from __future__ import annotations

import importlib
import json
import math
import mmap
import os
import re
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pymc as pm
import pytest
from pytensor.compile.mode import Mode

from benchmarks import (
    accuracy,
    click_logs,
    criteo,
    first_step,
    memory,
    models,
    page_cache,
    pages,
    plan,
    report,
    shuffle_uniformity,
    speed,
)
from benchmarks.__main__ import NAMES, RESULTS, main
from benchmarks.contestants import resident_steps
from benchmarks.models import GROUPS, MODELS, write_table
from benchmarks.processes import ChildError, each_from_fresh, from_fresh
from benchmarks.recording import Recording, Results, command_line
from pymc_streaming import DataLoader
from pymc_streaming.errors import NotConvergedWarning

ROOT = Path(__file__).parents[1]


def recording(folder: Path, name: str = "speed", **options: Any) -> Recording:
    return Recording(name, folder, Namespace(seed=0, **options), ["--rounds", "2"])


def test_without_a_name_there_is_a_list(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\w+", shown, re.MULTILINE) for name in NAMES)


def test_an_unknown_name_is_refused(capsys):
    assert main(["spede"]) == 2
    assert "no benchmark 'spede'" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_help_says_what_is_compared(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([name, "--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__.splitlines()[0] in shown
    assert "--output" in shown


def test_a_run_leaves_a_record_a_table_and_a_picture(tmp_path, capsys):
    assert main(["shuffle_uniformity", "--seeds", "2", "--output", str(tmp_path)]) == 0
    name = "shuffle_uniformity"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{name}.json",
        f"{name}.md",
        f"{name}.png",
    ]
    record = json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
    assert record["finished"] is not None
    assert record["machine"]["memory_bytes"] > 0
    assert record["versions"]["pymc"] == pm.__version__
    assert record["seeds"] == {"first": 0, "count": 2}
    assert len(record["measurements"]) == 6
    assert str(tmp_path) not in json.dumps(record)
    table = (tmp_path / f"{name}.md").read_text("utf-8")
    assert record["command"] in table
    assert "| 1, 1, 1, 1 | 1 | 24 |" in table
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "| 1, 1, 1, 1 | 1 | 24 |" in capsys.readouterr().out


def test_an_interrupted_run_keeps_what_it_has_and_the_result_before(tmp_path, monkeypatch, capsys):
    before = tmp_path / "shuffle_uniformity.json"
    before.write_text("before", "utf-8")

    def interrupted(_: Namespace, record: Recording) -> None:
        record.add("orders", {"orders": 24}, {"p": 0.5})
        raise KeyboardInterrupt

    monkeypatch.setattr(shuffle_uniformity, "run", interrupted)
    assert main(["shuffle_uniformity", "--output", str(tmp_path)]) == 130
    assert before.read_text("utf-8") == "before"
    partial = Results.read(tmp_path / "shuffle_uniformity.partial.json")
    assert partial.rows("orders")[0].median("p") == 0.5
    assert partial.record["finished"] is None
    shown = capsys.readouterr()
    assert "| 24 | 0.5 |" in shown.out
    assert "shuffle_uniformity.partial.json" in shown.err


def test_repetitions_are_summed_up(tmp_path):
    made = recording(tmp_path)
    for value in (3.0, np.float64(1.0), 2):
        made.add("step", {"batch_size": 256}, {"microseconds": value, "note": "a"})
    made.add("step", {"batch_size": 512}, {"microseconds": math.nan})
    made.finish()
    results = Results.read(tmp_path / "speed.json")
    first, second = results.rows("step")
    assert first.found["microseconds"] == [3.0, 1.0, 2]
    assert (first.median("microseconds"), first.range("microseconds")) == (2, (1.0, 3.0))
    assert math.isnan(second.median("microseconds"))
    assert results.record["summary"][0]["found"] == {
        "microseconds": {"repetitions": 3, "median": 2, "smallest": 1.0, "largest": 3.0}
    }
    assert report.spread(first, "microseconds") == "2 (1 to 3)"


def test_the_command_names_no_place_on_this_machine():
    line = command_line("flights", [str(Path("/", "somewhere", "a file")), "--steps", "5"])
    assert line == "python -m benchmarks flights 'PATH/a file' --steps 5"


def speed_results(tmp_path: Path) -> Results:
    made = recording(tmp_path)
    times = {
        ("float64", "minibatch"): (900.0, 1000.0, 1200.0),
        ("float64", "resident"): (100.0, 100.0, 100.0),
        ("float64", "arrow"): (125.0, 110.0, 200.0),
        ("float32", "minibatch"): (800.0, 800.0, 800.0),
        ("float32", "resident"): (50.0, 50.0, 50.0),
        ("float32", "arrow"): (100.0, 100.0, 100.0),
    }
    for (precision, contestant), values in times.items():
        for value in values:
            made.add(
                "step",
                {
                    "model": "logistic",
                    "precision": precision,
                    "batch_size": 1000,
                    "contestant": contestant,
                    "rows": 10_000,
                },
                {"microseconds": value, "rows_per_second": 1e9 / value},
            )
    made.finish()
    return made.results()


def test_ratios_of_speed_are_those_of_medians(tmp_path):
    (table,) = speed.tables(speed_results(tmp_path))
    assert table.title == "logistic, 14 columns, batch 1,000, 10,000 rows"
    cells = {row[0]: row[1:] for row in table.rows}
    assert cells["this package, Arrow"] == [
        *("125 (110 to 200)", "8", "8.00", "1.25"),
        *("100 (100 to 100)", "10", "10.00", "2.00"),
    ]
    assert cells["pm.fit, pm.Minibatch, in memory"][-2:] == ["1.25", "16.00"]
    assert speed.draw(speed_results(tmp_path)).axes


def test_the_first_step_is_held_against_that_of_pm_fit(tmp_path):
    made = recording(tmp_path, "first_step")
    of = {"model": "logistic", "precision": "float64", "batch_size": 1000, "cache": "cold"}
    for contestant, seconds in (("minibatch", 40.0), ("arrow", 10.0), ("arrow", 20.0)):
        made.add("first step", {**of, "contestant": contestant}, {"seconds": seconds})
    (table,) = first_step.tables(made.results())
    assert table.rows[0][-3:] == ["40", "15 (10 to 20)", "0.38"]
    assert first_step.draw(made.results()).axes


def test_where_the_memory_ends_is_on_the_line(tmp_path):
    made = recording(tmp_path, "memory")
    made.record["machine"]["memory_bytes"] = 2**30
    for n_rows, peak in ((1_000_000, 400.0), (2_000_000, 600.0)):
        of = {"way": "minibatch", "precision": "float64", "rows": n_rows, "steps": 100}
        made.add("peak", of, {"peak_mib": peak, "children_mib": 0.0, "compiling_mib": peak})
    results = made.results()
    assert memory.runs_out(results) == pytest.approx((1024 - 200) / 200 * 1e6)
    assert not memory.fits(results, 10**12)
    assert memory.draw(results).axes
    assert "4 million" in memory.tables(results)[1].markdown()


def test_what_the_disk_has_no_room_for_is_refused(tmp_path, capsys):
    words = ["memory", "--rows", "1000000000000", "--ways", "arrow", "--output", str(tmp_path)]
    assert main(words) == 1
    assert "GB free. Choose fewer --rows" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["parquet", "arrow"])
def test_tables_for_memory_are_the_model_s(way, tmp_path):
    from pymc_streaming import DataLoader, arrow_source, parquet_source

    memory.write(tmp_path, way, 70_000, "float64", seed=1)
    source = (arrow_source if way == "arrow" else parquet_source)(tmp_path)
    (batch,) = DataLoader(source, batch_size=70_000)
    expected = np.concatenate(list(memory.MODEL.blocks(70_000, 1)))
    np.testing.assert_array_equal(batch["batch"], expected)


def test_what_is_decided_follows_rows_and_each_limit():
    found = {tuple(of.values()): found for of, found in plan.decisions([10**6, 10**9])}
    roomy, fraction, container, narrow, *given, more_than_there_is = range(8)

    def of(n_rows):
        return [found["fit()"] for (rows, *_), found in decided if rows == n_rows]

    decided = list(found.items())
    small, large = of(10**6), of(10**9)
    assert {small[i] for i in (roomy, fraction, container)} == {"in_memory"}
    assert large[:5] == ["accumulate"] * 5
    assert large[-2:] == ["does not fit", "accumulate"]
    assert decided[container][1]["source"] == "0.75 of what the container leaves"
    assert decided[more_than_there_is][1]["source"] == "free memory, less than memory_limit"
    assert decided[narrow][1]["limit_gib"] < decided[container][1]["limit_gib"]
    assert [decided[i][1]["limit_gib"] for i in given] == [4, 0.5, 0.25]
    assert {each["fit(n)"] for each in found.values()} == {"streaming", "does not fit"}


def test_estimates_are_held_against_peaks(tmp_path):
    made = recording(tmp_path, "plan")
    for of, found in plan.decisions([10**6]):
        made.add("decision", of, found)
    of = {"strategy": "accumulate", "caches": "warm", "format": "arrow", "columns": 14, "rows": 9}
    made.add("peak", of, {"estimate_mib": 300.0, "peak_mib": 400.0, "ratio": 0.75})
    decided, peaks = plan.tables(made.results())
    assert len(decided.rows) == 8
    assert peaks.rows[0][-3:] == ["300", "400", "0.75"]
    assert plan.draw(made.results()).axes


@pytest.mark.parametrize("strategy", plan.FITS)
def test_each_strategy_can_be_measured(strategy, tmp_path):
    plan.write(tmp_path, "arrow", 14, 5_000, 0)
    steps = plan.FITS[strategy] and 5
    found = plan.fit(tmp_path, "arrow", strategy.split(",")[0], steps)
    assert found["peak_mib"] > 0
    in_memory = strategy.startswith("in_memory")
    assert found.get("table, MiB", 0) == (5_000 * 14 * 8 / 2**20 if in_memory else 0)


def test_pages_have_the_table_the_picture_and_the_command(tmp_path):
    results = speed_results(tmp_path)
    output = tmp_path / "pages"
    report.write_report(speed, results, tmp_path)
    assert pages.main(["--results", str(tmp_path), "--output", str(output)]) == 0
    assert sorted(path.name for path in output.iterdir()) == ["index.md", "speed.md", "speed.png"]
    page = (output / "speed.md").read_text("utf-8")
    assert "python -m benchmarks speed --rounds 2" in page
    assert "| this package, Arrow | 125 (110 to 200) |" in page
    assert "![Speed](speed.png)" in page
    assert speed.READING in page
    index = (output / "index.md").read_text("utf-8")
    assert re.search(r"```{toctree}\n:hidden:\n\nspeed\n```", index)


def test_the_pages_in_the_documentation_are_those_of_the_results():
    made = pages.pages(RESULTS)
    there = {path.name: path for path in pages.PAGES.iterdir()}
    pictures = {path.name for path in RESULTS.glob("*.png") if f"{path.stem}.md" in made}
    assert set(there) == set(made) | pictures, "run python -m benchmarks docs"
    for name, text in made.items():
        assert there[name].read_text("utf-8") == text, "run python -m benchmarks docs"
    for name in pictures:
        assert there[name].read_bytes() == (RESULTS / name).read_bytes()


def test_a_fresh_process_has_its_environment_and_hands_on_its_errors():
    assert from_fresh(os.getenv, "BENCHMARK", environment={"BENCHMARK": "yes"}) == "yes"
    assert "BENCHMARK" not in os.environ
    assert list(each_from_fresh(range, 3)) == [0, 1, 2]
    with pytest.raises(ChildError, match="ZeroDivisionError"):
        from_fresh(divmod, 1, 0)
    with pytest.raises(ChildError, match="exit code 3"):
        from_fresh(os._exit, 3)


def test_dropped_files_are_cold_also_while_they_are_mapped(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(2**20))
    page_cache.drop([path])
    if page_cache.cached_share([path]) > 0:
        pytest.skip("this file system keeps its files in memory")
    page_cache.warm([path])
    assert page_cache.cached_share([path]) == 1.0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
        first = bytes(mapped)
        page_cache.drop([path])
        assert page_cache.cached_share([path]) < 1.0
        assert bytes(mapped) == first


@pytest.mark.parametrize("name", MODELS)
def test_a_table_begins_with_the_rows_of_a_smaller_one(name, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "BLOCK_ROWS", 64)
    model = MODELS[name]
    small, large = (np.concatenate(list(model.blocks(n, 3))) for n in (70, 150))
    np.testing.assert_array_equal(small, large[:70])
    write_table(model, tmp_path / "table.parquet", 70, 3)
    table = pq.read_table(tmp_path / "table.parquet")
    assert table.column_names == model.columns
    np.testing.assert_allclose(
        np.column_stack([column.to_numpy() for column in table.columns]), small, rtol=1e-6
    )


@pytest.mark.parametrize("name", ["linear", "poisson", "groups", "wide"])
def test_the_models_of_pymc_and_numpyro_are_the_same(name):
    pytest.importorskip("numpyro", reason="NumPyro comes with the extra `bench`")
    from numpyro.infer.util import log_density

    model, n_rows, batch_size = MODELS[name], 1_000, 40
    rows = np.concatenate(list(model.blocks(batch_size, 0)))
    point = {"intercept": 0.3, "slopes": np.linspace(-0.1, 0.1, model.features)}
    point |= {"sigma": 0.8} if name in ("linear", "groups") else {}
    point |= {"tau": 0.6, "offset": np.linspace(-1, 1, GROUPS)} if name == "groups" else {}
    arrays = (model.split(rows), n_rows, batch_size)
    theirs, _ = log_density(model.in_numpyro, arrays, {}, point)
    with pm.Model() as in_pymc:
        model.in_pymc(model.split(pm.Data("batch", rows)), model.features, n_rows)
    transforms = {
        variable.name: in_pymc.rvs_to_transforms[variable] for variable in in_pymc.free_RVs
    }
    values = {
        in_pymc.rvs_to_values[in_pymc[key]]: value
        if transforms[key] is None
        else np.log(value)  # of a scale
        for key, value in point.items()
    }
    ours = in_pymc.logp(jacobian=False).eval(values, mode=Mode(linker="py", optimizer=None))
    assert float(theirs) == pytest.approx(float(ours), rel=1e-5)


def test_steps_without_reading_are_those_of_the_trainer():
    rows = {"batch": np.random.default_rng(0).normal(size=1_000)}
    loader = DataLoader(rows["batch"], 100)
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 1.0)
        batch = pm.Data("batch", loader.placeholder())
        pm.Normal("y", mu, 1.0, observed=batch, total_size=1_000)
    for run in resident_steps(model, loader, rows, "advi"):
        run(3)
        run(25)  # more than a pass


@pytest.fixture
def hub():
    """A folder in the manner of Criteo's on the hub, in memory."""
    filesystem = fsspec.filesystem("memory")
    rng = np.random.default_rng(0)
    for day in range(3):
        columns = {
            name: pa.array(
                [None if rng.random() < 0.2 else int(rng.integers(-1, 100)) for _ in range(50)],
                pa.int32() if day else pa.float64(),
            )
            for name in criteo.FEATURES
        }
        table = pa.table(
            {"label": pa.array(np.arange(50) % 2, pa.int32()), **columns, "extra": ["a"] * 50}
        )
        with filesystem.open(f"/hub/day={day}/part.snappy.parquet", "wb") as file:
            pq.write_table(table, file, row_group_size=20)
    yield "memory://hub"
    filesystem.rm("/hub", recursive=True)


def test_the_first_rows_of_criteo_are_read(hub, tmp_path):
    raw = tmp_path / "raw.parquet"
    options = Namespace(source="auto", url=hub, rows=75, seed=0)
    assert criteo.fetch(options, raw) == hub
    table = pq.read_table(raw)
    assert table.column_names == [*criteo.FEATURES, "label"]
    assert table["label"].to_pylist() == [i % 2 for i in range(50)] + [i % 2 for i in range(25)]
    assert criteo.prepare(tmp_path, seed=0) == 75
    scaled = pq.read_table(tmp_path / "scaled.parquet")
    X = np.column_stack([scaled[name] for name in criteo.FEATURES])
    raw_counts = np.nan_to_num(np.column_stack([table[name] for name in criteo.FEATURES]))
    logs = np.log1p(raw_counts.clip(min=0))
    np.testing.assert_allclose(X, (logs - logs.mean(axis=0)) / logs.std(axis=0), atol=1e-9)


def test_a_hub_that_cannot_be_read_is_a_line(tmp_path, capsys):
    words = ["criteo", "--source", "hub", "--url", "memory://nowhere", "--output", str(tmp_path)]
    assert main(words) == 1
    assert "memory://nowhere cannot be read: FileNotFoundError" in capsys.readouterr().err


def test_without_a_hub_the_table_is_generated_and_says_so(tmp_path, capsys):
    raw = tmp_path / "raw.parquet"
    options = Namespace(source="auto", url="memory://nowhere", rows=1_000, seed=0)
    assert criteo.fetch(options, raw) == "generated, not Criteo's"
    assert pq.read_metadata(raw).num_rows == 1_000
    assert "generated instead" in capsys.readouterr().err


def test_the_best_normals_are_where_their_expectations_say():
    rng, n_rows = np.random.default_rng(0), 500
    rows = np.column_stack([rng.normal(size=(n_rows, 13)), rng.random(n_rows) < 0.3])
    mean, sd = click_logs.best_normals(rows)
    X, y = np.column_stack([np.ones(n_rows), rows[:, :13]]), rows[:, 13]
    half = sd * rng.standard_normal((20_000, 14))
    p = 1.0 / (1.0 + np.exp(-(mean + np.concatenate([half, -half])) @ X.T))
    gradient = (y - p.mean(axis=0)) @ X - mean / click_logs.PRIOR_SCALE**2
    curvature = (p * (1.0 - p)).mean(axis=0) @ X**2 + 1.0 / click_logs.PRIOR_SCALE**2
    np.testing.assert_allclose(gradient * sd, 0.0, atol=0.01)
    np.testing.assert_allclose(sd**2 * curvature, 1.0, atol=0.01)


def test_accuracy_at_a_tiny_size(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "from_fresh", lambda f, *arguments: f(*arguments))
    monkeypatch.setattr(accuracy, "quiet", lambda: None)
    words = "accuracy --rows 20000 --batch-size 200 --steps 4000 --seeds 1 --ways arrow steps"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        assert main([*words.split(), "--output", str(tmp_path)]) == 0
    exact, steps = Results.read(tmp_path / "accuracy.json").rows("fit")
    assert exact.found["converged"] == [True]
    assert exact.median("error") < 0.05
    assert exact.median("error") < steps.median("error") < 3
    assert "1 of 1 converged" in (tmp_path / "accuracy.md").read_text("utf-8")
