"""A whole fit in exact passes: a sample first, then all rows.

The sample is fitted as though it were all the data, so that what it knows little of, the effect of
a rare group, stays where the prior has it. Where that ends, and the curvature there, is where the
passes over the table begin.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pymc_streaming.vi.ascent import Ascent, Moved, Status, ascend
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.guides import Guide
from pymc_streaming.vi.meanfield import MeanField
from pymc_streaming.vi.passes import PASS_NOISE, Derivatives, Sample, Table, pass_over
from pymc_streaming.vi.signs import Signs, sign_patterns
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
    [10000, 50000, 232079]
    """
    wanted = 50_000 * (n_rows / 1e6) ** (1 / 3) * max(1.0, size / 50) ** 0.5
    return int(min(n_rows, max(20_000, wanted), max(2_000, most_bytes // max(1, row_nbytes))))


def fit_exactly(
    table: Table,
    sample: Sample,
    binding: Binding,
    terms: Terms,
    guide: Guide,
    random: np.random.Generator,
    *,
    max_passes: int = 20,
    seen: Callable[[Moved], None] | None = None,
) -> Ascent[Gaussian]:
    """Fit independent normals to a table.

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
    q = _first_guess(terms, signs, guide, rough)
    family = MeanField(terms, signs)
    q = _of_sample(rough, family, q, _FIRST_RADIUS)
    if sample.n_rows > rough.n_rows:
        q = _of_sample(sample, family, q, np.inf)

    ratio = table.n_rows / sample.n_rows
    found = pass_over(sample, terms, signs, q.location, q.scale).curvature
    groups = groups_of(binding, terms, guide, colours, sample)
    watched = WithRareGroups(table, groups, sample)
    anchor = q

    def curvature(_: Gaussian, of_table: Derivatives) -> Curvature:
        rows = watched.sample()
        if rows.n_rows > sample.n_rows:
            of_rows = pass_over(rows, terms, signs, anchor.location, anchor.scale).curvature
        else:
            of_rows = found
        rows = weighted(rows, groups, ratio * of_rows, of_table.curvature)
        return Curvature(terms, rows, anchor, ratio)

    whole = np.maximum(ratio * found, 0.0) + prior_curvature(terms, signs, q)
    start = np.where(whole > 0, -0.5 * np.log(np.maximum(whole, 1e-300)), q.log_scale)
    return ascend(
        family,
        watched,
        Gaussian(q.location, start),
        curvature,
        radius=10.0 + 10.0 * np.sqrt(ratio),
        max_passes=max_passes,
        seen=seen,
    )


def _first_guess(terms: Terms, signs: Signs, guide: Guide, sample: Sample) -> Gaussian:
    """Where the guide is, with scales by the curvature there."""
    near = Gaussian(guide.location.copy(), np.full(guide.size, np.log(1e-3)))
    of_rows = pass_over(sample, terms, signs, near.location, near.scale).curvature
    whole = of_rows + prior_curvature(terms, signs, near)
    return Gaussian(near.location, -0.5 * np.log(np.clip(np.abs(whole), 1e-2, 1e12)))


def _of_sample(sample: Sample, family: MeanField, q: Gaussian, radius: float) -> Gaussian:
    """The posterior of the sample, roughly."""

    def own(here: Gaussian, _: Derivatives) -> Curvature:
        return Curvature(family.terms, sample, here, 1.0)

    ascent = ascend(
        family,
        sample,
        q,
        own,
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
