"""The one entry point: ``python -m benchmarks NAME``."""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import BenchmarkError
from benchmarks.recording import Recording

NAMES = (
    "speed", "reading", "first_step", "memory", "plan", "shuffle", "criteo", "accuracy", "suite",
    "flights", "shuffle_uniformity", "order_report", "order_drift", "mixing",
)  # fmt: skip
FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
SUFFIXES = (".json", ".md", ".png")
# What an option means, where the benchmark does not say it itself.
MEANINGS = {
    "batch_size": "rows of a batch",
    "batch_sizes": "rows of a batch, one or more",
    "contestants": "what is compared, as listed above",
    "models": "which models",
    "precision": "PyTensor's floatX",
    "precisions": "PyTensor's floatX, one or both",
    "rounds": "how often each is measured; the median counts",
    "rows": "rows of the table",
    "seed": "of tables, orders and draws",
    "steps": "of a fit",
}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and the defaults."""


def description(name: str) -> tuple[str, str]:
    """What a benchmark is: in a line, and in full."""
    source = (FOLDER / f"{name}.py").read_text("utf-8")
    line, _, rest = (ast.get_docstring(ast.parse(source)) or "").partition("\n")
    return line, rest.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """List, run, or write pages; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    name, *rest = words
    if name == "docs":
        from benchmarks import pages

        return pages.main(rest)
    if name not in NAMES:
        print(f"There is no benchmark {name!r}.\n\n{overview()}", file=sys.stderr)
        return 2
    return run(name, rest)


def overview() -> str:
    """The list of what there is."""
    lines = [
        "python -m benchmarks NAME [options]    measures, and writes JSON, a table and a picture",
        "python -m benchmarks NAME --help       says what is compared, and the options",
        "python -m benchmarks docs              writes docs/benchmarks from the results\n",
    ]
    width = max(map(len, NAMES))
    return "\n".join(lines + [f"  {name:{width}}  {description(name)[0]}" for name in NAMES])


def run(name: str, arguments: Sequence[str]) -> int:
    """Measure, record, report."""
    line, rest = description(name)
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=f"{line}\n\n{rest}",
        formatter_class=HelpFormatter,
    )
    try:
        module = importlib.import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        print(f"{error}. Install what is compared: pip install '.[bench]'", file=sys.stderr)
        return 1
    module.add_options(parser)
    for action in parser._actions:
        action.help = action.help or MEANINGS.get(action.dest, "")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(arguments)
    for option in ("rounds", "rows", "seconds"):
        values = getattr(options, option, None) or 1
        if min(values if isinstance(values, list) else [values]) <= 0:
            parser.error(f"--{option} must be more than 0")
    from benchmarks import report

    recording = Recording(name, options.output, options, arguments)
    try:
        module.run(options, recording)
    except KeyboardInterrupt:
        if recording.record["measurements"]:
            for table in report.tables(module, recording.results()):
                print(f"\n{table.markdown()}")
            print(f"\nInterrupted; what was measured is in {recording.partial}", file=sys.stderr)
        return 130
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    recording.finish()
    results = recording.results()
    report.write_report(module, results, options.output)
    for table in report.tables(module, results):
        print(f"\n{table.markdown()}")
    print(f"\nWritten: {', '.join(f'{recording.path.with_suffix(s)}' for s in SUFFIXES)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
