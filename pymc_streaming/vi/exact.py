"""The passes over a table, from a start that a sample of it gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pymc_streaming.vi.ascent import Ascent, ascend
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.dense import (
    SPREAD,
    Dense,
    DenseCurvature,
    DenseDerivatives,
    DenseGaussian,
)
from pymc_streaming.vi.flat import flat_elements
from pymc_streaming.vi.guides import Guide
from pymc_streaming.vi.passes import Derivatives, Sample, Table
from pymc_streaming.vi.signs import MOST_COLUMNS, sign_patterns
from pymc_streaming.vi.start import Start, first_radius, fit_roughly
from pymc_streaming.vi.status import Moved, Status
from pymc_streaming.vi.structure import WithRareGroups, groups_of, weighted
from pymc_streaming.vi.surrogate import Curvature, Gaussian
from pymc_streaming.vi.terms import Terms

__all__ = ["fit_exactly"]

# Rows of a table of which looking at each often takes no time at all.
_FEW = 2**14
# And how near to their end means have to be there, in standard deviations: with so few rows they
# may go on for long in short moves, as scales follow them.
_NEAR = 0.005
# Distance, in standard deviations, from which on a covariance is looked at closely.
_ROUGH = 0.2
# Change of a curvature, in standard deviations, by looking from farther around, that a smooth
# density does not have.
_KINKED = 0.1
# How much farther that is.
_FARTHER = 1.5, 2.0, 3.0, 5.0, 10.0


def fit_exactly(
    table: Table,
    sample: Sample,
    start: Start,
    binding: Binding,
    guide: Guide,
    random: np.random.Generator,
    *,
    spread: float | None = None,
    max_passes: int = 20,
    seen: Callable[[Moved], None] | None = None,
) -> Ascent[Gaussian] | Ascent[DenseGaussian]:
    """Fit a Gaussian to a table.

    Parameters
    ----------
    table : Table
        All rows.
    sample : Sample
        Some of them, in random order.
    start : Start
        What they say.
    binding : Binding
        The model and its placeholders.
    guide : Guide
        Says which elements of a draw are which variables.
    random : numpy.random.Generator
        For the signs.
    spread : float, optional
        For a dense normal, see `Dense`. Default: independent normals.
    max_passes : int, default 20
        Passes over the table.
    seen : callable
        Hears of each of them.

    Raises
    ------
    NotFinite
        If there are no finite derivatives where it begins.
    """
    family = start.family
    groups = groups_of(binding, family.terms, guide, family.signs.colours, sample)
    watched = WithRareGroups(table, groups, sample)
    options: dict[str, Any] = {
        "radius": first_radius(table.n_rows, sample.n_rows),
        "max_passes": max_passes,
        "seen": seen,
    }
    if table.n_rows <= _FEW:
        options["step_tolerance"] = _NEAR
    ascent: Ascent[Any]  # of either Gaussian
    if spread is None:
        ascent = _independent(start, watched, random, options)
    else:
        signs = sign_patterns(np.arange(guide.size), random)
        ascent = _dense(Dense(family.terms, signs, spread), watched, start, random, options)
    return replace(ascent, status=_status(ascent, family.terms, table, sample, random))


def _status(
    ascent: Ascent[Any], terms: Terms, table: Table, sample: Sample, random: np.random.Generator
) -> Status:
    """How an ascent ended, which does not know of slopes that are elsewhere."""
    if ascent.status is Status.INTERRUPTED:
        return ascent.status
    try:
        flat = flat_elements(terms, table, sample, ascent.q.location, ascent.q.scale, random)
    except KeyboardInterrupt:
        return Status.INTERRUPTED
    return Status.FLAT if len(flat) else ascent.status


def _independent(
    start: Start, table: WithRareGroups, random: np.random.Generator, options: Mapping[str, Any]
) -> Ascent[Gaussian]:
    """Fit independent normals to a table."""
    family, anchor, ratio = start.family, start.q, table.n_rows / table.sample.n_rows
    assert isinstance(anchor, Gaussian)

    def curvature(_: Gaussian, of_table: Derivatives) -> Curvature:
        rows = table.extended_sample()
        if table.groups:
            of_rows = family.look(rows, anchor).curvature
            rows = weighted(rows, table.groups, ratio * of_rows, of_table.curvature)
        return Curvature(family.terms, rows, anchor, ratio)

    q = start.of_table(table.sample, table.n_rows)
    finer = family.finer(random, table.n_rows)
    families = [finer] if _closely(start, table) else [family, finer]
    ascent = ascend(families, table, q, curvature, **options)
    if ascent.status is Status.CONVERGED and family.signs.n_colours > MOST_COLUMNS:
        return replace(ascent, status=Status.TOO_MANY)
    return ascent


def _dense(
    family: Dense,
    table: WithRareGroups,
    start: Start,
    random: np.random.Generator,
    options: Mapping[str, Any],
) -> Ascent[DenseGaussian]:
    """Fit a dense normal to a table, from one of all rows, or from independent ones of a sample."""
    ratio = table.n_rows / table.sample.n_rows
    finer = family.finer(random, table.n_rows)
    if isinstance(start.q, DenseGaussian):
        anchor = q = start.q
        of_sample = finer.look(table.sample, anchor).curvature
    else:
        anchor = _of_sample(family, table.sample, start.q)
        of_sample = finer.look(table.sample, anchor).curvature
        q = family.start(anchor.location, anchor.scale / np.sqrt(ratio), ratio * of_sample)

    def curvature(_: DenseGaussian, of_table: DenseDerivatives) -> DenseCurvature:
        if of_table.reliable:
            return DenseCurvature(of_table.curvature)
        of_rows = of_sample
        if table.groups:
            rows = table.extended_sample()
            expected = ratio * np.diag(finer.look(rows, anchor).curvature)
            rows = weighted(rows, table.groups, expected, np.diag(of_table.curvature))
            of_rows = finer.look(rows, anchor).curvature
        return DenseCurvature(ratio * of_rows)

    # The scale that changes most is that of the worst of all directions, not of the parameters.
    families = [finer] if _closely(start, table) else [family, finer]
    # And with a covariance of the table the way to the end is shorter than with one of the sample.
    options = {**options, "rough_tolerance": _ROUGH, "scale_tolerance": 0.01}
    ascent = ascend(families, table, q, curvature, **options)
    if family.spread == SPREAD or ascent.status is Status.INTERRUPTED:
        return ascent

    def of_rows(family: Dense) -> np.ndarray:
        return family.look(table.sample, anchor).curvature

    def of_prior(family: Dense) -> np.ndarray:
        return family.prior(ascent.q)[1]

    kinked = _has_kinks(of_rows, of_sample, finer, anchor) or _has_kinks(
        of_prior, of_prior(finer), finer, ascent.q
    )
    return replace(ascent, status=Status.KINKED) if kinked else ascent


def _closely(start: Start, table: Table) -> bool:
    """Whether to look at more points at once: for what was fitted before, or has few rows."""
    return start.of_all_rows or table.n_rows <= _FEW


def _has_kinks(
    curvature: Callable[[Dense], np.ndarray], near: np.ndarray, family: Dense, q: DenseGaussian
) -> bool:
    """Whether looks from farther around find another curvature, and not by the square of how far.

    That is how it changes where a density is smooth, if it is far from normal.
    """
    changes = {}
    for times in _FARTHER:
        wider = curvature(replace(family, spread=times * family.spread))
        if not np.isfinite(wider).all():  # beyond a limit
            return True
        changes[times] = np.linalg.norm(q.cholesky.T @ (wider - near) @ q.cholesky, 2)
    by_square = [change / (times**2 - 1.0) for times, change in changes.items()]
    return bool(max(changes.values()) > _KINKED and max(by_square) > 4.0 * by_square[-1])


def _of_sample(family: Dense, sample: Sample, q: Gaussian) -> DenseGaussian:
    """The posterior of a sample, roughly, from independent normals."""

    def own(_: DenseGaussian, found: DenseDerivatives) -> DenseCurvature:
        return DenseCurvature(found.curvature)

    first = DenseGaussian(q.location, np.diag(q.scale))
    start = family.start(q.location, q.scale, family.finer().look(sample, first).curvature)
    return fit_roughly(family, sample, start, own, first_radius(sample.n_rows, sample.n_rows)).q
