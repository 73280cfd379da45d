"""Findings of figures that were made up."""

from __future__ import annotations

from dataclasses import replace

from pymc_streaming import FindingKind
from pymc_streaming.diagnosis.judge import findings_of
from pymc_streaming.diagnosis.records import Missing
from tests.diagnosis.test_plot import diagnosis


def test_derivatives_that_are_not_finite_are_not_trusted() -> None:
    d = replace(
        diagnosis(3),
        step=None,
        log_scale=None,
        shrinkage=None,
        missing=Missing.NOT_FINITE,
        k_hat=11.9,
    )
    (finding,) = findings_of(d, None)
    assert finding.kind is FindingKind.NOT_FINITE
    assert "no finite gradient" in finding.text


def test_the_first_of_many_flat_parameters_are_named() -> None:
    d = diagnosis(30)
    (finding,) = findings_of(replace(d, flat=d.parameters), None)
    assert finding.kind is FindingKind.FLAT
    assert "'b[0]', 'b[1]', 'b[2]' and 27 others" in finding.text
