from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from pymc_streaming.diagnosis.records import Diagnosis, Finding, FindingKind


def diagnosis(size: int) -> Diagnosis:
    rng = np.random.default_rng(0)
    zeros, ones = np.zeros(size), np.ones(size)
    return Diagnosis(
        method="advi",
        parameters=tuple(f"b[{i}]" for i in range(size)),
        rows=10,
        total_size=10,
        draws=100,
        elbo=-1.0,
        elbo_error=0.1,
        k_hat=0.2,
        k_threshold=0.5,
        effective_draws=90.0,
        log_ratios=rng.normal(size=100),
        mean=zeros,
        sd=ones,
        corrected_mean=zeros,
        corrected_sd=ones,
        correction_error=ones,
        step=rng.normal(size=size),
        log_scale=zeros,
        shrinkage=ones,
        missing=None,
        reasons={},
        groups=(),
    )


@pytest.mark.parametrize("size", [3, 30])
def test_each_parameter_has_its_points(size) -> None:
    d = diagnosis(size)
    figure = d.plot()
    steps, scales, shrinkage, weights = figure.axes
    np.testing.assert_array_equal(steps.lines[0].get_ydata(), d.step)
    np.testing.assert_array_equal(scales.lines[0].get_ydata(), d.log_scale)
    np.testing.assert_array_equal(shrinkage.lines[0].get_ydata(), d.shrinkage)
    assert len(weights.lines[0].get_ydata()) == 100
    labels = [label.get_text() for label in steps.get_xticklabels()]
    assert (labels == list(d.parameters)) == (size == 3)
    named = [text.get_text() for text in steps.texts]
    worst = [d.parameters[i] for i in np.argsort(-np.abs(d.step))[:3]]
    assert named == ([] if size == 3 else worst)
    assert not scales.texts
    assert figure.get_suptitle() == "Trusted"
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")


def test_what_was_not_computed_has_no_panel() -> None:
    found = Finding(FindingKind.NOT_FINITE, "Not finite: ...")
    d = replace(
        diagnosis(3),
        step=None,
        log_scale=None,
        shrinkage=None,
        log_ratios=np.full(100, np.nan),
        k_hat=np.nan,
        findings=(found,),
    )
    figure = d.plot()
    assert len(figure.axes) == 1
    assert figure.get_suptitle() == "Not trusted: not finite"
