"""A diagnosis as text: the verdict, what was found, and the figures behind it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator

from pymc_streaming.diagnosis.judge import remark
from pymc_streaming.diagnosis.optimum import FARTHEST
from pymc_streaming.diagnosis.records import Diagnosis
from pymc_streaming.sources.skipped import in_words

__all__ = ["as_text"]

_WIDTH = 90
# Moves and changes that round to nothing.
_LEAST = 5e-4


def as_text(d: Diagnosis) -> str:
    """The diagnosis in lines."""
    if d.trusted:
        verdict = "TRUSTED: nothing speaks against this fit."
    else:
        verdict = f"NOT TRUSTED: {', '.join(finding.kind.value for finding in d.findings)}."
    paragraphs = [verdict, *(finding.text for finding in d.findings), remark(d)]
    text = [textwrap.fill(each, _WIDTH, break_on_hyphens=False) for each in paragraphs if each]
    lines = list(_lines(d))
    width = max(len(what) for what, _ in lines)
    table = "\n".join(f"{what:<{width}}  {value}" for what, value in lines)
    return "\n\n".join([*text, table])


def _lines(d: Diagnosis) -> Iterator[tuple[str, str]]:
    yield "rows counted", f"{d.rows:,}, fitted for {d.total_size:,}"
    if d.skipped:
        yield "left out", in_words(d.skipped)
    yield "ELBO", f"{_figure(d.elbo, ',.2f')} ± {_figure(d.elbo_error, '.2f')} nats"
    yield "k-hat", f"{_figure(d.k_hat, '.2f')}, reliable up to {d.k_threshold:.2f}"
    effective = _figure(d.effective_draws, ".0f")
    yield "effective draws", f"{effective} of {d.draws:,}"
    if d.k_hat <= d.k_threshold:
        name, value = d.worst(d.correction)
        error = d.correction_error[d.parameters.index(name)]
        yield "largest correction of a mean", f"{value:+.2f} ± {error:.2f} sd, {name}"
    missing = d.missing.value if d.missing else ""
    if d.step is None or d.log_scale is None:
        yield "largest move of a mean", missing
    else:
        name, value = d.worst(d.step)
        yield "largest move of a mean", f"{_short(value)} sd, {name}"
        name, value = d.worst(d.log_scale)
        change = f"factor {math.exp(value):.3f}" if abs(value) >= _LEAST else "below 0.1 %"
        yield "largest change of an sd", f"{change}, {name}"
    if d.shrinkage is not None:
        name, value = d.worst(d.shrinkage)
        bound = f" ({missing})" if missing else ""
        yield "largest sd with correlations", f"factor {value:.2f}, {name}{bound}"
    elif d.method == "advi":
        yield "largest sd with correlations", missing
    yield "modes of a sample", f"{d.n_modes}"
    if d.reasons:
        by = ", ".join(f"{reason} {share:.0%}" for reason, share in d.reasons.items())
        yield "log ratios vary", f"by {d.log_ratios.std():.2f} nats: {by}"
    for each in d.groups:
        empty = f", {each.empty:,} without a row" if each.empty else ""
        what = f"{each.groups:,}, of {each.fewest:,} rows or more{empty}"
        yield f"groups of {each.variable!r}", what


def _short(value: float) -> str:
    if abs(value) >= FARTHEST:
        return f"more than {FARTHEST:,.0f}"
    if abs(value) < _LEAST:
        return "below 0.001"
    return f"{value:+.3f}" if abs(value) < 10 else f"{value:+,.0f}"


def _figure(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "not finite"
