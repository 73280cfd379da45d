"""Tables and pictures of a record, beside its file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from benchmarks.recording import Results, Row, write_text

# The processes whose memory is measured import this too: matplotlib comes when something is drawn.
if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = "matplotlib.figure.Figure"

# Okabe and Ito's colours, told apart by all kinds of colour vision; shapes say the same again.
BLUE, VERMILION, GREEN, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#555555"


@dataclass(frozen=True)
class Table:
    """Headers and rows of text."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """A pipe table under its title; numbers to the right."""
        aligned = [
            "---:" if index and all(_is_number(row[index]) for row in self.rows) else "---"
            for index in range(len(self.headers))
        ]
        lines = [_line(self.headers), _line(aligned), *map(_line, self.rows)]
        return "\n".join(([f"**{self.title}**", ""] if self.title else []) + lines)


def tables(module: ModuleType, results: Results) -> list[Table]:
    """Those that the benchmark makes, or one for each part with all there is."""
    make = getattr(module, "tables", None)
    if make is not None:
        return make(results)
    return plain_tables(results, getattr(module, "FORMATS", {}))


def plain_tables(results: Results, formats: Mapping[str, str] | None = None) -> list[Table]:
    """A table for each part: what was measured, and what was found."""
    made = []
    for part in results.parts:
        rows = results.rows(part)
        keys = list(dict.fromkeys(key for row in rows for key in row.of))
        names = list(dict.fromkeys(name for row in rows for name in row.found))
        cells = [
            [text(row.of.get(key, "")) for key in keys]
            + [spread(row, name, (formats or {}).get(name, "")) for name in names]
            for row in rows
        ]
        title = part if len(results.parts) > 1 else ""
        made.append(Table(title, [name.replace("_", " ") for name in (*keys, *names)], cells))
    return made


def text(value: Any, form: str = "") -> str:
    """A value, in a table."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if form:
        return format(value, form)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread(row: Row, name: str, form: str = "") -> str:
    """The median, with the smallest and the largest where there are several."""
    values = row.found.get(name, [])
    if len(values) < 2 or not row.numbers(name):
        return text(values[-1] if values else None, form)
    low, high = row.range(name)
    return f"{text(row.median(name), form)} ({text(low, form)} to {text(high, form)})"


def write_report(module: ModuleType, results: Results, folder: Path) -> None:
    """NAME.md and NAME.png."""
    name = results.record["benchmark"]
    parts = [table.markdown() for table in tables(module, results)]
    write_text(folder / f"{name}.md", "\n\n".join([conditions(results), *parts]) + "\n")
    picture = folder / f"{name}.png"
    temporary = picture.with_name(f".{picture.name}")
    save(module.draw(results), temporary)
    temporary.replace(picture)


def conditions(results: Results) -> str:
    """The commands, the machine, the versions and the seeds, in Markdown."""
    record = results.record
    machine, seeds = record["machine"], record["seeds"]
    versions = ", ".join(f"{package} {number}" for package, number in record["versions"].items())
    settings = "".join(f", `{key}={value}`" for key, value in machine["settings"].items())
    first, count = seeds["first"], seeds["count"]
    numbers = f"Seed {first}" if count == 1 else f"Seeds {first} to {first + count - 1:,}"
    day = record["started"][:10]
    commands = "\n".join([*record.get("commands_before", []), record["command"]])
    return (
        f"```sh\n{commands}\n```\n\n"
        f"On {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 2**30:.1f} GiB of memory, {machine['kernel']}{settings}; "
        f"Python {machine['python']}, {versions}. {numbers}, {day}."
    )


def new_figure(rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Panels as an array of two dimensions."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(rows, columns, squeeze=False, layout="constrained", **options)
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    return figure, panels


def dots(axes: Any, rows: Sequence[Row], labels: Sequence[str], name: str, **style: Any) -> None:
    """The median of each row from top to bottom, with a line from the smallest to the largest."""
    for place, row in enumerate(rows):
        axes.plot(row.range(name), [place, place], color=style.get("color", BLUE), linewidth=1)
    middles = [row.median(name) for row in rows]
    axes.plot(middles, range(len(rows)), linestyle="", **{"color": BLUE, "marker": "o", **style})
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)


def save(figure: Figure, path: Path) -> None:
    """Small enough to be kept with the documentation."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, format="png", metadata={"Software": None})
    plt.close(figure)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell in ("–", "") or cell[:2].lstrip("-×")[:1].isdigit()
