"""What was found, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pymc_streaming.ordering.judge import COLUMN_LEVEL, Judgement
from pymc_streaming.ordering.records import OrderReport, RelationOrder

__all__ = ["findings", "listed", "manner", "reason", "relation", "shown", "telling_relations"]

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


def findings(judgement: Judgement, name: str, kind: str) -> dict[str, tuple[str, ...]]:
    """What of a column follows the order, and the kinds of evidence for it, the clearest first.

    Parameters
    ----------
    judgement : Judgement
        On the table.
    name, kind : str
        The column, and its type.
    """
    tested = [f for evidence in judgement.columns.values() for f in evidence.features]
    level = COLUMN_LEVEL / max(1, sum(len(feature.tests) for feature in tested))
    features = [feature for feature in judgement.columns[name].features if feature.tests]
    features.sort(key=lambda feature: min(test.p_value for test in feature.tests))
    found = {}
    for feature in features:
        kinds = [test.kind for test in feature.tests if test.p_value < level]
        # Numbers that stand for text are alphabetical ranks.
        is_rank = feature.what == "values" and "string" in kind
        what = "alphabetical rank" if is_rank else _WHAT[feature.what]
        if kinds:
            found[what] = tuple(dict.fromkeys(kinds))
    if not found and judgement.follows_ranges(name):
        found["range"] = ("ranges",)
    return found


def manner(kinds: Sequence[str]) -> str:
    """How something follows the order of the rows, from the kinds of evidence for it."""
    return next(words for kind, words in _MANNERS.items() if kind in kinds)


def relation(columns: tuple[str, str]) -> str:
    """What the product of two columns stands for, said of the first."""
    first, second = columns
    return "spread" if first == second else f"relation to {second}"


def telling_relations(report: OrderReport) -> list[RelationOrder]:
    """Relations of columns none of which is known to drift by itself: theirs drift as well."""
    drifting = {c.name for c in report.columns if c.ordered and "range" not in c.findings}
    return [product for product in report.relations if not drifting & set(product.columns)]


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
