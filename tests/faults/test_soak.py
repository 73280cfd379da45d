"""A short version of ``python -m tests.faults.soak``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_nothing_grows() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults.soak", "--steps", "200000"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "200,000 steps" in ended.stdout
