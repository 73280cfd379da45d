"""The pages of docs/benchmarks: an index, and for each result its table, its picture and words."""

from __future__ import annotations

import argparse
import importlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.__main__ import FOLDER, NAMES, RESULTS, description
from benchmarks.recording import Results, write_text

PAGES = FOLDER.parent / "docs" / "benchmarks"


def main(arguments: Sequence[str]) -> int:
    """Write all pages."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks docs", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--output", type=Path, default=PAGES, help="folder of the pages")
    options = parser.parse_args(arguments)
    if options.results != RESULTS and not options.results.is_dir():
        parser.error(f"{options.results} is no folder")
    options.output.mkdir(parents=True, exist_ok=True)
    made = pages(options.results)
    for name, text in made.items():
        write_text(options.output / name, text)
        picture = Path(name).with_suffix(".png")
        if (options.results / picture).exists():
            shutil.copyfile(options.results / picture, options.output / picture)
    print(f"{len(made)} pages in {options.output}")
    return 0


def pages(folder: Path) -> dict[str, str]:
    """The text of each page by the name of its file, from the results in a folder."""
    there = [name for name in NAMES if (folder / f"{name}.json").exists()]
    made = {f"{name}.md": page(Results.read(folder / f"{name}.json")) for name in there}
    return {"index.md": index(there)} | made


def index(names: Sequence[str]) -> str:
    """What was measured, and how to measure it again."""
    lines = [f"- [{_title(name)}]({name}.md): {_summary(name)}" for name in names]
    if not names:
        lines = ["There are no results yet."]
    missing = [f"`{name}`" for name in NAMES if name not in names]
    if missing and names:
        lines += ["", f"Without a page here: {', '.join(missing)}."]
    tree = ["", "```{toctree}", ":hidden:", "", *names, "```"] if names else []
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "Each page was generated from a file of results, which has every repetition, by",
            "`python -m benchmarks docs`; it names the machine, the versions and the command.",
            "Compare figures within one page only: from run to run they vary by 30 %, ratios less.",
            "",
            *lines,
            "",
            "`python -m benchmarks` lists them, `python -m benchmarks NAME --help` says what one",
            "compares, and `make bench` runs those that need no data of their own. Results are in",
            "`benchmarks/results`.",
            *tree,
            "",
        ]
    )


def page(results: Results) -> str:
    """What was compared, where and how, the tables, the picture, and how to read them."""
    name = results.record["benchmark"]
    module = importlib.import_module(f"benchmarks.{name}")
    line, rest = description(name)
    tables = [table.markdown() for table in report.tables(module, results)]
    return (
        "\n\n".join(
            [
                f"# {_title(name)}",
                line,
                "## What is compared",
                _prose(rest),
                "## How it was measured",
                report.conditions(results),
                "## Result",
                *tables,
                f"![{_title(name)}]({name}.png)",
                "## How to read it",
                module.READING,
            ]
        )
        + "\n"
    )


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _summary(name: str) -> str:
    line = description(name)[0]
    return line[0].lower() + line[1:]


def _prose(text: str) -> str:
    """Paragraphs as they are; a list of terms, set in columns, as it stands."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        in_columns = len(lines) > 1 and any("  " in line for line in lines)
        paragraphs.append(f"```text\n{paragraph}\n```" if in_columns else paragraph)
    return "\n\n".join(paragraphs)
