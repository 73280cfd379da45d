from __future__ import annotations

import numpy as np
from rich.console import Console

from pymc_streaming import progress
from pymc_streaming.progress import FitProgress, Recorder


def test_an_empty_history_has_empty_arrays():
    history = Recorder().history()
    assert history.step.shape == history.loss.shape == (0,)
    assert history.step.dtype == history.rows.dtype == np.int64


def test_records_become_arrays():
    recorder = Recorder()
    recorder.add(1, 20.0, 100, 0.5)
    recorder.add(2, 10.0, 200, 1.0)
    history = recorder.history()
    np.testing.assert_array_equal(history.step, [1, 2])
    np.testing.assert_array_equal(history.loss, [20.0, 10.0])
    np.testing.assert_array_equal(history.rows, [100, 200])
    np.testing.assert_array_equal(history.seconds, [0.5, 1.0])


def test_the_bar_shows_step_speed_loss_and_time_left(monkeypatch):
    terminal = Console(force_terminal=True, width=120, record=True)
    monkeypatch.setattr(progress, "Console", lambda **options: terminal)
    with FitProgress(1_000, 4096, enabled=True) as bar:
        bar.begin()
        bar.seen(123.0)
        bar.update(500)
    text = terminal.export_text()
    for word in ("fitting", "500 of 1,000", "M rows/s", "loss 123"):
        assert word in text


def test_the_loss_is_smoothed():
    with FitProgress(10, 1, enabled=False) as bar:
        for loss in [100.0] + [0.0] * 200:
            bar.seen(loss)
        assert 0 < bar._loss < 0.01
