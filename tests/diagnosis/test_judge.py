"""Findings of figures that were made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pymc_streaming import FindingKind
from pymc_streaming.diagnosis.judge import findings_of
from pymc_streaming.diagnosis.records import Diagnosis, Missing
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


def of_shape(nats: float, size: int = 4, **changes) -> Diagnosis:
    """A fit whose log ratios vary by so much, because the posterior is not normal."""
    d = diagnosis(size)
    ratios = d.log_ratios * nats / d.log_ratios.std()
    reasons = {"location": 0.0, "correlations": 0.0, "scales": 0.01, "shape": 0.99}
    unmoved = np.zeros(size)
    changes = {"step": unmoved, "log_scale": unmoved, **changes}
    return replace(d, log_ratios=ratios, reasons=reasons, **changes)


def kinds_of(d: Diagnosis) -> list[FindingKind]:
    return [finding.kind for finding in findings_of(d, None)]


def test_log_ratios_that_vary_much_are_not_normal_whatever_their_tail() -> None:
    assert kinds_of(of_shape(0.4)) == []
    assert kinds_of(of_shape(0.75)) == [FindingKind.NOT_NORMAL]
    assert kinds_of(of_shape(160.0)) == [FindingKind.NOT_NORMAL]
    assert kinds_of(of_shape(0.4, k_hat=0.9)) == [FindingKind.NOT_NORMAL]
    assert kinds_of(of_shape(1.4, size=2_000)) == []  # each of them a little


def test_a_scale_that_other_points_would_change_is_not_called_unconverged() -> None:
    near = np.array([0.0, 0.08, 0.0, 0.0])
    assert kinds_of(of_shape(1.4, log_scale=near)) == [FindingKind.NOT_NORMAL]
    assert kinds_of(of_shape(0.1, log_scale=near)) == [FindingKind.NOT_CONVERGED]
    assert kinds_of(of_shape(1.4, log_scale=4 * near)) == [FindingKind.NOT_CONVERGED]


def test_what_there_is_to_do_depends_on_how_it_was_fitted() -> None:
    d = of_shape(0.1, step=np.full(4, 3.0))
    ((after_steps,), (after_passes,)) = (
        findings_of(d, None, in_steps=in_steps) for in_steps in (True, False)
    )
    assert "AnnealedAdam" in after_steps.text
    assert "AnnealedAdam" not in after_passes.text
    assert "trainer.result" in after_passes.text
