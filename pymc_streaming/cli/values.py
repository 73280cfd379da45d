"""Values of options that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from pymc_streaming.errors import ArgumentError

__all__ = ["checked", "one_or_all", "whole"]


def checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """Text for which `check` raises no `ArgumentError`."""

    def text_of(text: str) -> str:
        try:
            check(text)
        except ArgumentError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return text_of


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
