"""What the passes of a fit found, so that it can be made again without them.

A fit in exact passes is a function of where it begins and of what its passes add up. So that is
all there is to keep of it: made again from its beginning, it takes from here what was added up
before, reads the rest of the table, and comes to the same end, to the last bit.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pymc_streaming.checkpoints import State, random_state, set_random_state
from pymc_streaming.vi.guides import Guide
from pymc_streaming.vi.passes import OtherPoints, Sum

__all__ = ["Journal"]

logger = logging.getLogger("pymc_streaming")

_Sums = list[Mapping[str, np.ndarray]]


class Journal:
    """The beginning of a fit, and the sums of its passes so far.

    Parameters
    ----------
    guide : Guide
        Where the fit begins.
    random : numpy.random.Generator
        Where its randomness comes from.
    sample_rows : int
        Rows that are fitted first.

    Attributes
    ----------
    sample_rows
        As given.
    """

    def __init__(self, guide: Guide, random: np.random.Generator, sample_rows: int) -> None:
        self.sample_rows = sample_rows
        self._location, self._scales = guide.location.copy(), guide.scales.copy()
        self._random = random_state(random)
        self._passes: list[_Sums] = []
        self._partial: tuple[int, _Sums] = 0, []  # rows and sums of a pass, from a state
        self._begun: tuple[int, Sequence[Sum]] = 0, []  # of the one that is being made
        self._number = -1

    @property
    def has_sums(self) -> bool:
        """Whether anything was added up."""
        return bool(self._passes or self._partial[1])

    def rewind(self, guide: Guide, random: np.random.Generator) -> None:
        """Go back to the beginning."""
        guide.location[:], guide.scales[:] = self._location, self._scales
        set_random_state(random, self._random)
        self._number = -1

    def begin_pass(self, sums: Sequence[Sum], n_rows: int) -> int:
        """The next pass begins: give `sums` what it had added up.

        Returns
        -------
        int
            Rows that need not be gone over.
        """
        self._number += 1
        is_known = self._number < len(self._passes)
        rows, known = (n_rows, self._passes[self._number]) if is_known else self._partial
        try:
            for each, state in zip(sums, known, strict=bool(known)):
                each.load(state)
        except OtherPoints:
            logger.warning(
                "Pass %s was at other points before, by another processor or other versions of "
                "libraries. It is made anew.",
                self._number + 1,
            )
            del self._passes[self._number :]
            rows = 0
        if self._number == len(self._passes):
            self._begun, self._partial = (rows, sums), (0, [])
            if rows == n_rows:  # all of them, but the pass had not been said to be over
                self.end_pass()
        return rows

    def read(self, count: int) -> None:
        """The sums have so many more rows."""
        rows, sums = self._begun
        self._begun = rows + count, sums

    def end_pass(self) -> None:
        """They have all."""
        self._passes.append([each.state() for each in self._begun[1]])
        self._begun = 0, []

    def state(self) -> State:
        """All of this."""
        rows, begun = self._begun
        partial = (rows, [each.state() for each in begun]) if begun else self._partial
        arrays = {"location": self._location, "scales": self._scales}
        for number, sums in enumerate([*self._passes, partial[1]]):
            for place, each in enumerate(sums):
                arrays |= {f"{number}/{place}/{name}": array for name, array in each.items()}
        facts: dict[str, Any] = {
            "random": self._random,
            "sample_rows": self.sample_rows,
            "sums": [len(sums) for sums in [*self._passes, partial[1]]],
            "rows": partial[0],
        }
        return State(arrays, facts)

    @classmethod
    def of(cls, state: State) -> Journal:
        """The journal that a state is of."""
        journal = cls.__new__(cls)
        arrays, facts = state.arrays, state.facts
        journal.sample_rows, journal._random = facts["sample_rows"], facts["random"]
        journal._location, journal._scales = arrays["location"], arrays["scales"]
        sums: list[_Sums] = [
            [state.under(f"{number}/{place}") for place in range(count)]
            for number, count in enumerate(facts["sums"])
        ]
        journal._passes, journal._partial = sums[:-1], (facts["rows"], sums[-1])
        journal._begun, journal._number = (0, []), -1
        return journal
