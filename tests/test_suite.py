"""The suite of models among the benchmarks: models, references, judgement; no timing."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pymc as pm
import pytest
from pytensor.compile.mode import Mode

from benchmarks import BenchmarkError, suite, suite_contestants, suite_models
from benchmarks.__main__ import main
from benchmarks.models import PRIOR_SCALE
from benchmarks.processes import ChildError
from benchmarks.recording import Recording, Results
from benchmarks.report import conditions
from benchmarks.suite_contestants import Checkpoint
from benchmarks.suite_models import MODELS
from benchmarks.suite_references import FOLDER, MOST_R_HAT, Reference, find, sizes_with_draws

SMALL = [name for name, model in MODELS.items() if model.size < 1_000]
pytest.importorskip("numpyro", reason="NumPyro comes with the extra `bench`")


def table(name: str, n_rows: int) -> np.ndarray:
    return np.concatenate(list(MODELS[name].blocks(n_rows)))


@pytest.mark.parametrize("name", SMALL)
def test_a_table_begins_with_the_rows_of_a_smaller_one(name, monkeypatch):
    monkeypatch.setattr(suite_models, "BLOCK_ROWS", 64)
    np.testing.assert_array_equal(table(name, 70), table(name, 150)[:70])


def test_groups_are_rarer_the_later():
    counts = np.bincount(table("groups-100", 60_000)[:, 3].astype(int), minlength=100)
    expected = 60_000 / np.arange(1, 101) / (1 / np.arange(1, 101)).sum()
    np.testing.assert_allclose(counts, expected, atol=5 * np.sqrt(expected.max()))


@pytest.mark.filterwarnings("ignore:.*requested dtype int64:UserWarning")  # float32 will do here
@pytest.mark.parametrize(
    "name", ["linear", "student", "poisson", "negative-binomial", "groups-100", "two-likelihoods"]
)
def test_a_model_is_the_same_in_pymc_in_numpyro_and_in_its_reference(name):
    import jax
    from numpyro.infer.util import potential_energy

    from benchmarks.suite_references import _functions, _split

    model, batch_size = MODELS[name], 40
    rows = table(name, batch_size)
    arrays = model.split(rows)
    log_density = _functions(model, (rows[None], np.ones((1, batch_size))))[1]
    with pm.Model() as in_pymc:
        model.in_pymc(model.split(pm.Data("batch", rows)), model.features, batch_size)
    compiled = in_pymc.compile_logp(mode=Mode(linker="py", optimizer=None))
    found = []
    rng = np.random.default_rng(0)
    for vector in rng.normal(scale=0.3, size=(2, model.size)):
        point = _split(model, vector)
        names = {f"{key}_log__" if key in model.positive else key: key for key in point}
        ours = compiled({value: point[key] for value, key in names.items()})
        theirs = -potential_energy(
            model.in_numpyro, (arrays, batch_size, batch_size), {}, dict(point)
        )
        found.append([float(ours), float(theirs), float(log_density(jax.numpy.asarray(vector)))])
    in_pymc, in_numpyro, in_reference = np.diff(found, axis=0)[0]  # without constants
    assert in_numpyro == pytest.approx(in_pymc, rel=1e-3)
    assert in_reference == pytest.approx(in_pymc, rel=1e-3)


def test_the_best_gaussian_is_where_its_expectations_say(tmp_path):
    reference = find("logistic-5", 400, tmp_path)
    rows = table("logistic-5", 400)
    X, y = np.column_stack([np.ones(400), rows[:, :5]]), rows[:, 5]
    draws = np.random.default_rng(0).standard_normal((20_000, 6))
    draws = reference.mean + reference.sd * np.concatenate([draws, -draws])
    p = 1 / (1 + np.exp(-draws @ X.T))
    gradient = (y - p.mean(axis=0)) @ X - reference.mean / PRIOR_SCALE**2
    curvature = (p * (1 - p)).mean(axis=0) @ X**2 + 1 / PRIOR_SCALE**2
    np.testing.assert_allclose(gradient * reference.sd, 0, atol=0.01)
    np.testing.assert_allclose(reference.sd**2 * curvature, 1, atol=0.005)
    dense = (X.T * (p * (1 - p)).mean(axis=0)) @ X + np.eye(6) / PRIOR_SCALE**2
    np.testing.assert_allclose(reference.posterior_sd**2, np.diag(np.linalg.inv(dense)), rtol=0.005)


def checkpoint(seconds: float, error: float, ratio: float = 1.0) -> Checkpoint:
    return Checkpoint(seconds, 2.0, 1.0, np.array([error, 0.0]), np.array([ratio, 1.0]))


def reference(size: int = 2) -> Reference:
    ones, zeros = np.ones(size), np.zeros(size)
    return Reference(zeros, ones, ones, "NUTS", zeros + 0.03)


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        ([(1, 3.0), (2, 0.09), (3, 0.05)], 2),
        ([(1, 0.01), (2, 0.2), (3, 0.05)], 3),  # it did not stay so
        ([(1, 0.01), (2, 0.2)], None),
        ([(1, -0.2)], None),
        ([(1, 0.0, 1.06)], None),
        ([(1, 0.0, 0.94)], None),
        ([(1, np.nan)], None),
        ([(1, 0.0, np.nan)], None),
        ([], None),
    ],
)
def test_accurate_is_what_stays_accurate(course, expected):
    found = suite.judged([checkpoint(*point) for point in course], reference())
    assert found["accurate_seconds"] == expected
    assert found["accurate_seconds_and_before"] == (expected and expected + 2)
    assert found["target_from_nuts"] == pytest.approx(0.03)


def test_a_table_says_never_and_failed(tmp_path):
    made = Recording("suite", tmp_path, Namespace(seeds=2))
    courses = {
        "this": [[checkpoint(1, 0.01)], [checkpoint(2, 0.01)]],
        "pm-fit": [[checkpoint(1, 0.01)], [checkpoint(30, 0.5, 12.0)]],
        "extras": [[checkpoint(1, 0.01)], []],
    }
    for which, courses_of_seeds in courses.items():
        for course in courses_of_seeds:
            found = suite.judged(course, reference())
            failed = None if course else "MemoryError"
            of = {"model": "linear", "rows": 100_000, "contestant": which}
            made.add("fit", of, {"seed": 0, **found, "failed": failed})
    times, ends = suite.tables(made.results())
    assert times.rows == [
        [
            *("linear, unknown sigma, D = 10", "100,000", "0.03", "1.5 (2) / 3.5 (4)"),
            *("1 of 2 never (0.5 sds, sd × 1.00 to 12, at 15.5 s)", "failed: MemoryError"),
        ]
    ]
    assert ends.rows[-1][-1] == "failed: MemoryError, nothing"
    assert suite.draw(made.results()).axes


@pytest.fixture
def here(monkeypatch):
    """What has processes of its own runs in this one; the reference is Newton's, on all rows."""
    for name in ("from_fresh", "each_from_fresh"):
        monkeypatch.setattr(suite, name, lambda f, *args, **_: f(*args))
    monkeypatch.setattr(suite_contestants, "quiet", lambda: None)

    def newton(name: str, n_rows: int, _: Path = Path()) -> Reference:
        rows = table(name, n_rows)
        X, y, b = np.column_stack([np.ones(n_rows), rows[:, :-1]]), rows[:, -1], np.zeros(6)
        for _ in range(20):
            p = 1 / (1 + np.exp(-X @ b))
            hessian = (X.T * (p * (1 - p))) @ X + np.eye(6) / PRIOR_SCALE**2
            b += np.linalg.solve(hessian, X.T @ (y - p) - b / PRIOR_SCALE**2)
        return Reference(
            b, np.diag(hessian) ** -0.5, np.diag(np.linalg.inv(hessian)) ** 0.5, "curvature"
        )

    monkeypatch.setattr(suite, "find", newton)


def test_a_run_at_a_tiny_size(here, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "LONGER", 0.0)
    words = "suite --models logistic-5 --rows 8000 --seeds 1 --budget 0.01 --batch-size 200"
    words += " --contestants this numpyro-float32"
    assert main([*words.split(), "--output", str(tmp_path)]) == 0
    results = Results.read(tmp_path / "suite.json")
    this, numpyro = results.rows("fit")
    assert this.found["claim"] == ["converged"]
    assert this.median("error") < 0.1
    assert this.numbers("accurate_seconds") == this.numbers("seconds")
    assert numpyro.median("passes") == 2_000 * 200 / 8_000
    assert this.found["failed"] == numpyro.found["failed"] == [None]
    assert "converged" in (tmp_path / "suite.md").read_text("utf-8")


def test_others_fit_longer_than_this_package(here, tmp_path, monkeypatch):
    budgets = []

    def fit(arguments, seed, budget, reference):
        budgets.append((arguments[0], budget))
        return {"seconds": 10.0 * seed}

    monkeypatch.setattr(suite, "_fit", fit)
    options = Namespace(
        models=["logistic-5"],
        rows=[200],
        contestants=["this", "pm-fit"],
        seeds=3,
        budget=5.0,
        batch_size=100,
        keep=False,
    )
    suite.run(options, Recording("suite", tmp_path, options))
    assert budgets[-3:] == [("pm-fit", 30.0)] * 3


def test_what_is_on_record_of_others_can_be_kept(tmp_path):
    made = Recording("suite", tmp_path, Namespace(), ["--rows", "8000"])
    for name in ("linear", "rare"):
        made.add("fit", {"model": name, "rows": 8_000}, {"seconds": 1.0})
    made.finish()
    after = Recording("suite", tmp_path, Namespace())
    after.keep(lambda of: of["model"] != "linear")
    assert after.record["commands_before"] == [made.record["command"]]
    assert made.record["command"] in conditions(after.results())
    assert [row.of["model"] for row in after.results().rows("fit")] == ["rare"]
    after.record["versions"] = {"pymc": "0"}
    with pytest.raises(BenchmarkError, match=r"suite\.json cannot be kept: it was measured on"):
        after.keep(lambda of: True)
    with pytest.raises(BenchmarkError, match=r"no suite\.json"):
        Recording("suite", tmp_path / "empty", Namespace()).keep(lambda of: True)


def test_sizes_without_being_asked(tmp_path, monkeypatch):
    for name, kept in [("linear-70", {"nuts_mean": []}), ("linear-9", {}), ("rare-8", {})]:
        (tmp_path / f"{name}.json").write_text(json.dumps(kept), "utf-8")
    assert sizes_with_draws("linear", tmp_path) == [70]
    monkeypatch.setattr(suite, "sizes_with_draws", lambda name: [70])
    assert suite._sizes("linear", None) == [70, 1_000_000]
    assert suite._sizes("logistic-1000", [10**6, 10**7]) == [199_800]


def test_fits_by_steps_are_looked_at(here, tmp_path):
    suite.prepare("logistic-5", tmp_path, 2_000)
    found = list(suite_contestants.contend("pm-adam", "logistic-5", tmp_path, 100, 0, 0.01))
    assert found[0].passes == 500 * 100 / 2_000
    assert found[-1].mean.shape == found[-1].sd.shape == (6,)
    distance = np.abs(found[-1].mean - suite.find("logistic-5", 2_000).mean)
    assert distance.max() < 1


def test_a_fit_that_fails_is_a_result(here, monkeypatch):
    def failing(*_, **__):
        yield checkpoint(1, 0.01)
        raise ChildError("Traceback\nMemoryError: too much")

    monkeypatch.setattr(suite, "each_from_fresh", failing)
    found = suite._fit(("this", "linear", Path(), 100), 3, 1.0, reference())
    assert (found["seed"], found["failed"]) == (3, "MemoryError: too much")


def test_a_reference_of_another_model_is_refused(tmp_path):
    kept = {"model": "Regression(...)", "command": "python -m benchmarks.suite_references"}
    (tmp_path / "linear-100.json").write_text(json.dumps(kept), "utf-8")
    with pytest.raises(BenchmarkError, match=r"linear-100\.json is of another model.*suite_ref"):
        find("linear", 100, tmp_path)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_kept_references_are_of_these_models(path):
    name, _, n_rows = path.stem.rpartition("-")
    reference = find(name, int(n_rows))
    assert reference.mean.shape == reference.posterior_sd.shape == (MODELS[name].size,)
    if reference.nuts_mean is not None:
        assert json.loads(path.read_text("utf-8"))["r_hat"] < MOST_R_HAT
