"""Warnings that point at the user's own line."""

from __future__ import annotations

import warnings
from pathlib import Path

from pymc_streaming.errors import StreamingWarning

__all__ = ["warn"]

_HERE = str(Path(__file__).parent)


def warn(message: str, category: type[StreamingWarning]) -> None:
    """Warn, of the line outside of the package from which it was called."""
    warnings.warn(message, category, stacklevel=2, skip_file_prefixes=(_HERE,))
