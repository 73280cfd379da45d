"""Values of options that several commands take."""

from __future__ import annotations

import argparse

__all__ = ["one_or_all", "whole"]


def one_or_all(paths: list[str]) -> str | list[str]:
    """A path, or several."""
    return paths[0] if len(paths) == 1 else paths


def whole(text: str, least: int = 1) -> int:
    """A number of rows, or of anything, with or without separators."""
    try:
        rows = int(text.replace("_", "").replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of rows, found {text!r}") from None
    if rows < least:
        needed = f"{least:,} row{'s are' if least > 1 else ' is'}"
        raise argparse.ArgumentTypeError(f"at least {needed} needed, found {rows:,}")
    return rows
