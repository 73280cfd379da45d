"""Values of options that several commands take."""

from __future__ import annotations

import argparse

__all__ = ["one_or_all", "whole"]


def one_or_all(paths: list[str]) -> str | list[str]:
    """A path, or several."""
    return paths[0] if len(paths) == 1 else paths


def whole(text: str, least: int = 1, of: str = "rows") -> int:
    """A number of rows, or of something else, with or without separators."""
    try:
        number = int(text.replace("_", "").replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of {of}, found {text!r}") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"expected {least:,} {of} or more, found {number:,}")
    return number
