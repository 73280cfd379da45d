"""A picture of the order: what was found, block by block, over the position in the table."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from pymc_streaming.errors import ArgumentError, OutputError
from pymc_streaming.ordering.features import MOST_LEVELS
from pymc_streaming.ordering.judge import Judgement
from pymc_streaming.ordering.records import ColumnOrder, OrderReport
from pymc_streaming.ordering.sampling import Sample
from pymc_streaming.ordering.wording import shown, telling_relations

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["check_picture_file", "plot_report"]

#: Columns that get a panel.
MOST_PANELS = 4
#: Points in a panel, and rows that are too few for one.
MOST_BLOCKS, FEWEST_ROWS = 150, 8
#: Rows of a level that a point has on average, at least: the share of rarer ones is all noise.
FEWEST_OF_LEVEL = 5
#: Half width of the band that one in a hundred points of a shuffled table leaves.
BAND = 2.576
#: Stretches that were not read are shown from this share of the table on.
WIDE_GAP = 0.01


@dataclass(frozen=True)
class Panel:
    """What is drawn: a number for each row, of which the means of blocks are shown.

    Parameters
    ----------
    title, label : str
        What it is, and its name on the axis, with the unit.
    values : ndarray of float, shape (rows,)
        NaN where there is none.
    column : ColumnOrder or None
        The column, if it is its values that are drawn.
    is_share : bool
        Whether the means lie between 0 and 100 %.
    """

    title: str
    label: str
    values: np.ndarray
    column: ColumnOrder | None = None
    is_share: bool = False


def check_picture_file(file: str | Path) -> None:
    """Refuse a place where no picture can be written, before there is one.

    Parameters
    ----------
    file : path
        Where to save it.

    Raises
    ------
    OutputError
        If it is a folder, its folder is not there or may not be written to, or its suffix says no
        format.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    place = Path(file)
    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    if place.is_dir():
        problem = "this is a folder, expected the name of a file such as order.png"
    elif place.suffix[1:].lower() not in formats:
        problem = f"expected a name that ends in one of .{', .'.join(formats)}"
    elif not place.parent.is_dir():
        problem = f"there is no folder {str(place.parent)!r}. Make it first"
    elif not os.access(place if place.exists() else place.parent, os.W_OK):
        problem = "there is no permission to write there"
    else:
        return
    raise OutputError(f"{file}: the picture cannot be written: {problem}.")


def plot_report(report: OrderReport, file: str | Path) -> None:
    """Draw what follows the order most clearly, one panel each; or else the first columns.

    Parameters
    ----------
    report : OrderReport
        Of a table of which rows were looked at.
    file : path
        Where to save the picture; its suffix says the format.

    Raises
    ------
    ArgumentError
        If there is nothing to be drawn.
    OutputError
        If the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_picture_file(file)
    if report.judgement is None:
        raise ArgumentError("There is no picture: no row of the table was looked at.")
    panels = list(_panels(report, report.judgement))
    if not panels:
        raise ArgumentError("There is no picture: no column has values that differ.")
    title = textwrap.wrap(f"{report.verdict.upper()}: {report.reason}", 110)
    figure = Figure(figsize=(9, 0.9 + 0.2 * len(title) + 2.3 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    sample = report.judgement.sample
    for axis, panel in zip(axes, panels, strict=True):
        _draw_gaps(axis, sample, report.rows or sample.rows)
        _draw(axis, panel, report, sample)
    axes[-1].set_xlabel("row, in the order in which they are stored")
    axes[-1].set_xlim(0, report.rows or sample.rows)
    axes[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.suptitle("\n".join(title), fontsize=10, x=0.01, ha="left")
    found = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(found.values(), found, loc="outside lower center", ncols=2, frameon=False)
    try:
        figure.savefig(file, dpi=130)
    except (OSError, ValueError) as error:
        raise OutputError(f"{file}: the picture cannot be written: {error}") from error


def _panels(report: OrderReport, judgement: Judgement) -> Iterator[Panel]:
    """What follows the order, the strongest first; if nothing does, columns as they come."""
    found = [column for column in report.columns if column.ordered]
    found.sort(key=lambda column: -(column.design_effect or 0.0))
    relations = [relation.columns for relation in telling_relations(report)]
    if not found and not relations:
        judged = {n for n, e in judgement.columns.items() if any(f.tests for f in e.features)}
        found = [column for column in report.columns if column.name in judged]
    for column in found[:MOST_PANELS]:
        yield _column_panel(column, judgement)
    for first, second in relations[: max(0, MOST_PANELS - len(found))]:
        scores = [_normal_scores(_numbers(judgement, name)) for name in (first, second)]
        what = (
            f"{shown(first)}: spread"
            if first == second
            else f"{shown(first)} and {shown(second)}: relation"
        )
        label = "square" if first == second else "product"
        yield Panel(what, f"mean {label}\n(of normal scores)", scores[0] * scores[1])


def _column_panel(column: ColumnOrder, judgement: Judgement) -> Panel:
    what = next(iter(column.findings), "mean")
    name = shown(column.name)
    values = _numbers(judgement, column.name)
    if what == "share of nulls":
        is_null = 100.0 * np.isnan(values)
        return Panel(f"{name}: share of nulls", "nulls, %", is_null, is_share=True)
    is_text = judgement.columns[column.name].values is None
    levels = _common_levels(judgement, column.name) if is_text or what == "mix of levels" else []
    if levels and (what != "alphabetical rank" or "mix of levels" in column.findings):
        level, is_level = _telling_level(levels, _rows(judgement.sample))
        title = f"{name}: share of the level {level!r}"
        return Panel(title, f"{level}, %", 100.0 * is_level, is_share=True)
    if is_text:
        rank = 100.0 * _text_rank(judgement, column.name)
        return Panel(f"{name}: mean alphabetical rank", "rank, %", rank, is_share=True)
    what = "mean and range" if what == "range" else "mean"
    return Panel(f"{name}: {what}", f"mean ({column.type})", values, column)


def _numbers(judgement: Judgement, name: str) -> np.ndarray:
    """The values of a column, NaN for null; of text, 0."""
    values = judgement.columns[name].values
    if values is not None:
        return values
    found = judgement.sample.columns[name]
    is_null = np.asarray(found.is_null()) if isinstance(found, pa.Array) else np.isnan(found)
    numbers: np.ndarray = np.where(is_null, np.nan, 0.0)
    return numbers


def _normal_scores(values: np.ndarray) -> np.ndarray:
    rank = stats.rankdata(values, nan_policy="omit")
    scores: np.ndarray = stats.norm.ppf((rank - 0.5) / np.isfinite(values).sum())
    standardised: np.ndarray = scores / np.nanstd(scores)
    return standardised


def _common_levels(judgement: Judgement, name: str) -> list[tuple[str, np.ndarray]]:
    """Levels of which every point has some rows, the commonest first, and which rows have them."""
    sample = judgement.sample
    codes, levels = _codes(judgement, name)
    counts = np.bincount(codes[codes >= 0], minlength=len(levels))
    fewest = FEWEST_OF_LEVEL * (_blocks(sample.fragment).max() + 1)
    common = np.argsort(-counts, kind="stable")[: (counts >= fewest).sum()]
    return [(shown(str(levels[code].as_py())), codes == code) for code in common[:MOST_LEVELS]]


def _telling_level(
    levels: list[tuple[str, np.ndarray]], block: np.ndarray
) -> tuple[str, np.ndarray]:
    """The level whose share varies most from block to block."""

    def variation(level: tuple[str, np.ndarray]) -> float:
        share = np.bincount(block, level[1]) / np.bincount(block)
        varies = share.var() / max(share.mean() * (1 - share.mean()), 1e-12)
        return float(varies * np.sqrt(share.mean()))

    return max(levels, key=variation)


def _text_rank(judgement: Judgement, name: str) -> np.ndarray:
    """The place of each text among all different ones, from 0 to 1; NaN for null."""
    codes, levels = _codes(judgement, name)
    rank = np.empty(len(levels))
    rank[np.asarray(pc.array_sort_indices(levels))] = np.linspace(0, 1, len(levels))
    placed: np.ndarray = np.where(codes >= 0, rank[codes], np.nan)
    return placed


def _codes(judgement: Judgement, name: str) -> tuple[np.ndarray, pa.Array]:
    """The levels of a column, and the number of each row's; -1 for null."""
    array = judgement.sample.columns[name]
    encoded = (array if isinstance(array, pa.Array) else pa.array(array)).dictionary_encode()
    return np.asarray(encoded.indices.fill_null(-1)), encoded.dictionary


def _rows(sample: Sample) -> np.ndarray:
    """The block that each row of the sample is in."""
    return np.repeat(_blocks(sample.fragment), sample.length)


def _draw_gaps(axis: Axes, sample: Sample, n_rows: int) -> None:
    """Shade what lies behind the last row that was read of a fragment."""
    ends = np.append(sample.start[1:], n_rows)
    begins = sample.start + sample.length
    usual = np.median(ends[:-1] - begins[:-1]) if len(ends) > 1 else 0
    wide = np.flatnonzero(ends - begins > max(WIDE_GAP * n_rows, 3 * usual))
    for number in wide:
        axis.axvspan(
            begins[number], ends[number], facecolor="none", edgecolor="0.85", hatch="///",
            linewidth=0, zorder=0, label="not read (the report is on a sample)",
        )  # fmt: skip


def _draw(axis: Axes, panel: Panel, report: OrderReport, sample: Sample) -> None:
    valid = np.isfinite(panel.values)
    run_block, row_block = _blocks(sample.fragment), _rows(sample)
    counts = np.bincount(row_block, valid)
    kept = counts >= min(FEWEST_ROWS, counts.max())
    weights = sample.length * (sample.start + 0.5 * sample.length)
    place = (np.bincount(run_block, weights) / np.bincount(run_block, sample.length))[kept]
    means = np.bincount(row_block, np.where(valid, panel.values, 0.0))[kept] / counts[kept]
    mean = panel.values[valid].mean()
    half = BAND * panel.values[valid].std() / np.sqrt(np.median(counts[kept]))
    low, high = mean - half, mean + half
    if panel.is_share:
        low, high = max(low, 0.0), min(high, 100.0)
    note = ""
    if panel.column is not None:
        note = _draw_ranges(axis, report, panel.column, np.append(means, [low, high]))
    axis.axhspan(
        low, high, color="tab:blue", alpha=0.3, linewidth=0,
        label="where 99 % of the points of a shuffled table lie",
    )  # fmt: skip
    rows = np.median(np.bincount(row_block))
    points = f"mean of about {float(f'{rows:.1g}'):,.0f} rows that stand close together"
    axis.plot(place, means, ".", color="tab:red", markersize=4, label=points)
    kind = "" if panel.column is None else panel.column.type
    if kind.startswith(("timestamp", "date")):
        seconds = 86_400 if kind.startswith("date") else 1
        axis.yaxis.set_major_formatter(
            lambda value, _: str(np.datetime64(round(value * seconds), "s").astype("M8[D]"))
        )
    axis.set_ylabel(panel.label, fontsize=9)
    axis.set_title(f"{panel.title}{note}", fontsize=9, loc="left")


def _draw_ranges(axis: Axes, report: OrderReport, column: ColumnOrder, drawn: np.ndarray) -> str:
    """The ranges of row groups, or words instead where they would press the means flat."""
    ranges = report.ranges.get(column.name)
    if ranges is None or ranges.is_rank or not np.isfinite(ranges.low).any():
        return ""
    least, most = np.nanmin(ranges.low), np.nanmax(ranges.high)
    if np.ptp(drawn) <= 0.2 * (most - least) and "range" not in column.findings:
        return f" (values lie between {least:,.4g} and {most:,.4g})"
    edges = np.concatenate([[0], np.cumsum(ranges.rows)])
    axis.bar(
        edges[:-1],
        ranges.high - ranges.low,
        width=np.diff(edges),
        bottom=ranges.low,
        align="edge",
        color="0.9",
        edgecolor="0.7",
        linewidth=0.6 if len(edges) < 200 else 0.0,
        label="smallest to largest value of a row group",
    )
    return ""


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
