"""Which way a fit goes over its table: decided by the memory that each way takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pymc_streaming.arguments import in_words
from pymc_streaming.limits import MemoryLimit

__all__ = ["STRATEGIES", "Plan", "Way", "choose"]

#: Values of ``Trainer(strategy=)``.
STRATEGIES = ("auto", "in_memory", "accumulate", "streaming")


@dataclass(frozen=True)
class Way:
    """One way to make a fit, and what it takes.

    Parameters
    ----------
    strategy : str
        As for `Plan`.
    block_rows, sample_rows : int
        As for `Plan`.
    parts : mapping of str to int
        As for `Plan`.
    remark : str, default ""
        Why it takes that, or how it differs from the way before.
    """

    strategy: str
    block_rows: int
    sample_rows: int
    parts: Mapping[str, int]
    remark: str = ""

    @property
    def nbytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Plan:
    """How a fit goes over its table, and why; made by :meth:`Trainer.plan`.

    ``str(plan)`` is one line.

    Parameters
    ----------
    strategy : {"in_memory", "streaming", "accumulate"}
        ``in_memory``: the rows are read once, and stay in memory. ``streaming``: stochastic steps
        on batches. ``accumulate``: exact passes, each of which reads the table block by block and
        adds up the gradient over all rows.
    n_rows : int
        Rows N of the table.
    parts : mapping of str to int
        Estimated bytes at the peak, by what takes them.
    limit_bytes : int
        What the process may take.
    limit_source : str
        Where the limit comes from.
    block_rows : int
        Rows that are read together.
    sample_rows : int
        Rows that are fitted first; 0 for stochastic steps.
    reason : str
        Why this strategy, in words.
    is_fallback : bool
        Whether another one was asked for.

    Examples
    --------
    >>> from pymc_streaming import Plan
    >>> plan = Plan("accumulate", 10**9, {"process now": 400 * 2**20, "sample": 2**26},
    ...             2**30, "memory_limit", 74_880, 500_000, "it fits", False)
    >>> plan.peak_bytes // 2**20, plan.fits
    (464, True)
    """

    strategy: str
    n_rows: int
    parts: Mapping[str, int] = field(hash=False)
    limit_bytes: int
    limit_source: str
    block_rows: int
    sample_rows: int
    reason: str
    is_fallback: bool

    @property
    def peak_bytes(self) -> int:
        """Estimated peak of the process's memory."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether that is within the limit."""
        return self.peak_bytes <= self.limit_bytes

    def __str__(self) -> str:
        return (
            f"strategy {self.strategy}: {self.n_rows:,} rows, estimated peak "
            f"{in_words(self.peak_bytes)}, limit {in_words(self.limit_bytes)} "
            f"({self.limit_source}), blocks of {self.block_rows:,} rows; {self.reason}"
        )


def choose(asked: str, ways: Sequence[Way], n_rows: int, limit: MemoryLimit) -> Plan:
    """The first way that fits; if none does, the last.

    Parameters
    ----------
    asked : str
        What the caller asked for; the first of `ways` is that, or for "auto" the best.
    ways : sequence of Way
        From most memory to least.
    n_rows : int
        Rows of the table.
    limit : MemoryLimit
        What may be taken.
    """
    reasons: list[str] = []
    tried: set[str] = set()
    for way in ways:
        if fits := way.nbytes <= limit.nbytes:
            break
        if way.strategy not in tried:  # a smaller sample takes little less
            reasons.append(f"{_described(way, ways)} would take {in_words(way.nbytes)}")
        tried.add(way.strategy)
    if not fits:
        reasons.append(f"{_described(way, ways)} takes least, and exceeds the limit")
    elif reasons:
        reasons.append(f"{_described(way, ways)} fits")
    else:
        reasons.append("it fits" if asked == "auto" else "as asked for, and it fits")
        reasons += [way.remark] if way.remark else []
    return Plan(
        way.strategy,
        n_rows,
        dict(way.parts),
        limit.nbytes,
        limit.source,
        way.block_rows,
        way.sample_rows,
        ", ".join(reasons),
        asked not in ("auto", way.strategy),
    )


def _described(way: Way, ways: Sequence[Way]) -> str:
    """Its strategy, and where several have that, what is special about it."""
    same = [other for other in ways if other.strategy == way.strategy]
    return f"{way.strategy} {way.remark}" if way is not same[0] else way.strategy
