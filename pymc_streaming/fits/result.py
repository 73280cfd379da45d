"""How a fit until convergence ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pymc_streaming.sources.skipped import SkippedFile, in_words
from pymc_streaming.vi.status import Moved, Status

__all__ = ["FitResult"]


@dataclass(frozen=True, slots=True)
class FitResult:
    """How a fit until convergence ended. ``str(result)`` is one line.

    Parameters
    ----------
    status : Status
        How; ``status.value`` names the cause, and what to change.
    passes : int
        Passes over all rows; begun ones, of a fit in steps.
    rows : int
        Rows that were gone over, on disk or in memory, with those for the sample.
    seconds : float
        Without compilation.
    trail : tuple of Moved
        For each pass, how far it moved the parameters, in posterior standard deviations, but for
        passes that were made for the scales alone; for each round of steps, how far off its
        averages may be.
    n_modes : int
        Modes that were found from several starts on a part of the sample. The fit describes one.
    skipped : tuple of SkippedFile
        Damaged files whose rows the fit lacks, because they were to be left out.
    """

    status: Status
    passes: int
    rows: int
    seconds: float
    trail: tuple[Moved, ...]
    n_modes: int = 1
    skipped: tuple[SkippedFile, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All of this, as JSON can hold it."""
        plain = asdict(self)
        return plain | {"status": self.status.name}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> FitResult:
        """The result that `to_dict` gave."""
        trail = tuple(Moved(**moved) for moved in plain["trail"])
        skipped = tuple(SkippedFile(**each) for each in plain["skipped"])
        status = Status[plain["status"]]
        return cls(**{**plain, "status": status, "trail": trail, "skipped": skipped})

    @property
    def converged(self) -> bool:
        """Whether the parameters came to rest."""
        return self.status.converged

    def __str__(self) -> str:
        passes = "1 pass" if self.passes == 1 else f"{self.passes} passes"
        lacks = f" {in_words(self.skipped)}." if self.skipped else ""
        return f"{passes}, {self.rows:,} rows, {self.seconds:.1f} s. {self.status.value}{lacks}"
