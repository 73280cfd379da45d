from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from pymc_streaming import array_source, errors, order_report
from pymc_streaming.ordering import sampling
from pymc_streaming.ordering.plot import check_picture_file, plot_report

N = 40_000


def columns():
    rng = np.random.default_rng(0)
    return {
        "day": pa.array(np.arange(N) // 400, pa.int32()).cast(pa.date32()),
        "noise": rng.normal(size=N),
        "word": np.sort(rng.choice(["red", "green", "blue"], N)),
        "late": pa.array(rng.normal(size=N), mask=rng.random(N) < np.linspace(0.0, 0.2, N)),
    }


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a report and gives the figure."""
    saved = []
    save = Figure.savefig

    def remember(figure, *arguments, **options):
        saved.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", remember)

    def draw(report):
        plot_report(report, tmp_path / "order.png")
        assert (tmp_path / "order.png").read_bytes().startswith(b"\x89PNG")
        return saved[-1]

    return draw


def titles(figure):
    return [axis.get_title(loc="left") for axis in figure.axes]


def legend(figure):
    return {text.get_text() for text in figure.legends[0].get_texts()}


def points(axis):
    return axis.lines[0].get_ydata()


def test_what_was_found_is_drawn_with_title_labels_and_legend(drawn, tmp_path):
    pq.write_table(pa.table(columns()), tmp_path / "t.parquet", row_group_size=2_000)
    report = order_report(tmp_path / "t.parquet")
    figure = drawn(report)
    assert figure.get_suptitle().replace("\n", " ") == f"ORDERED: {report.reason}"
    assert sorted(title.split(" (")[0] for title in titles(figure)) == [
        "day: mean", "late: share of nulls", "word: share of the level 'blue'",
    ]  # fmt: skip
    assert all(axis.get_ylabel() for axis in figure.axes)
    assert "row" in figure.axes[-1].get_xlabel()
    assert any("99 %" in text for text in legend(figure))
    by_title = {axis.get_title(loc="left"): axis for axis in figure.axes}
    nulls = points(by_title["late: share of nulls"])
    np.testing.assert_allclose(nulls, np.linspace(0, 20, len(nulls)), atol=8)
    blue = points(by_title["word: share of the level 'blue'"])
    assert (blue[0], blue[-1]) == (100, 0)


def test_relations_and_spreads_are_drawn(drawn):
    rng = np.random.default_rng(0)
    x = rng.normal(size=N)
    y = np.linspace(-0.8, 0.8, N) * x + rng.normal(size=N)
    figure = drawn(order_report({"x": x, "y": y}))
    assert titles(figure) == ["x and y: relation", "y: spread"]
    relation = points(figure.axes[0])
    assert relation[:10].mean() == pytest.approx(-0.73, abs=0.1)
    assert relation[-10:].mean() == pytest.approx(0.73, abs=0.1)


def test_a_shuffled_table_stays_in_the_band(drawn):
    rng = np.random.default_rng(0)
    figure = drawn(order_report({f"x{i}": rng.normal(size=N) for i in range(6)}))
    assert len(figure.axes) == 4
    for axis in figure.axes:
        low, high = band(axis)
        assert np.mean((points(axis) > low) & (points(axis) < high)) > 0.95


def band(axis):
    return axis.patches[0].get_y(), axis.patches[0].get_y() + axis.patches[0].get_height()


def test_of_text_only_common_levels_are_drawn_within_0_and_100_percent(drawn):
    rng = np.random.default_rng(0)
    table = {
        "usual": rng.choice(["a", "b"], N),
        "skewed": np.where(rng.random(N) < 0.03, "a", rng.integers(0, 10_000, N).astype(str)),
        "rare": rng.integers(0, 10_000, N).astype(str),
    }
    figure = drawn(order_report(pa.table(table)))
    assert titles(figure) == [
        "usual: share of the level 'a'", "skewed: share of the level 'a'",
        "rare: mean alphabetical rank",
    ]  # fmt: skip
    for axis in figure.axes:
        low, high = band(axis)
        assert 0 <= low < high <= 100
        assert np.mean((points(axis) >= low) & (points(axis) <= high)) > 0.95


def test_a_rank_that_drifts_is_drawn(drawn):
    text = [f"key {i:06d}" for i in range(N)]
    (axis,) = drawn(order_report(pa.table({"text": text}))).axes
    assert axis.get_title(loc="left") == "text: mean alphabetical rank"
    np.testing.assert_allclose(points(axis), np.linspace(0, 100, len(points(axis))), atol=2)


def test_rows_that_were_not_read_are_shown(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "DEEP_VALUES", 2**20)
    x = (np.arange(10_000_000) % 7).astype(np.int8)
    pq.write_table(pa.table({"x": x}), tmp_path / "t.parquet", row_group_size=1_000_000)
    sampled = drawn(order_report(tmp_path / "t.parquet"))
    assert "not read (the report is on a sample)" in legend(sampled)
    whole = drawn(order_report({"x": x[:N]}))
    assert not any("not read" in text for text in legend(whole))


def test_other_formats_and_what_cannot_be_drawn(tmp_path):
    report = order_report(np.arange(N))
    plot_report(report, tmp_path / "order.svg")
    assert "<svg" in (tmp_path / "order.svg").read_text()
    with pytest.raises(errors.OutputError, match="cannot be written"):
        plot_report(report, tmp_path / "no" / "order.png")
    with pytest.raises(errors.OutputError, match="cannot be written"):
        plot_report(report, tmp_path / "order.unknown")
    with pytest.raises(errors.ArgumentError, match="no column has values that differ"):
        plot_report(order_report(np.ones(N)), tmp_path / "order.png")
    known = array_source(np.arange(N))
    known.is_shuffled = True
    with pytest.raises(errors.ArgumentError, match="no row of the table was looked at"):
        plot_report(order_report(known), tmp_path / "order.png")


def test_a_place_is_refused_before_there_is_a_picture(tmp_path):
    check_picture_file(tmp_path / "order.png")
    check_picture_file(str(tmp_path / "order.SVG"))
    for name, why in {
        ".": "this is a folder",
        "order": "ends in one of .*png",
        ".png": "ends in one of",
        "order.unknown": "ends in one of",
        "no/order.png": "there is no folder",
    }.items():
        with pytest.raises(errors.OutputError, match=f"cannot be written: .*{why}"):
            check_picture_file(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
