"""Pictures of order: a deck of cards, rows in an epoch, errors of fits."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np

from benchmarks.report import BLUE, GREEN, GREY, ORANGE, VERMILION, Figure
from pymc_streaming import DataLoader

mpl.use("Agg")
import matplotlib.pyplot as plt

SUITS = [("♠", "#000000"), ("♥", VERMILION), ("♣", BLUE), ("♦", ORANGE)]
STYLES = [
    {"color": VERMILION, "marker": "o", "linestyle": "-"},
    {"color": ORANGE, "marker": "s", "linestyle": "--"},
    {"color": BLUE, "marker": "^", "linestyle": "-."},
    {"color": GREEN, "marker": "D", "linestyle": "-"},
    {"color": GREY, "marker": "", "linestyle": ":"},
]


def draw_deck() -> Figure:
    """A deck sorted by suit, dealt in hands of four by a loader that shuffles more or less."""
    deck = np.arange(52)
    ways = {
        "Not shuffled": {},
        "16 cards\nshuffled at a time": {"shuffle": True, "buffer_size": 16},
        "The whole deck shuffled": {"shuffle": True, "buffer_size": 52},
    }
    figure, panels = plt.subplots(1, 3, figsize=(8, 6), layout="constrained")
    for axes, (title, options) in zip(panels, ways.items(), strict=True):
        loader = DataLoader(deck, batch_size=4, seed=0, **options)
        for hand, batch in enumerate(loader):
            for place, card in enumerate(batch["batch"].astype(int)):
                sign, colour = SUITS[card // 13]
                axes.add_patch(
                    plt.Rectangle(
                        (place + 0.06, hand + 0.06), 0.88, 0.88, facecolor=colour, alpha=0.22
                    )
                )
                axes.text(
                    place + 0.5, hand + 0.52, sign, color=colour, size=17, ha="center", va="center"
                )
        axes.set(xlim=(0, 4), ylim=(13, 0), xticks=[], title=title)
        axes.set_yticks(np.arange(13) + 0.5, [f"hand {hand + 1}" for hand in range(13)])
        axes.tick_params(length=0, labelleft=axes is panels[0])
        axes.spines[:].set_visible(False)
    figure.suptitle("A deck sorted by suit, dealt in hands of four", size=14)
    return figure


def draw_mixing(orders: Mapping[tuple[str, str], np.ndarray]) -> Figure:
    """Where in the table the rows of an epoch come from."""
    ways = {
        "none": "in order",
        "consecutive": "buffer filled in order",
        "random": "… with fragments\nin random order",
        "even": "… with fragments\nin even order (the loader)",
        "whole table": "whole table shuffled",
    }
    layouts = list(dict.fromkeys(layout for layout, _ in orders))
    figure, panels = plt.subplots(
        len(layouts), len(ways), figsize=(11, 5), sharex=True, sharey=True, layout="constrained"
    )
    generator = np.random.default_rng(0)
    for axes, title in zip(panels[0], ways.values(), strict=True):
        axes.set_title(title, size=10)
    for row, layout in zip(panels, layouts, strict=True):
        for axes, way in zip(row, ways, strict=True):
            rows = orders[layout, way]
            place = generator.choice(len(rows), 2_500, replace=False)
            axes.plot(
                place / len(rows),
                rows[place] / len(rows),
                ".",
                color=BLUE,
                markersize=1.5,
                alpha=0.7,
            )
            axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        row[0].set_ylabel(f"{layout}\nplace in the table")
    figure.supxlabel("place in the epoch")
    return figure


def draw_errors(
    panels: Mapping[str, Mapping[str, tuple[list[float], list[float]]]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    xscale: str = "linear",
) -> Figure:
    """Errors by table or by number of passes: a panel, and in it a line for each way to shuffle."""
    figure, row = plt.subplots(
        1,
        len(panels),
        figsize=(max(7.5, 3.6 * len(panels)), 4.6),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, (heading, lines) in zip(row[0], panels.items(), strict=True):
        for (name, (x, y)), style in zip(lines.items(), STYLES, strict=True):
            axes.plot(x, y, label=name, linewidth=1.8, markersize=6, **style)
        axes.set(xscale=xscale, yscale="log", xlabel=xlabel, title=heading)
        axes.set_xticks(x, [f"{round(value, 1):g}" for value in x])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(axis="y", color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    row[0][0].set_ylabel(ylabel)
    figure.suptitle(title, size=13)
    handles, labels = row[0][0].get_legend_handles_labels()
    columns = 3 if len(panels) > 1 else 2
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure
