"""A fit is made again from what its passes added up."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from pymc_streaming.fits.journal import Journal
from pymc_streaming.vi.passes import OtherPoints

ROWS = np.arange(10.0)


class Total:
    """The sum of rows, times a factor that says what it is of."""

    def __init__(self, factor: float) -> None:
        self.factor, self.sum = factor, 0.0

    def add(self, rows: np.ndarray) -> None:
        self.sum += self.factor * rows.sum()

    def state(self) -> dict[str, np.ndarray]:
        return {"factor": np.array(self.factor), "sum": np.array(self.sum)}

    def load(self, state) -> None:
        if state["factor"] != self.factor:
            raise OtherPoints
        self.sum = float(state["sum"])


@pytest.fixture
def guide() -> SimpleNamespace:
    return SimpleNamespace(location=np.arange(2.0), scales=np.ones(2))


def go_over(journal: Journal, factor: float, read: list[float], until: int = 10) -> float:
    total = Total(factor)
    for row in range(journal.begin_pass([total], 10), 10):
        if row == until:
            raise KeyboardInterrupt
        total.add(ROWS[row : row + 1])
        journal.read(1)
        read.append(ROWS[row])
        if row == 9:
            journal.end_pass()
    return total.sum


def again(journal: Journal) -> Journal:
    return Journal.of(journal.state())


@pytest.mark.parametrize("until", range(11))
def test_what_was_read_is_not_read_again(guide, until) -> None:
    random = np.random.default_rng(0)
    journal = Journal(guide, random, 100)
    drawn = random.random()
    read: list[float] = []
    assert go_over(journal, 1.0, read) == 45.0
    try:
        go_over(journal, 2.0, read, until)
    except KeyboardInterrupt:
        assert until < 10
    for _ in range(2):  # from a state of a state, too
        journal = again(journal)
    guide.location[:] = 7.0
    journal.rewind(guide, random)
    np.testing.assert_array_equal(guide.location, [0.0, 1.0])
    assert random.random() == drawn
    assert journal.sample_rows == 100
    read.clear()
    assert [go_over(journal, factor, read) for factor in (1.0, 2.0, 3.0)] == [45.0, 90.0, 135.0]
    assert read == [*ROWS[until:], *ROWS]


def test_rows_that_are_all_read_are_a_pass(guide) -> None:
    """Saved after the last row, before the pass was said to be over."""
    journal = Journal(guide, np.random.default_rng(0), 100)
    total = Total(1.0)
    journal.begin_pass([total], 10)
    total.add(ROWS)
    journal.read(10)
    journal = again(journal)
    read: list[float] = []
    assert [go_over(journal, factor, read) for factor in (1.0, 2.0)] == [45.0, 90.0]
    assert read == [*ROWS]


def test_a_pass_at_other_points_is_made_anew(guide, caplog) -> None:
    journal = Journal(guide, np.random.default_rng(0), 100)
    read: list[float] = []
    for factor in (1.0, 2.0, 3.0):
        go_over(journal, factor, read)
    journal = again(journal)
    read.clear()
    with caplog.at_level(logging.WARNING):
        found = [go_over(journal, factor, read) for factor in (1.0, 2.5, 3.0)]
    assert found == [45.0, 112.5, 135.0]
    assert len(read) == 20
    assert caplog.text.count("made anew") == 1
    assert [go_over(again(journal), 1.0, read)] == [45.0]
