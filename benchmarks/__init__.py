"""Scripts that measure; run one with ``python -m benchmarks.NAME``."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version

PACKAGES = ("pymc-streaming", "pymc", "pytensor", "numba", "numpy", "pyarrow")


def conditions() -> str:
    """The command, the machine and the versions, in a line."""
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    command = " ".join(["python", "-m", sys.modules["__main__"].__spec__.name, *sys.argv[1:]])
    return (
        f"`{command}`; {os.cpu_count()} cores, {platform.machine()}, Python "
        f"{platform.python_version()}, {versions}\n"
    )
