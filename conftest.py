"""What all tests share; the documentation's Python blocks and docstring examples are tests too."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

# Set before anything imports matplotlib: no example may open a window.
os.environ["MPLBACKEND"] = "Agg"

# And before anything imports the client of the hub: it may talk to this machine only, where a test
# may have a server at that address (see tests/hub.py).
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{free.getsockname()[1]}"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

# How long an example takes says nothing on a machine that does other things as well.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def enter_empty_directory(namespace: dict[str, Any]) -> None:
    """Give a page, whose blocks share one namespace, a working directory of its own."""
    namespace["_came_from"] = Path.cwd()
    namespace["_directory"] = tempfile.TemporaryDirectory()
    os.chdir(namespace["_directory"].name)


def leave_directory(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_came_from"])
    namespace["_directory"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/**/*.md", "docs/*.md"],
    setup=enter_empty_directory,
    teardown=leave_directory,
).pytest()


@pytest.fixture(autouse=True)
def docstring_directory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Run docstring examples in an empty directory too."""
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    came_from = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("docstring"))
    yield
    os.chdir(came_from)
