"""From figures to findings."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pymc_streaming.diagnosis.optimum import FARTHEST
from pymc_streaming.diagnosis.reasons import Reason
from pymc_streaming.diagnosis.records import Diagnosis, Finding, FindingKind, Missing

__all__ = [
    "MOST_LOG_SCALE",
    "MOST_SHRINKAGE",
    "MOST_STEP",
    "MOST_VARIATION",
    "findings_of",
    "remark",
]

#: Distances from the optimum, in standard deviations and of their logarithms, that would be seen
#: in a result: a hundredth of the variance, and a twentieth of the length of an interval.
MOST_STEP, MOST_LOG_SCALE = 0.1, 0.05
#: Standard deviations of independent normals may be too small by this factor: a fifth.
MOST_SHRINKAGE = 1.25
#: Standard deviation of log ratios, in nats, below which the shape of their tail is of no account:
#: that of a mean which is a quarter of a standard deviation off.
MOST_VARIATION = 0.25
# And above which they count whatever the tail, which a few hundred draws do not tell: that of one
# standard deviation that is too small by a third; of many parameters, each of which may be skewed
# a little, so much times the square root of their number.
_MUCH_VARIATION, _VARIATION_EACH = 0.5, 0.05
# Up to here a fit whose posterior is far from normal may be off by the points that it looked at.
_NEAR_STEP, _NEAR_LOG_SCALE = 0.25, 0.15
# Parameters that a finding names.
_MOST_NAMES = 3
# Corrections of a mean that show a skewed posterior, in standard deviations and standard errors.
_MOST_CORRECTION, _MOST_ERRORS = 0.25, 4.0


def findings_of(
    d: Diagnosis, bad: tuple[int, int] | None, *, in_steps: bool = False
) -> tuple[Finding, ...]:
    """What speaks against a fit.

    Parameters
    ----------
    d : Diagnosis
        Its figures.
    bad : tuple of int or None
        First and last row of a stretch whose log-likelihood is not finite.
    in_steps : bool, default False
        Whether it was fitted in steps, for what there is to do.
    """
    return tuple(_findings(d, bad, in_steps))


def remark(d: Diagnosis) -> str:
    """What is to be said besides findings; empty if nothing."""
    if not _too_heavy(d):
        return ""
    said = (
        f"k-hat {d.k_hat:.3g} is above {d.k_threshold:.2g}: do not use the corrected means and "
        "standard deviations."
    )
    if d.trusted:
        said += (
            " It comes from many small correlations, which independent normals do not have. That "
            "is so by construction, and no single standard deviation suffers from it."
        )
    return said


def _findings(d: Diagnosis, bad: tuple[int, int] | None, in_steps: bool) -> Iterator[Finding]:
    other_rows = d.rows != d.total_size
    if other_rows:
        yield Finding(FindingKind.ROWS, _other_rows(d))
    if not np.isfinite(d.log_ratios).all():
        yield Finding(FindingKind.NOT_FINITE, _not_finite(d, bad))
        return
    if d.missing is Missing.NOT_FINITE:
        yield Finding(FindingKind.NOT_FINITE, _no_derivatives())
        return
    if d.flat:
        yield Finding(FindingKind.FLAT, _flat(d))
        return  # all else is of the prior
    skewed = _not_normal(d)
    moving = "" if other_rows or (skewed and _is_near(d)) else _moving(d, in_steps)
    if moving:
        yield Finding(FindingKind.NOT_CONVERGED, moving)
    if d.n_modes > 1:
        yield Finding(FindingKind.SEVERAL_MODES, _several_modes(d))
    shrunk = _shrunk(d)
    if shrunk:
        yield Finding(FindingKind.SHRINKAGE, shrunk)
    if other_rows or moving or shrunk or d.n_modes > 1:
        return  # whether the posterior is normal can be told where its optimum is
    if skewed:
        yield Finding(FindingKind.NOT_NORMAL, skewed)


def _other_rows(d: Diagnosis) -> str:
    distance = _distance(d)
    return (
        f"Other rows: {d.rows:,} rows were counted, but the fit was made for N = {d.total_size:,}. "
        + (f"For those that were counted, {distance}. " if distance else "")
        + "If they are the whole table, the fit has the wrong N: give the loader all rows and fit "
        "again. If they are others, all figures are those of the posterior of these rows alone."
    )


def _not_finite(d: Diagnosis, bad: tuple[int, int] | None) -> str:
    count = int((~np.isfinite(d.log_ratios)).sum())
    where = f", first in rows {bad[0]:,} to {bad[1]:,}" if bad else ""
    return (
        f"Not finite: the log-density is not a finite number at {count:,} of {d.draws:,} draws"
        f"{where}. Look for values outside the support of the likelihood, for codes that pick an "
        "element that a parameter does not have, and for a support that depends on a parameter."
    )


def _flat(d: Diagnosis) -> str:
    names = ", ".join(repr(name) for name in d.flat[:_MOST_NAMES])
    more = len(d.flat) - _MOST_NAMES
    return (
        f"Flat: where the fit is, the log-likelihood of all rows does not change at all with "
        f"{names}{f' and {more:,} others' if more > 0 else ''}, though elsewhere it would. So the "
        "fit has the prior there, whatever the data say. Limits do that (clip, a density that is "
        "zero far away). Begin nearer to the data (init={...}), or write the likelihood without "
        "limits (logit_p= instead of a clipped p=)."
    )


def _no_derivatives() -> str:
    return (
        "Not finite: around the fit, at one standard deviation or a few, the log-density has no "
        "finite gradient, so how far it is to the optimum cannot be told. Look for values that are "
        "far out of scale, and for scales of the fit that are too wide: fit() from a start nearby "
        "(init={...})."
    )


def _moving(d: Diagnosis, in_steps: bool) -> str:
    how = (
        "Call fit() without a number of steps, which makes exact passes from here; with "
        "strategy='streaming', set trainer.strategy = 'auto' before. Or take more steps, with "
        "AnnealedAdam and its default learning rate; if these stay here, the rows may be in an "
        "order (see order_report): shuffle them on disk."
        if in_steps
        else "trainer.result says how the fit ended; fit() goes on from here, for as many passes "
        "as max_passes= allows."
    )
    if d.step is None or d.log_scale is None:
        return f"Not converged: around the means the log-density has no maximum. {how}"
    far = _distance(d)
    if np.abs(d.step).max() > MOST_STEP or np.abs(d.log_scale).max() > MOST_LOG_SCALE:
        beyond = [
            what
            for what, values, most in (
                ("means", d.step, MOST_STEP),
                ("sds", d.log_scale, MOST_LOG_SCALE),
            )
            if np.abs(values).max() > most
        ]
        return (
            f"Not converged ({' and '.join(beyond)}): to the optimum, by the gradient of all rows, "
            f"{far}. {how}"
        )
    if _differs(d) and _main_reason(d) in (Reason.LOCATION, Reason.SCALES):
        return (
            f"Not converged: {far}, which is little for one parameter, but together they make "
            f"log ratios vary by {d.log_ratios.std():.2g} nats. {how}"
        )
    return ""


def _is_near(d: Diagnosis) -> bool:
    """Whether the optimum is so near that another average of a few hundred points may be there."""
    return (
        d.step is not None
        and d.log_scale is not None
        and bool(np.abs(d.step).max() < _NEAR_STEP)
        and bool(np.abs(d.log_scale).max() < _NEAR_LOG_SCALE)
    )


def _distance(d: Diagnosis) -> str:
    """How far it is to the optimum, in words."""
    if d.step is None or d.log_scale is None:
        return ""
    name, step = d.worst(d.step)
    scale_name, log_scale = d.worst(d.log_scale)
    far = f"{abs(step):.2g}" if abs(step) < FARTHEST else f"more than {FARTHEST:,.0f}"
    return (
        f"the mean of {name!r} would move by {far} posterior standard deviations and the "
        f"standard deviation of {scale_name!r} change by a factor of {math.exp(log_scale):.3g}"
    )


def _several_modes(d: Diagnosis) -> str:
    return (
        f"Several modes: fits of a sample of the rows, from where this fit is and from random "
        f"places around it, ended in {d.n_modes} modes about as high as each other. The fit "
        "describes one of them alone, and its standard deviations only that one's width. Say in "
        "the model which is meant (an ordered transform, a prior of one sign), choose it "
        "(init={...}), or sample with MCMC."
    )


def _shrunk(d: Diagnosis) -> str:
    how = (
        "Do not read them as uncertainty. Take method='fullrank_advi', or a parametrisation with "
        "less correlation (centred columns, fewer that say the same). Means do not suffer from it "
        "as far as the posterior is normal."
    )
    if d.shrinkage is None:
        if d.method == "advi" and _differs(d) and _main_reason(d) is Reason.CORRELATIONS:
            return (
                f"Shrinkage: the posterior has correlations that independent normals lack: k-hat "
                f"{d.k_hat:.2f}, of which they are {d.reasons[Reason.CORRELATIONS.value]:.0%}. "
                "Standard deviations may be too small; how much is not known, as the curvature is "
                f"not that of a maximum. {how}"
            )
        return ""
    name, ratio = d.worst(d.shrinkage)
    if ratio <= MOST_SHRINKAGE:
        return ""
    least = "at least " if d.missing else ""
    count = int((d.shrinkage > MOST_SHRINKAGE).sum())
    heavy = (
        f" k-hat {d.k_hat:.2f} has the same reason."
        if _too_heavy(d) and _main_reason(d) is Reason.CORRELATIONS
        else ""
    )
    return (
        f"Shrinkage: with correlations, which independent normals do not have, the standard "
        f"deviation of {name!r} is {least}{ratio:.2f} times as large, and {count:,} of "
        f"{len(d.shrinkage):,} are too small by more than a fifth.{heavy} {how}"
    )


def _not_normal(d: Diagnosis) -> str:
    name, correction = d.worst(d.correction)
    if _differs(d):
        if _main_reason(d) is not Reason.SHAPE:
            return ""
        why = (
            f"k-hat {d.k_hat:.3g} is above {d.k_threshold:.2g}"
            if _too_heavy(d)
            else f"log ratios vary by {d.log_ratios.std():.2g} nats"
        )
    elif (
        abs(correction) > _MOST_CORRECTION
        and abs(correction) > _MOST_ERRORS * d.correction_error[d.parameters.index(name)]
    ):
        why = (
            f"by importance weights the mean of {name!r} is {abs(correction):.2g} standard "
            "deviations away"
        )
    else:
        return ""
    return (
        f"Not normal: {why}, though the fit is at its optimum and correlations do not explain it. "
        "The posterior is skewed, heavy-tailed or a funnel, as with parameters that few rows "
        "inform, so standard deviations may be far too small. Take another parametrisation (of "
        "effects whose spread is not known: centred where most groups have many rows, non-centred "
        "where they have few), or sample with MCMC."
    )


def _too_heavy(d: Diagnosis) -> bool:
    """Whether weighted draws cannot be relied on, and weights differ by what would be seen."""
    return d.k_hat > d.k_threshold and float(d.log_ratios.std()) > MOST_VARIATION


def _differs(d: Diagnosis) -> bool:
    """Whether weights differ by what would be seen, as far as draws tell."""
    much = max(_MUCH_VARIATION, _VARIATION_EACH * math.sqrt(len(d.mean)))
    return _too_heavy(d) or float(d.log_ratios.std()) > much


def _main_reason(d: Diagnosis) -> Reason | None:
    """What most of the variance of the log ratios comes from."""
    return Reason(max(d.reasons, key=lambda each: d.reasons[each])) if d.reasons else None
