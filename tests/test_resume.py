"""A fit that was interrupted goes on to the same end, to the last bit."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pymc as pm
import pytest
from pytensor.compile.mode import Mode

from pymc_streaming import (
    DataLoader,
    Status,
    Trainer,
    arrow_source,
    errors,
    generator_source,
    parquet_source,
    table_source,
)
from pymc_streaming.fits.exact import ExactFit
from pymc_streaming.fits.stochastic import StochasticFit
from tests.models import conjugate_normal, correlated_linear, poisson_groups

FAST = {"mode": Mode(linker="py", optimizer="fast_compile")}
OFTEN = "0.000001s"


def trainer_for(known: Any = None, data: Any = None, **options: Any) -> Trainer:
    known = known or correlated_linear(2_000)
    data = known.data if data is None else data
    method = options.pop("method", "advi")
    loader_options = {"shuffle": True, "seed": 3, "buffer_size": 700}
    loader_options |= options.pop("loader", {})
    if isinstance(data, dict) and len(data) == 1:
        data = data["batch"]
    loader = DataLoader(data, options.pop("batch_size", 100), **loader_options)
    options = {"random_seed": 5, "progressbar": False, "compile_kwargs": FAST} | options
    return Trainer(method, loader, model=known.build(loader), **options)


def outcome(trainer: Trainer) -> dict[str, Any]:
    """All of a fit but the time it took."""
    location, scales = trainer._fits._written
    result = trainer.result
    return {
        "location": location.tobytes(),
        "scales": scales.tobytes(),
        "approximation": [p.get_value().tobytes() for p in trainer.approximation.params],
        "losses": (trainer.history.loss.tobytes(), trainer.history.step.tolist()),
        "result": result and (result.status, result.passes, result.rows, result.trail),
        "random": repr(trainer._fits._random.bit_generator.state),
    }


@pytest.fixture(autouse=True)
def _few_steps_are_no_surprise() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.NotConvergedWarning)
        yield


STEPS: dict[str, dict[str, Any]] = {
    "independent": {},
    "dense": {"method": "fullrank_advi"},
    "an optimiser of PyMC": {"optimizer": pm.adam(learning_rate=0.01)},
    "one that looks back": {"optimizer": pm.adagrad_window(learning_rate=0.01, n_win=5)},
    "in the order of the table": {"loader": {"shuffle": False, "buffer_size": None, "seed": None}},
    "in memory": {"strategy": "in_memory"},
    "begun near the mode": {"init": "map"},
}


@pytest.mark.parametrize("options", STEPS.values(), ids=STEPS)
def test_steps_from_every_checkpoint(tmp_path, options) -> None:
    """At step 0, in the middle of a pass, at its end, and when all is done."""
    whole = trainer_for(**options)
    whole.fit(70)
    kept = trainer_for(**options, checkpoint_dir=tmp_path, checkpoint_every=7, keep=100)
    kept.fit(70)
    assert outcome(kept) == outcome(whole)
    checkpoints = sorted(tmp_path.glob("*.safetensors"))
    assert len(checkpoints) >= 4
    for path in checkpoints[:-1:3]:
        again = trainer_for(**options)
        again.fit(70, resume=path)
        assert outcome(again) == outcome(whole), path


def test_steps_from_files(tmp_path) -> None:
    known = correlated_linear(2_000)
    names = [f"x{i}" for i in range(5)]
    columns = [*known.data["X"].T, known.data["y"]]
    table = pa.table(dict(zip([*names, "y"], columns, strict=True)))
    pq.write_table(table, tmp_path / "table.parquet", row_group_size=300)
    folder = tmp_path / "checkpoints"

    def make(**options: Any) -> Trainer:
        columns = {"X": names, "y": "y"}
        source = parquet_source(tmp_path / "table.parquet", columns=columns)
        return trainer_for(known, source, **options)

    whole = make()
    whole.fit(70)
    make(checkpoint_dir=folder, checkpoint_every=5, keep=100).fit(70)
    for path in sorted(folder.glob("*.safetensors"))[:-1:4]:
        again = make(loader={"num_workers": 2})
        again.fit(70, resume=path)
        assert outcome(again) == outcome(whole)


def test_a_resumed_fit_can_be_resumed(tmp_path) -> None:
    whole = trainer_for()
    whole.fit(70)
    first = trainer_for(checkpoint_dir=tmp_path, checkpoint_every=20, keep=100)
    first.fit(70)
    path = sorted(tmp_path.glob("*.safetensors"))[1]
    second = trainer_for(checkpoint_dir=tmp_path / "2", checkpoint_every=9, keep=100)
    second.fit(70, resume=path)
    for other in sorted((tmp_path / "2").glob("*.safetensors"))[:-1]:
        third = trainer_for()
        third.fit(70, resume=other)
        assert outcome(third) == outcome(whole)


PASSES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "independent": (poisson_groups, {}),
    "dense": (poisson_groups, {"method": "fullrank_advi"}),
    "laplace": (poisson_groups, {"method": "laplace"}),
    "from disk": (poisson_groups, {"strategy": "accumulate"}),
    "from draws of the prior": (correlated_linear, {"init": "prior"}),
}


@pytest.mark.parametrize(("known", "options"), PASSES.values(), ids=PASSES)
def test_passes_from_every_checkpoint(tmp_path, monkeypatch, known, options) -> None:
    """Before the first, in the middle of one, between two, and when all is done."""
    monkeypatch.setattr("pymc_streaming.loader.passes._BATCHES", 1)
    known, options = known(20_000), {"batch_size": 500, "compile_kwargs": None} | options
    whole = trainer_for(known, **options)
    whole.fit()
    kept = trainer_for(
        known, **options, checkpoint_dir=tmp_path, checkpoint_every=OFTEN, keep=10_000
    )
    kept.fit()
    assert outcome(kept) == outcome(whole)
    checkpoints = sorted(tmp_path.glob("*.safetensors"))
    assert len(checkpoints) > 3 * whole.result.passes
    for path in checkpoints[: -1 : len(checkpoints) // 5]:
        again = trainer_for(known, **options)
        again.fit(resume=path)
        assert outcome(again) == outcome(whole), path


def test_groups_that_the_sample_lacks(tmp_path, monkeypatch) -> None:
    """Rows of them that a pass kept are kept with it."""
    monkeypatch.setattr("pymc_streaming.loader.passes._BATCHES", 1)
    monkeypatch.setattr("pymc_streaming.fits.model_fits.sample_size", lambda *_: 900)
    random = np.random.default_rng(0)
    group = np.concatenate([random.integers(0, 30, 6_000), np.arange(30, 40).repeat(2)])
    data = {"group": group, "y": random.normal(size=len(group)) + 0.1 * group}

    class Grouped:
        @staticmethod
        def build(loader: DataLoader) -> pm.Model:
            zeros = loader.placeholder()
            with pm.Model() as model:
                spread = pm.HalfNormal("spread")
                effect = pm.Normal("effect", 0.0, spread, shape=40)
                code, y = pm.Data("group", zeros["group"]), pm.Data("y", zeros["y"])
                pm.Normal("likelihood", effect[code], 1.0, observed=y, total_size=len(loader))
            return model

    def make(**options: Any) -> Trainer:
        trainer = trainer_for(Grouped, data, compile_kwargs=None, **options)
        plan = trainer.plan

        def with_a_small_sample() -> Any:
            made = plan()
            object.__setattr__(made, "sample_rows", 900)
            return made

        monkeypatch.setattr(trainer, "plan", with_a_small_sample)
        return trainer

    whole = make()
    whole.fit()
    assert whole._fits.exact is not None
    make(checkpoint_dir=tmp_path, checkpoint_every=OFTEN, keep=10_000).fit()
    for path in sorted(tmp_path.glob("*.safetensors"))[:-1:7]:
        again = make()
        again.fit(resume=path)
        assert outcome(again) == outcome(whole), path


def test_rounds_from_every_checkpoint(tmp_path) -> None:
    known = conjugate_normal(5_000)
    options = {"strategy": "streaming", "batch_size": 500}
    whole = trainer_for(known, **options)
    whole.fit()
    assert whole.result.converged
    kept = trainer_for(known, **options, checkpoint_dir=tmp_path, checkpoint_every=700, keep=10_000)
    kept.fit()
    assert outcome(kept) == outcome(whole)
    for path in sorted(tmp_path.glob("*.safetensors"))[:-1:2]:
        again = trainer_for(known, **options)
        again.fit(resume=path)
        assert outcome(again) == outcome(whole), path


def interrupt_at(trainer: Trainer, step: int, what: Callable[[], None]) -> None:
    """Let something happen when so many steps are taken."""
    prepare = trainer._fits.prepare_steps

    def prepared(batch: Any) -> Any:
        fit = prepare(batch)
        advance = fit._advance

        def advancing(*arguments: Any) -> None:
            if fit.step.completed >= step:
                what()
            advance(*arguments)

        fit._advance = advancing
        return fit

    trainer._fits.prepare_steps = prepared


def stop() -> None:
    raise KeyboardInterrupt


def test_a_program_that_is_run_again_goes_on(tmp_path, caplog) -> None:
    """Ctrl-C saves, and the message says how to go on; calls that ended are not made again."""
    whole = trainer_for()
    whole.fit(40)
    whole.fit(60)
    for interrupted_at in (10, 55, None):
        trainer = trainer_for(checkpoint_dir=tmp_path)
        if interrupted_at is not None:
            interrupt_at(trainer, interrupted_at, stop)
        with caplog.at_level(logging.INFO):
            trainer.fit(40, resume="auto")
        if interrupted_at == 10:
            assert "call fit(40, resume='auto')" in caplog.text
            assert trainer._fits.steps.step.completed < 40
            continue
        trainer.fit(60, resume="auto")
        assert "Going on from" in caplog.text
    assert outcome(trainer) == outcome(whole)
    # And once more, when there is nothing left to do.
    done = trainer_for(checkpoint_dir=tmp_path)
    done._fits.prepare_steps = None
    done.fit(40, resume="auto")
    approximation = done.fit(60, resume="auto")
    assert outcome(done) == outcome(whole)
    assert approximation is done.approximation
    assert done.diagnose().rows == 2_000


def test_after_an_interruption_the_same_trainer_goes_on_too(tmp_path) -> None:
    whole = trainer_for()
    whole.fit(60)
    trainer = trainer_for(checkpoint_dir=tmp_path)
    interrupt_at(trainer, 30, stop)
    trainer.fit(60, resume="auto")
    del trainer._fits.steps._advance
    trainer.fit(60, resume="auto")
    assert outcome(trainer) == outcome(whole)


def test_a_signal_waits_until_the_state_is_whole(tmp_path) -> None:
    whole = trainer_for()
    whole.fit(60)
    trainer = trainer_for(checkpoint_dir=tmp_path)
    interrupt_at(trainer, 30, lambda: os.kill(os.getpid(), signal.SIGINT))
    trainer.fit(60)
    again = trainer_for(checkpoint_dir=tmp_path)
    again.fit(60, resume="auto")
    assert outcome(again) == outcome(whole)


def test_steps_that_were_never_finished_do_not_count_later(monkeypatch) -> None:
    trainer = trainer_for()
    run = StochasticFit.run

    def interrupted(self: StochasticFit, *arguments: Any) -> None:
        raise KeyboardInterrupt

    trainer.fit(20)
    monkeypatch.setattr(StochasticFit, "run", interrupted)
    trainer.fit(40)
    monkeypatch.setattr(StochasticFit, "run", run)
    trainer.fit()
    trainer.fit(10)
    assert trainer._fits.steps.state().facts["settled"] == 20 + 10


def test_an_error_in_the_data_saves_first(tmp_path, caplog) -> None:
    known = correlated_linear(2_000)
    broken = [True]

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, 2_000, 250):
            if broken[0] and start == 1_500:
                raise errors.CorruptFileError("block 6 is damaged")
            yield {name: array[start : start + 250] for name, array in known.data.items()}

    def make(**options: Any) -> Trainer:
        source = generator_source(blocks, n_rows=2_000)
        options["loader"] = {"shuffle": False, "seed": None, "buffer_size": None}
        return trainer_for(known, source, on_ordered="ignore", **options)

    with pytest.raises(errors.CorruptFileError, match="block 6"):
        make(checkpoint_dir=tmp_path).fit(60)
    assert "What was fitted until then is in" in caplog.text
    broken[0] = False
    whole, again = make(), make(checkpoint_dir=tmp_path)
    whole.fit(60)
    again.fit(60, resume="auto")
    assert outcome(again) == outcome(whole)


def test_save_and_go_on(tmp_path) -> None:
    whole = trainer_for()
    whole.fit(40)
    whole.fit()
    trainer = trainer_for()
    with pytest.raises(errors.ArgumentError, match="nothing to save"):
        trainer.save(tmp_path / "state")
    trainer.fit(40)
    trainer.save(tmp_path / "state")
    again = trainer_for()
    again.fit(resume=tmp_path / "state")
    assert again.result.status is Status.CONVERGED
    assert outcome(again) == outcome(whole)
    with pytest.raises(errors.ArgumentError, match="new Trainer"):
        again.fit(resume=tmp_path / "state")


def test_seeds_that_were_drawn_are_taken_over(tmp_path) -> None:
    options = {"random_seed": None, "loader": {"seed": None}}
    first = trainer_for(**options, checkpoint_dir=tmp_path, checkpoint_every=20, keep=100)
    first.fit(60)
    again = trainer_for(**options)
    again.fit(60, resume=sorted(tmp_path.glob("*.safetensors"))[1])
    assert outcome(again) == outcome(first)


@pytest.mark.parametrize("before", [None, 30], ids=["the first call", "a later call"])
def test_a_process_that_ends_while_it_compiles(tmp_path, monkeypatch, before) -> None:
    whole = trainer_for()
    for n in filter(None, (before, 50)):
        whole.fit(n)

    def run() -> Trainer:
        trainer = trainer_for(checkpoint_dir=tmp_path)
        for n in filter(None, (before, 50)):
            trainer.fit(n, resume="auto")
        return trainer

    begin, calls = StochasticFit.begin, []

    def interrupted(self: StochasticFit, n: int) -> None:
        calls.append(n)
        if n == 50 and calls.count(50) == 1:
            raise RuntimeError("just before the first step")
        begin(self, n)

    monkeypatch.setattr(StochasticFit, "begin", interrupted)
    with pytest.raises(RuntimeError, match="just before"):
        run()
    assert outcome(run()) == outcome(whole)


def test_a_start_near_the_mode_that_was_interrupted(tmp_path, monkeypatch) -> None:
    whole = trainer_for(init="map")
    whole.fit(50)
    bring_near, calls = ExactFit.bring_near, []

    def interrupted(self: ExactFit, *arguments: Any) -> int:
        n_modes = bring_near(self, *arguments)
        calls.append(n_modes)
        if len(calls) == 1:
            raise RuntimeError("just before the end")
        return n_modes

    monkeypatch.setattr(ExactFit, "bring_near", interrupted)
    with pytest.raises(RuntimeError, match="just before"):
        trainer_for(init="map", checkpoint_dir=tmp_path).fit(50, resume="auto")
    again = trainer_for(init="map", checkpoint_dir=tmp_path)
    again.fit(50, resume="auto")
    assert outcome(again) == outcome(whole)


def test_checkpoints_of_another_fit_are_not_pushed_out(tmp_path) -> None:
    first = trainer_for(checkpoint_dir=tmp_path)
    first.fit(50)
    there = sorted(tmp_path.iterdir())
    with pytest.raises(errors.OutputExistsError, match="checkpoints of another fit"):
        trainer_for(checkpoint_dir=tmp_path).fit(50)
    assert sorted(tmp_path.iterdir()) == there
    first.fit(50)  # its own it may replace


@pytest.fixture
def folder(tmp_path) -> Path:
    trainer_for(checkpoint_dir=tmp_path, checkpoint_every=20).fit(50)
    return tmp_path


def other_prior(known: Any) -> Any:
    """The same model, with another number in it."""
    build = known.build

    class Other:
        data = known.data

        @staticmethod
        def build(loader: DataLoader) -> pm.Model:
            model = build(loader)
            with model:
                pm.Normal("one more", 0.0, 1.0)
            return model

    return Other


REFUSED: dict[str, tuple[Callable[[], Trainer], str]] = {
    "a variable more": (
        lambda: trainer_for(other_prior(correlated_linear(2_000))),
        "one more: not",
    ),
    "other rows": (lambda: trainer_for(correlated_linear(2_001)), "total_size is 2000"),
    "another order": (lambda: trainer_for(loader={"seed": 4}), "seed is 3 in the state, 4 here"),
    "another seed": (lambda: trainer_for(random_seed=6), "another random_seed"),
    "another method": (lambda: trainer_for(method="fullrank_advi"), "method: 'advi' in the"),
    "larger batches": (lambda: trainer_for(batch_size=200), "batch size: 100 in the"),
    "another optimiser": (
        lambda: trainer_for(optimizer=pm.adam(learning_rate=0.1)),
        r"optimizer: 'AnnealedAdam.*'adam\(.*learning_rate=0.1\)' here",
    ),
    "other values": (
        lambda: trainer_for(data={k: 1.01 * v for k, v in correlated_linear(2_000).data.items()}),
        "first rows: ",
    ),
}


def late(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same but for one number, in a row that the first batch does not have."""
    changed = {name: array.copy() for name, array in data.items()}
    next(iter(changed.values()))[1_234] *= 1.5
    return changed


REFUSED["one other value"] = (
    lambda: trainer_for(data=late(correlated_linear(2_000).data)),
    "table: ",
)


@pytest.mark.parametrize("form", ["parquet", "arrow", "table", "arrays"])
def test_a_table_that_was_rewritten(tmp_path, form) -> None:
    def source(change: float) -> Any:
        y = np.random.default_rng(0).normal(size=20_000)
        y[12_345] += change
        table = pa.table({"y": y})
        if form == "parquet":
            pq.write_table(table, tmp_path / "table.parquet")
            return parquet_source(tmp_path / "table.parquet", columns={"batch": "y"})
        if form == "arrow":
            with pa.ipc.new_file(tmp_path / "table.arrow", table.schema) as file:
                file.write_table(table)
            return arrow_source(tmp_path / "table.arrow", columns={"batch": "y"})
        return {"batch": y} if form == "arrays" else table_source(table, columns={"batch": "y"})

    def make(change: float) -> Trainer:
        loader = DataLoader(source(change), 100, shuffle=True, seed=0)
        with pm.Model() as model:
            mu = pm.Normal("mu", 0.0, 1.0)
            batch = pm.Data("batch", loader.placeholder())
            pm.Normal("y", mu, 1.0, observed=batch, total_size=len(loader))
        return Trainer("advi", loader, model=model, progressbar=False, compile_kwargs=FAST)

    trainer = make(0.0)
    trainer.fit(10)
    trainer.save(tmp_path / "state")
    make(0.0).fit(10, resume=tmp_path / "state")
    with pytest.raises(errors.CheckpointMismatchError, match="table: "):
        make(100.0).fit(10, resume=tmp_path / "state")


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_different_is_shown(folder, make, words) -> None:
    with pytest.raises(errors.CheckpointMismatchError, match=words):
        make().fit(50, resume=folder)


def test_other_numbers_in_the_model_are_shown(tmp_path) -> None:
    def make(scale: float) -> Trainer:
        loader = DataLoader(np.arange(100.0), 10)
        with pm.Model() as model:
            mu = pm.Normal("mu", 0.0, scale)
            batch = pm.Data("batch", loader.placeholder())
            pm.Normal("y", mu, 1.0, observed=batch, total_size=100)
        options = {"on_ordered": "ignore", "progressbar": False, "compile_kwargs": FAST}
        return Trainer("advi", loader, model=model, **options)

    trainer = make(1.5)
    trainer.fit(10)
    trainer.save(tmp_path / "state")
    with pytest.raises(
        errors.CheckpointMismatchError, match=r"mu: .*1\.5.* in the checkpoint, .*2\.5.* here"
    ):
        make(2.5).fit(10, resume=tmp_path / "state")


def test_another_call_is_refused(folder) -> None:
    first = min(folder.glob("*.safetensors"))
    with pytest.raises(errors.CheckpointMismatchError, match=r"fit\(50\), and the call is fit\(51"):
        trainer_for().fit(51, resume=first)


def test_damaged_checkpoints(folder, caplog) -> None:
    whole = trainer_for()
    whole.fit(50)
    files = sorted(folder.glob("*.safetensors"))
    for path in files[1:]:
        path.write_bytes(path.read_bytes()[:100])
    again = trainer_for(checkpoint_dir=folder)
    again.fit(50, resume="auto")
    assert outcome(again) == outcome(whole)
    assert "The one before it is taken" in caplog.text


def test_where_there_is_no_checkpoint(tmp_path) -> None:
    trainer = trainer_for(checkpoint_dir=tmp_path / "empty")
    trainer.fit(20, resume="auto")
    assert trainer._fits.steps.step.completed == 20
    with pytest.raises(errors.ArgumentError, match="checkpoint_dir="):
        trainer_for().fit(20, resume="auto")
    with pytest.raises(errors.MissingCheckpointError):
        trainer_for().fit(20, resume=tmp_path / "none")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(errors.MissingCheckpointError, match="no checkpoint here"):
        trainer_for().fit(20, resume=tmp_path / "nothing")


@pytest.mark.parametrize(
    "options", [{"checkpoint_every": "soon"}, {"keep": 0, "checkpoint_dir": "x"}], ids=repr
)
def test_what_cannot_be_meant(options) -> None:
    with pytest.raises(errors.ArgumentError):
        trainer_for(**options)
