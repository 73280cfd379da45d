"""What a run measures: on disk from the first repetition on, and read back from there."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import statistics
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from benchmarks import BenchmarkError

PACKAGES = (
    "pymc-streaming", "pymc", "pytensor", "numba", "numpy", "pyarrow", "pymc-extras", "numpyro",
    "jax", "duckdb", "polars", "scikit-learn",
)  # fmt: skip
#: Of the environment, what changes how much of a machine is used.
SETTINGS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS", "XLA_FLAGS", "JAX_PLATFORMS",
)  # fmt: skip
#: In the name of a file: this run is not finished.
PARTIAL = ".partial.json"


def machine() -> dict[str, Any]:
    """Processor, cores, memory and system."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def versions() -> dict[str, str]:
    """Of the packages that take part, where they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def command_line(name: str, arguments: Sequence[str]) -> str:
    """The command; of a place on this machine only its own name is kept."""
    words = [f"PATH/{Path(word).name}" if Path(word).is_absolute() else word for word in arguments]
    return shlex.join(["python", "-m", "benchmarks", name, *words])


class Recording:
    """The record of a run, written anew with every repetition.

    Until `finish` it is NAME.partial.json, so that an interrupted run keeps what it has and does
    not replace a finished one.
    """

    def __init__(
        self, name: str, folder: Path, options: Namespace, arguments: Sequence[str] = ()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.json"
        self.partial = folder / f"{name}{PARTIAL}"
        plain = {
            key: value.name if isinstance(value, Path) else value
            for key, value in vars(options).items()
            if key != "output"
        }
        self.record: dict[str, Any] = {
            "benchmark": name,
            "command": command_line(name, arguments),
            "started": _now(),
            "finished": None,
            "machine": machine(),
            "versions": versions(),
            "seeds": {"first": plain.get("seed", 0), "count": plain.get("seeds", 1)},
            "options": plain,
            "summary": [],
            "measurements": [],
        }

    def add(self, part: str, of: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Keep what one repetition of a part found; repetitions of one thing have equal `of`."""
        measurement = {"part": part, "of": dict(of), "found": dict(found)}
        # Through JSON, so that what is summed up here is what a reader of the file finds.
        self.record["measurements"].append(json.loads(_json(measurement)))
        print(
            f"{part}: " + ", ".join(f"{k}={_short(v)}" for k, v in {**of, **found}.items()),
            flush=True,
        )
        self._write(self.partial)

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Take over what the finished run before measured of what is wanted."""
        if not self.path.exists():
            raise BenchmarkError(f"There is no {self.path.name} to keep anything of.")
        before = json.loads(self.path.read_text("utf-8"))
        found, now = _conditions(before), _conditions(self.record)
        if found != now:
            raise BenchmarkError(
                f"{self.path.name} cannot be kept: it was measured on {found}; this is {now}."
            )
        self.record["measurements"] += [m for m in before["measurements"] if wanted(m["of"])]
        self.record["commands_before"] = [*before.get("commands_before", []), before["command"]]

    def results(self) -> Results:
        """What there is so far."""
        return Results(self.record)

    def finish(self) -> None:
        """Take the place of the record of the run before."""
        self.record["finished"] = _now()
        self._write(self.path)
        self.partial.unlink(missing_ok=True)

    def _write(self, path: Path) -> None:
        self.record["summary"] = self.results().summary()
        write_text(path, _json(self.record, indent=1) + "\n")


@dataclass(frozen=True)
class Row:
    """All repetitions of one thing."""

    of: dict[str, Any]
    found: dict[str, list[Any]]

    def numbers(self, name: str) -> list[float]:
        """The values that are there."""
        values = self.found.get(name, [])
        return [value for value in values if isinstance(value, int | float)]

    def median(self, name: str) -> float:
        """Of the repetitions; NaN if there are none."""
        values = self.numbers(name)
        return statistics.median(values) if values else math.nan

    def range(self, name: str) -> tuple[float, float]:
        """Smallest and largest."""
        values = self.numbers(name) or [math.nan]
        return min(values), max(values)


class Results:
    """A record, by part and by what was measured."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self._rows: dict[str, dict[str, Row]] = {}
        for measurement in record["measurements"]:
            rows = self._rows.setdefault(measurement["part"], {})
            row = rows.setdefault(json.dumps(measurement["of"]), Row(measurement["of"], {}))
            for name, value in measurement["found"].items():
                row.found.setdefault(name, []).append(value)

    @classmethod
    def read(cls, path: Path) -> Results:
        """From the file of a run."""
        return cls(json.loads(path.read_text("utf-8")))

    @property
    def parts(self) -> list[str]:
        """In the order in which they were measured."""
        return list(self._rows)

    def rows(self, part: str, **of: Any) -> list[Row]:
        """Those of a part, or of these with the given keys."""
        rows = self._rows.get(part, {}).values()
        return [row for row in rows if all(row.of.get(key) == v for key, v in of.items())]

    def keys(self, part: str, name: str) -> list[Any]:
        """The values of one key, each once, as they came."""
        return list(dict.fromkeys(row.of[name] for row in self.rows(part) if name in row.of))

    def summary(self) -> list[dict[str, Any]]:
        """Median, smallest and largest of all repetitions of each thing."""
        return [
            {
                "part": part,
                "of": row.of,
                "found": {
                    name: {
                        "repetitions": len(row.numbers(name)),
                        "median": row.median(name),
                        "smallest": row.range(name)[0],
                        "largest": row.range(name)[1],
                    }
                    for name in row.found
                    if row.numbers(name)
                },
            }
            for part in self.parts
            for row in self.rows(part)
        ]


def write_text(path: Path, text: str) -> None:
    """Under another name first: whoever reads `path` finds the old text or the new one, whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"{len(value)} values"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _conditions(record: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for figures that stand in one table."""
    machine = record["machine"]
    return {"processor": machine["processor"], "cores": machine["cores"], **record["versions"]}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
