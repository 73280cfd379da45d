from __future__ import annotations

import numpy as np
import pytest

from pymc_streaming import ArraySpec, DataLoader, Fragment, IterableDataset
from pymc_streaming.ordering.effects import Stream
from pymc_streaming.ordering.report import judge_source


class Rows(IterableDataset):
    """One column, in fragments of a size."""

    def __init__(self, y: np.ndarray, size: int) -> None:
        self.layout = {"y": ArraySpec((), np.dtype("float64"), ("y",))}
        self.y, self.size = y, size
        self.fragments = [
            Fragment(len(y[i : i + size]), f"part {i // size}") for i in range(0, len(y), size)
        ]

    def read(self, fragment: Fragment):
        start = self.size * int(fragment.origin.split()[1])
        yield {"y": self.y[start : start + self.size]}


def measured(source: Rows, batch_size: int, epochs: int, **options) -> float:
    """Variance of the means of the loader's own batches over that of as many random rows."""
    loader = DataLoader(source, batch_size, seed=0, drop_last=True, **options)
    means = [batch["y"].mean() for _ in range(epochs) for batch in loader]
    return float(np.var(means) / (source.y.var() / batch_size))


N = 100_000
U = np.linspace(0, 1, N)
SHAPES = {
    "drift": 2.0 * U,
    "season": np.sin(6 * np.pi * U),
    "sorted within fragments": (np.arange(N) % 2_000) / 1_000,
    "groups": np.repeat(np.random.default_rng(5).normal(size=50), 2_000),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("buffer_size", [None, 9_000, 37_000])
def test_predicted_design_effects_are_those_of_the_loaders_batches(name, buffer_size):
    y = SHAPES[name] + np.random.default_rng(0).normal(size=N)
    source = Rows(y, 2_000)
    judgement, _ = judge_source(source)
    (evidence,) = judgement.columns.values()
    predicted = judgement.design_effect(evidence, Stream(500, buffer_size))
    options = {} if buffer_size is None else {"shuffle": True, "buffer_size": buffer_size}
    actual = measured(source, 500, 1 if buffer_size is None else 60, **options)
    # Halves of a drifting table are less alike than all stretches of that length, which is what a
    # correlation by distance knows; so it says up to two fifths too much of a drift.
    assert 0.7 * actual - 0.3 < predicted < (1.45 if name == "drift" else 1.3) * actual + 0.3
    if buffer_size is None:
        assert actual > 5


def test_a_buffer_that_holds_the_table_mixes_it():
    judgement, _ = judge_source(Rows(np.sort(np.random.default_rng(0).normal(size=N)), 2_000))
    (evidence,) = judgement.columns.values()
    assert judgement.design_effect(evidence, Stream(500, N)) == 1.0
    assert judgement.predicted_error(500, N, 10_000) == 0.0
    assert judgement.predicted_error(500, N // 20, 10_000) > 1.0
    assert judgement.predicted_error(500, None, 10_000) > 1.0


def test_sorted_rows_have_a_design_effect_of_nearly_a_batch():
    judgement, _ = judge_source(Rows(np.repeat(np.arange(20.0), N // 20), 2_000))
    (evidence,) = judgement.columns.values()
    assert judgement.design_effect(evidence, Stream(500)) == pytest.approx(500, rel=0.05)


def test_more_steps_leave_less_of_the_order():
    judgement, _ = judge_source(Rows(U + np.random.default_rng(0).normal(size=N), 2_000))
    errors = [judgement.predicted_error(500, 5_000, steps) for steps in (500, 5_000, 50_000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 3 * errors[-1]
