"""A picture of a diagnosis: steps, changes of scales, shrinkage, and importance weights."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from pymc_streaming.diagnosis.judge import MOST_LOG_SCALE, MOST_SHRINKAGE, MOST_STEP
from pymc_streaming.diagnosis.records import Diagnosis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

# Parameters that are named on an axis, at most; and in a panel, of those outside its band.
_MOST_NAMES, _MOST_OUTSIDE = 12, 3


def draw(d: Diagnosis) -> Figure:
    """The figure of `Diagnosis.plot`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [
        (draw_one, values)
        for draw_one, values in (
            (_steps, d.step),
            (_scales, d.log_scale),
            (_shrinkage, d.shrinkage),
        )
        if values is not None
    ]
    figure = Figure(figsize=(9, 1.2 + 2.3 * (len(panels) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels) + 1, 1, squeeze=False)[:, 0]
    for axis, (draw_one, values) in zip(axes, panels, strict=False):
        draw_one(axis, d, values)
    _weights(axes[-1], d)
    kinds = ", ".join(finding.kind.value for finding in d.findings)
    title = "Trusted" if d.trusted else textwrap.shorten(f"Not trusted: {kinds}", 110)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _steps(axis: Axes, d: Diagnosis, values: np.ndarray) -> None:
    title = f"Newton step of the means (band: {MOST_STEP} standard deviations)"
    _panel(axis, d, values, title, "posterior sd", (-MOST_STEP, MOST_STEP))


def _scales(axis: Axes, d: Diagnosis, values: np.ndarray) -> None:
    title = (
        "factor by which standard deviations would change, logarithm "
        f"(band: {MOST_LOG_SCALE:.0%} either way)"
    )
    _panel(axis, d, values, title, "log factor", (-MOST_LOG_SCALE, MOST_LOG_SCALE))


def _shrinkage(axis: Axes, d: Diagnosis, values: np.ndarray) -> None:
    title = (
        "standard deviation with correlations over that of independent normals "
        f"(band: up to {MOST_SHRINKAGE})"
    )
    _panel(axis, d, values, title, "ratio", (1.0, MOST_SHRINKAGE))


def _panel(
    axis: Axes,
    d: Diagnosis,
    values: np.ndarray,
    title: str,
    unit: str,
    band: tuple[float, float],
) -> None:
    """A point for each parameter, and the names of some that are outside the band."""
    axis.axhspan(*band, color="tab:blue", alpha=0.3, linewidth=0)
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_ylabel(unit, fontsize=9)
    axis.plot(np.arange(len(values)), values, ".", color="tab:red", markersize=4)
    if len(values) <= _MOST_NAMES:
        axis.set_xticks(np.arange(len(values)), d.parameters, fontsize=8)
        return
    axis.set_xlabel("parameter", fontsize=9)
    beyond = np.maximum(band[0] - values, values - band[1])
    for index in np.argsort(-beyond)[:_MOST_OUTSIDE]:
        if beyond[index] > 0:
            left = index > len(values) / 2
            axis.annotate(
                d.parameters[index],
                (index, values[index]),
                xytext=(-4 if left else 4, 0),
                textcoords="offset points",
                ha="right" if left else "left",
                va="center",
                fontsize=8,
            )


def _weights(axis: Axes, d: Diagnosis) -> None:
    axis.set_title(
        f"importance ratios (k-hat {d.k_hat:.2f}, reliable up to {d.k_threshold:.2f})",
        fontsize=9,
        loc="left",
    )
    ratios = np.sort(d.log_ratios[np.isfinite(d.log_ratios)])
    quantiles = stats.norm.ppf((np.arange(len(ratios)) + 0.5) / max(len(ratios), 1))
    middle = np.median(ratios) if len(ratios) else 0.0
    axis.plot(quantiles, ratios - middle, ".", color="tab:red", markersize=4)
    axis.axhline(0.0, color="0.7", linewidth=0.8)
    axis.set_xlabel("draw, as a normal quantile", fontsize=9)
    axis.set_ylabel("log ratio less median, nats", fontsize=9)
