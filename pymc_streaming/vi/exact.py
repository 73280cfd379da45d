"""A whole fit in exact passes: a sample first, then all rows.

The sample is fitted as though it were all the data, so that what it knows little of, the effect of
a rare group, stays where the prior has it. Where that ends, and the curvature there, is where the
passes over the table begin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pymc_streaming.vi.ascent import (
    Ascent,
    Correctable,
    Family,
    Found,
    Moved,
    Normal,
    Status,
    ascend,
)
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.dense import Dense, DenseCurvature, DenseDerivatives, DenseGaussian
from pymc_streaming.vi.guides import Guide
from pymc_streaming.vi.meanfield import MeanField
from pymc_streaming.vi.passes import PASS_NOISE, SCALE_NOISE, Derivatives, Sample, Table
from pymc_streaming.vi.signs import sign_patterns
from pymc_streaming.vi.structure import WithRareGroups, colours_of, groups_of, weighted
from pymc_streaming.vi.surrogate import Curvature, Gaussian, prior_curvature
from pymc_streaming.vi.terms import Terms

__all__ = ["fit_exactly", "sample_size"]

# Of the sample, the rows that a first, rough fit takes; and how rough both fits are, in standard
# deviations of their own.
_ROUGH_ROWS, _ROUGH = 4_000, 0.3
# How far that first fit may go in its first step.
_FIRST_RADIUS = 10.0


def sample_size(n_rows: int, size: int, row_nbytes: int, most_bytes: int = 64 * 2**20) -> int:
    """Rows of the sample.

    The error with which the passes begin is that of the sample's posterior, and each pass leaves
    of it about as much as the sample's curvature is wrong: so a cube root of the rows is enough.

    Examples
    --------
    >>> [sample_size(n, 14, 112) for n in (10_000, 1_000_000, 100_000_000)]
    [10000, 150000, 599186]
    """
    wanted = 150_000 * (n_rows / 1e6) ** (1 / 3) * max(1.0, size / 50) ** 0.5
    return int(min(n_rows, max(20_000, wanted), max(2_000, most_bytes // max(1, row_nbytes))))


def fit_exactly(
    table: Table,
    sample: Sample,
    binding: Binding,
    terms: Terms,
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
    binding : Binding
        The model and its placeholders.
    terms : Terms
        The model, compiled.
    guide : Guide
        Where to start.
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
    KeyboardInterrupt
        After Ctrl-C while the sample is fitted; later it is the status of what is returned.
    """
    rough = sample.first(min(_ROUGH_ROWS, sample.n_rows))
    colours = colours_of(terms, guide, rough, 1e-3, random)
    signs = sign_patterns(colours, random)
    family = MeanField(terms, signs)
    q = _first_guess(family, guide, rough)
    q = _of_sample(rough, family, q, _FIRST_RADIUS)
    if sample.n_rows > rough.n_rows:
        q = _of_sample(sample, family, q, np.inf)
    groups = groups_of(binding, terms, guide, colours, sample)
    watched = WithRareGroups(table, groups, sample)
    ratio = table.n_rows / sample.n_rows
    options: dict[str, Any] = {
        "radius": 10.0 + 10.0 * np.sqrt(ratio),
        "max_passes": max_passes,
        "seen": seen,
    }
    if spread is None:
        return _independent(family, watched, q, options)
    patterns = sign_patterns(np.arange(guide.size), random).patterns
    return _dense(Dense(terms, patterns, spread), watched, q, options)


def _independent(
    family: MeanField, table: WithRareGroups, q: Gaussian, options: Mapping[str, Any]
) -> Ascent[Gaussian]:
    """Fit independent normals to a table, from those of its sample."""
    terms, ratio, anchor = family.terms, table.n_rows / table.sample.n_rows, q
    of_sample = family.look(table.sample, q, PASS_NOISE).curvature

    def curvature(_: Gaussian, of_table: Derivatives) -> Curvature:
        rows, of_rows = table.extended_sample(), of_sample
        if rows.n_rows > table.sample.n_rows:
            of_rows = family.look(rows, anchor, PASS_NOISE).curvature
        rows = weighted(rows, table.groups, ratio * of_rows, of_table.curvature)
        return Curvature(terms, rows, anchor, ratio)

    whole = np.maximum(ratio * of_sample, 0.0) + prior_curvature(terms, family.signs, q)
    start = np.where(whole > 0, -0.5 * np.log(np.maximum(whole, 1e-300)), q.log_scale)
    return ascend(family, table, Gaussian(q.location, start), curvature, **options)


def _dense(
    family: Dense, table: WithRareGroups, q: Gaussian, options: Mapping[str, Any]
) -> Ascent[DenseGaussian]:
    """Fit a dense normal to a table, from independent ones of its sample."""
    ratio = table.n_rows / table.sample.n_rows

    def own(_: DenseGaussian, found: DenseDerivatives) -> DenseCurvature:
        return DenseCurvature(found.curvature)

    first = DenseGaussian(q.location, np.diag(q.scale))
    of_sample = family.look(table.sample, first, SCALE_NOISE).curvature
    start = family.start(q.location, q.scale, of_sample)
    anchor = _roughly(family, table.sample, start, own, np.inf)
    of_sample = family.look(table.sample, anchor, SCALE_NOISE).curvature

    def curvature(_: DenseGaussian, of_table: DenseDerivatives) -> DenseCurvature:
        if of_table.reliable:
            return DenseCurvature(of_table.curvature)
        rows, of_rows = table.extended_sample(), of_sample
        if rows.n_rows > table.sample.n_rows:
            of_rows = family.look(rows, anchor, SCALE_NOISE).curvature
        if table.groups:
            expected, found = ratio * np.diag(of_rows), np.diag(of_table.curvature)
            rows = weighted(rows, table.groups, expected, found)
            of_rows = family.look(rows, anchor, SCALE_NOISE).curvature
        return DenseCurvature(ratio * of_rows)

    start = family.start(anchor.location, anchor.scale / np.sqrt(ratio), ratio * of_sample)
    # The scale that changes most is that of the worst of all directions, not of the parameters.
    return ascend(family, table, start, curvature, scale_tolerance=0.01, **options)


def _first_guess(family: MeanField, guide: Guide, sample: Sample) -> Gaussian:
    """Where the guide is, with scales by the curvature there."""
    near = Gaussian(guide.location.copy(), np.full(guide.size, np.log(1e-3)))
    of_rows = family.look(sample, near, PASS_NOISE).curvature
    whole = of_rows + prior_curvature(family.terms, family.signs, near)
    return Gaussian(near.location, -0.5 * np.log(np.clip(np.abs(whole), 1e-2, 1e12)))


def _of_sample(sample: Sample, family: MeanField, q: Gaussian, radius: float) -> Gaussian:
    """The posterior of the sample, roughly."""

    def own(here: Gaussian, _: Derivatives) -> Curvature:
        return Curvature(family.terms, sample, here, 1.0)

    return _roughly(family, sample, q, own, radius)


def _roughly[Q: Normal, D: Found](
    family: Family[Q, D],
    sample: Sample,
    q: Q,
    curvature: Callable[[Q, D], Correctable],
    radius: float,
) -> Q:
    ascent = ascend(
        family,
        sample,
        q,
        curvature,
        renewed=True,
        radius=radius,
        step_tolerance=_ROUGH,
        scale_tolerance=_ROUGH,
        scale_noise=PASS_NOISE,
        max_passes=40,
    )
    if ascent.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    return ascent.q
