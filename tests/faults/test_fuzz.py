"""A short version of ``python -m tests.faults.fuzz``."""

from __future__ import annotations

from tests.faults.fuzz import HARMFUL, MIB, fuzz


def test_damaged_tables_are_refused_or_read_as_they_were(tmp_path) -> None:
    tally = fuzz(tmp_path, 60)
    assert len(tally.outcomes) == 60
    assert tally.of("REFUSED") > 20
    assert tally.of(*HARMFUL) == 0, "\n".join(map(str, tally.offences))
    assert tally.peak < 1_024 * MIB
