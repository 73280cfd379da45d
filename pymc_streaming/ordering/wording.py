"""What was found, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["listed", "manner", "reason", "relation", "shown", "what_of"]

_WHAT = {"values": "mean", "levels": "mix of levels", "nulls": "share of nulls"}

# Kinds of evidence, the one that says most first: how what is looked at follows the rows.
_MANNERS = {
    "trend": "drifts",
    "season": "rises and falls",
    "fragments": "differs between parts",
    "ranges": "differs between parts",
    "runs": "differs between stretches",
    "neighbours": "depends on the row before",
}


def what_of(feature: str, kind: str) -> str:
    """What of a column a feature is; numbers that stand for text are alphabetical ranks."""
    is_rank = feature == "values" and "string" in kind
    return "alphabetical rank" if is_rank else _WHAT[feature]


def manner(kinds: Sequence[str]) -> str:
    """How something follows the order of the rows, from the kinds of evidence for it."""
    return next(words for kind, words in _MANNERS.items() if kind in kinds)


def relation(columns: tuple[str, str]) -> str:
    """What the product of two columns stands for, said of the first."""
    first, second = columns
    return "spread" if first == second else f"relation to {second}"


def reason(found: Sequence[tuple[tuple[str, ...], Mapping[str, Sequence[str]]]]) -> str:
    """Why a table counts as ordered, in two short sentences.

    Parameters
    ----------
    found : sequence of (names, findings)
        Columns, and pairs of them, that follow the order, the most important first.
    """
    names, findings = found[0]
    what, kinds = next(iter(findings.items()))
    if len(names) == 1:
        subject = f"The {what} of column {names[0]!r}"
    elif names[0] == names[1]:
        subject = f"The spread of column {names[0]!r}"
    else:
        subject = f"The relation of columns {names[0]!r} and {names[1]!r}"
    others = [repr(other[0]) for other, _ in found[1:] if len(other) == 1]
    more = ""
    if others:
        many = len(others) > 1
        more = (
            f" Column{'s' * many} {listed(others)} follow{'s' * (not many)} the order of the rows "
            "too."
        )
    return f"{subject} {manner(kinds)}.{more}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names in a sentence, the first `most` of them."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def shown(name: str) -> str:
    """A name that is safe to print."""
    return name if name.isprintable() else repr(name)
