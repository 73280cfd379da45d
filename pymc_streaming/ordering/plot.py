"""A picture of the order: ranges and block means over the position in the table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pymc_streaming.errors import ArgumentError, OutputError
from pymc_streaming.ordering.records import ColumnOrder, OrderReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_report"]

#: Columns that get a panel.
MOST_PANELS = 4
#: Points of block means in a panel.
MOST_BLOCKS = 150
#: Half width of the band that one in a hundred points of a shuffled table leaves.
BAND = 2.576


def plot_report(report: OrderReport, file: str | Path) -> None:
    """Draw the columns that follow the order most clearly, one panel each.

    Parameters
    ----------
    report : OrderReport
        Of a table of which rows were looked at.
    file : path
        Where to save the picture; its suffix says the format.

    Raises
    ------
    ArgumentError
        If no column has numbers to be drawn.
    OutputError
        If the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = _shown(report)
    if not shown:
        raise ArgumentError("There is no column with numbers to draw; run it without a picture.")
    figure = Figure(figsize=(9, 0.6 + 2.3 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for panel, column in zip(panels, shown, strict=True):
        _draw(panel, report, column)
    panels[-1].set_xlabel("row of the table")
    panels[-1].set_xlim(0, report.rows or report.sampled_rows)
    panels[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.suptitle(f"{report.verdict}: {report.reason}", fontsize=10, x=0.01, ha="left", wrap=True)
    found = {
        label: handle
        for panel in panels
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        found.values(), found, loc="outside lower center", ncols=len(found), frameon=False
    )
    try:
        figure.savefig(file, dpi=130)
    except (OSError, ValueError) as error:
        raise OutputError(f"{file}: the picture cannot be written: {error}") from error


def _shown(report: OrderReport) -> list[ColumnOrder]:
    if report.judgement is None:
        return []
    drawable = [
        column
        for column in report.columns
        if column.ordered is not None and report.judgement.columns[column.name].values is not None
    ]
    drawable.sort(key=lambda c: (not c.ordered, -(c.design_effect or 0.0)))
    return drawable[:MOST_PANELS]


def _draw(panel: Axes, report: OrderReport, column: ColumnOrder) -> None:
    assert report.judgement is not None
    sample = report.judgement.sample
    values = report.judgement.columns[column.name].values
    assert values is not None
    valid = np.isfinite(values)
    block = _blocks(sample.fragment)
    rows = np.repeat(block, sample.length)
    counts = np.bincount(rows, valid)
    weights = sample.length * (sample.start + 0.5 * sample.length)
    place = (np.bincount(block, weights) / np.bincount(block, sample.length))[counts > 0]
    sums = np.bincount(rows, np.where(valid, values, 0.0))[counts > 0]
    counts = counts[counts > 0]
    means, mean = sums / counts, values[valid].mean()
    half = BAND * values[valid].std() / np.sqrt(counts)
    low, high = min(means.min(), (mean - half).min()), max(means.max(), (mean + half).max())
    note = ""
    ranges = report.ranges.get(column.name)
    if ranges is not None and not ranges.is_rank and np.isfinite(ranges.low).any():
        least, most = np.nanmin(ranges.low), np.nanmax(ranges.high)
        if high - low > 0.2 * (most - least):
            edges = np.concatenate([[0], np.cumsum(ranges.rows)])
            panel.bar(
                edges[:-1],
                ranges.high - ranges.low,
                width=np.diff(edges),
                bottom=ranges.low,
                align="edge",
                color="0.9",
                edgecolor="0.7",
                linewidth=0.6 if len(edges) < 200 else 0.0,
                label="range of a row group (footer)",
            )
        else:  # they would press the means flat
            note = f"; values from {least:,.4g} to {most:,.4g}"
    panel.fill_between(
        place,
        mean - half,
        mean + half,
        color="tab:blue",
        alpha=0.3,
        linewidth=0,
        label="99 % of block means, if shuffled",
    )
    panel.plot(place, means, ".", color="tab:red", markersize=4, label="mean of a block of rows")
    if column.type.startswith(("timestamp", "date")):
        seconds = 86_400 if column.type.startswith("date") else 1
        panel.yaxis.set_major_formatter(
            lambda value, _: str(np.datetime64(round(value * seconds), "s").astype("M8[D]"))
        )
    effect = 1.0 if column.design_effect is None else column.design_effect
    shown = f"{effect:,.0f}" if effect >= 10 else f"{effect:.1f}"
    panel.set_title(
        f"{column.name} ({column.type}{note}): design effect {shown} in order",
        fontsize=9,
        loc="left",
    )


def _blocks(fragment: np.ndarray) -> np.ndarray:
    """Labels for neighbouring runs of one fragment that share a point."""
    per_point = -(-len(fragment) // MOST_BLOCKS)
    _, first, counts = np.unique(fragment, return_index=True, return_counts=True)
    labels = np.empty(len(fragment), np.int64)
    label = 0
    for start, count in zip(first, counts, strict=True):
        points = -(-count // per_point)
        labels[start : start + count] = label + np.arange(count) * points // count
        label += points
    return labels
