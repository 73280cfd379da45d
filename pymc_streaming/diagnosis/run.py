"""The diagnosis of a fit: a sample of the rows, one pass over all of them, and the judgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pymc_streaming.arguments import whole_number
from pymc_streaming.diagnosis.importance import Importance, k_threshold, weigh
from pymc_streaming.diagnosis.judge import MOST_LOG_SCALE, findings_of
from pymc_streaming.diagnosis.optimum import (
    MOST_DENSE,
    Distance,
    distance_of,
    distance_of_dense,
)
from pymc_streaming.diagnosis.reading import Reading
from pymc_streaming.diagnosis.reasons import shares
from pymc_streaming.diagnosis.records import Diagnosis, GroupCounts, Missing
from pymc_streaming.errors import ArgumentError, RowCountError
from pymc_streaming.fits.subject import Subject
from pymc_streaming.loader import DataLoader, rows_of
from pymc_streaming.progress import PassProgress
from pymc_streaming.sources import Block
from pymc_streaming.vi.ascent import look_closely, with_more_points
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.cores import leaving_cores, n_cores
from pymc_streaming.vi.dense import SPREAD, SPREADS, Dense, DenseDerivatives, DenseGaussian
from pymc_streaming.vi.family import Family, Found, Normal
from pymc_streaming.vi.fixed_rows import check_any_number_of_rows
from pymc_streaming.vi.flat import flat_elements
from pymc_streaming.vi.guides import FullRankGuide, Guide, element_names
from pymc_streaming.vi.meanfield import MeanField
from pymc_streaming.vi.modes import starts_around
from pymc_streaming.vi.passes import Derivatives, NotFinite, Sample, Table
from pymc_streaming.vi.signs import SMALL_TABLE, sign_patterns
from pymc_streaming.vi.start import modes_of, sample_size
from pymc_streaming.vi.structure import Groups, WithRareGroups, colours_of, groups_of, weighted
from pymc_streaming.vi.surrogate import Curvature, Gaussian, prior_curvature
from pymc_streaming.vi.terms import Terms

__all__ = ["diagnose"]

# Fewer draws have too few in the tail.
_FEWEST_DRAWS = 100
# Rows that tell which parameters add to each other's slopes.
_ROUGH_ROWS = 4_000
# A matrix of d columns from fewer rows than d times this has noise for correlations; and how much
# work, in rows times columns, one is worth.
_ROWS_A_COLUMN, _WORK = 20, 10_000_000


def diagnose(
    subject: Subject,
    own: DataLoader,
    loader: DataLoader | None,
    compile_kwargs: Mapping[str, Any],
    compiled: Terms | None,
    *,
    draws: int,
    seed: int,
    in_steps: bool,
    progressbar: bool,
) -> Diagnosis:
    """Diagnose what a fit has written into its approximation.

    Parameters
    ----------
    subject : Subject
        The model and its Gaussian; not changed.
    own : DataLoader
        The rows that were fitted.
    loader : DataLoader or None
        The rows to look at; None for the same.
    compile_kwargs : mapping
        Passed to ``pytensor.function``.
    compiled : Terms or None
        What a fit of the same rows has compiled.
    draws : int
        Draws S.
    seed : int
        Of draws and sample.
    in_steps : bool
        Whether it was fitted in steps, for what there is to do.
    progressbar : bool
        Whether to show progress.
    """
    draws = whole_number("draws", draws, least=_FEWEST_DRAWS)
    if loader is None:
        loader = own
    else:
        compiled = None  # for arrays of the types that `own` gives
    _check_loader(loader, own)
    fitted, random = subject.guide.as_written(), np.random.default_rng(seed)
    method, streamed = subject.method, subject.streamed
    batch = _first_rows(loader)
    binding = Binding(subject.binding.model, subject.binding.names, batch)
    with (
        PassProgress(loader.total_size, 1, enabled=progressbar) as progress,
        leaving_cores(n_cores()),
    ):
        terms = compiled or Terms(binding, streamed, fitted, batch, own.total_size, compile_kwargs)
        check_any_number_of_rows(terms, fitted.location, batch)
        progress.begin("sampling")
        sample = Sample(loader.sample(_sample_size(loader, fitted.size), random)[0])
        rough = sample.first(min(_ROUGH_ROWS, sample.n_rows))
        colours = colours_of(terms, fitted, fitted.location, fitted.sd, rough, random)
        groups = groups_of(binding, terms, fitted, colours, sample)
        n_modes = 1  # a start that was given says which is meant
        if not isinstance(subject.init, Mapping):
            n_modes = _modes(terms, fitted, rough, colours, random)
        noise = random.standard_normal((draws, fitted.size))
        points = np.stack([fitted.draw(each) for each in noise])
        reading = Reading(loader, terms, points, groups, progress)
        table = WithRareGroups(reading, groups, sample)
        progress.begin("diagnosing")
        deviations = points - fitted.location
        if isinstance(fitted, FullRankGuide):
            distance = _far_of_dense(method, terms, fitted, table, reading, deviations, random)
        else:
            distance = _far(terms, fitted, table, reading, colours, deviations, random)
        flat = flat_elements(terms, reading.again(), sample, fitted.location, fitted.sd, random)
        with np.errstate(all="ignore"):
            log_ratios = reading.values + terms.prior(points)[0] - fitted.log_density(noise)
    found = _as_diagnosis(
        method,
        fitted,
        own.total_size,
        reading,
        groups,
        log_ratios,
        noise,
        points,
        distance,
    )
    found = replace(
        found,
        n_modes=n_modes,
        flat=tuple(found.parameters[i] for i in flat),
        skipped=tuple(loader.source.skipped),
    )
    return replace(found, findings=findings_of(found, reading.bad, in_steps=in_steps))


def _modes(
    terms: Terms,
    fitted: Guide,
    sample: Sample,
    colours: np.ndarray,
    random: np.random.Generator,
) -> int:
    """Modes in which fits of a sample end, from where the fit is and from around it."""
    family = MeanField(terms, sign_patterns(colours, random))
    try:
        starts = starts_around(fitted.location, fitted.initial, random)
        return 1 + len(modes_of(family, sample, starts).others)
    except NotFinite:
        return 1


def _far(
    terms: Terms,
    fitted: Guide,
    table: WithRareGroups,
    reading: Reading,
    colours: np.ndarray,
    deviations: np.ndarray,
    random: np.random.Generator,
) -> Distance | None:
    """How far independent normals are from their optimum; None if that is not finite."""
    family = MeanField(terms, sign_patterns(colours, random))
    finer = family.finer(random, min(table.n_rows, SMALL_TABLE))
    while finer.points(table.n_rows) < finer.sharper().points(table.n_rows) <= len(deviations):
        finer = finer.sharper()
    q = Gaussian(fitted.location, fitted.scales)
    derivatives = look_closely(finer, table, reading.again(), q)
    if not derivatives.are_finite:
        return None

    def distance(found: Derivatives) -> Distance:
        return distance_of(finer, q, found, curvature, deviations, random)

    ratio, rows = table.n_rows / table.sample.n_rows, table.extended_sample()
    sizes = _group_sizes(fitted, rows, ratio, reading, table.groups)
    rows = weighted(rows, table.groups, *sizes)
    curvature = Curvature(terms, rows, _of_sample(family, fitted, table.sample), ratio)
    return _confirmed(finer, reading.again(), q, distance, distance(derivatives))


def _far_of_dense(
    method: str,
    terms: Terms,
    fitted: FullRankGuide,
    table: WithRareGroups,
    reading: Reading,
    deviations: np.ndarray,
    random: np.random.Generator,
) -> Distance | None:
    """The same for a dense normal."""
    signs = sign_patterns(np.arange(fitted.size), random)
    family = Dense(terms, signs, SPREADS[method] or SPREAD).finer(
        random, min(table.n_rows, SMALL_TABLE)
    )
    q = DenseGaussian(fitted.location, fitted.cholesky)
    found = look_closely(family, table, reading.again(), q)
    if not found.are_finite:
        return None

    def distance(found: DenseDerivatives) -> Distance:
        return distance_of_dense(family, q, found, deviations)

    return _confirmed(family, reading.again(), q, distance, distance(found))


def _confirmed[Q: Normal, D: Found](
    family: Family[Q, D],
    table: Table,
    q: Q,
    distance_of: Callable[[D], Distance],
    distance: Distance,
) -> Distance:
    """The distance, by as many points as it takes to tell wrong scales from noise.

    Noise that two parameters have in common, as of columns that are equal, does not show in one
    look; another, at other points, has other noise.
    """
    while distance.log_scale is None or np.abs(distance.log_scale).max() > MOST_LOG_SCALE:
        sharper = with_more_points(family, table)
        if sharper is family:
            break
        other = distance_of(family.look(table, q, 1)).log_scale
        if (
            distance.log_scale is not None
            and other is not None
            and np.abs(other - distance.log_scale).max() < 0.5 * MOST_LOG_SCALE
        ):
            break
        family = sharper
        distance = distance_of(family.look(table, q, 0))
    return distance


def _check_loader(loader: DataLoader, own: DataLoader) -> None:
    if not isinstance(loader, DataLoader):
        raise ArgumentError(
            f"loader must be a DataLoader, found {type(loader).__name__}. Wrap the data: "
            "DataLoader(source, batch_size=4096)."
        )
    expected, found = ({n: s.row_shape for n, s in each.layout.items()} for each in (own, loader))
    if expected != found:
        raise ArgumentError(
            "The loader must give the arrays that were fitted. Expected these names, with these "
            f"shapes of a row: {expected}; found {found}."
        )
    of_own, of_other = (getattr(each.source, "categories", {}) for each in (own, loader))
    for name in sorted(of_own.keys() & of_other.keys()):
        if list(of_own[name]) != list(of_other[name]):
            raise ArgumentError(
                f"The codes of {name!r} mean other levels than in the fit, which had "
                f"{len(of_own[name]):,}, where this loader has {len(of_other[name]):,}. Give its "
                "source the levels of the fitted one: categories=fitted_source.categories."
            )


def _first_rows(loader: DataLoader) -> Block:
    for block in loader.blocks(loader.batch_size):
        rows = rows_of(block, 0, loader.batch_size)
        return {name: array.copy() for name, array in rows.items()}
    raise RowCountError("There are no rows to look at.")


def _sample_size(loader: DataLoader, size: int) -> int:
    rows = sample_size(loader.total_size, size, loader.source.row_nbytes)
    if size > MOST_DENSE:
        return rows
    return min(rows, max(_ROWS_A_COLUMN * size, _WORK // size))


def _group_sizes(
    guide: Guide, sample: Sample, ratio: float, reading: Reading, groups: list[Groups]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the groups in the table, by a sample of it times `ratio`, and as they are."""
    of_sample, of_table = np.zeros(guide.size), np.zeros(guide.size)
    for each, counts in zip(groups, reading.counts, strict=True):
        here = np.bincount(each.codes_of(sample.rows), minlength=len(counts))
        of_sample[each.elements[:, 0]] = here * ratio
        of_table[each.elements[:, 0]] = counts
    return of_sample, of_table


def _of_sample(family: MeanField, guide: Guide, sample: Sample) -> Gaussian:
    """Independent normals as narrow as the sample alone makes them, around the location."""
    near = Gaussian(guide.location, np.log(guide.sd))
    of_prior = prior_curvature(family.terms, family.signs, near)
    whole = np.abs(family.look(sample, near).curvature) + np.abs(of_prior)
    with np.errstate(all="ignore"):
        log_scale = np.where(whole > 0, -0.5 * np.log(whole), near.log_scale)
    return Gaussian(guide.location, log_scale)


def _as_diagnosis(
    method: str,
    guide: Guide,
    total_size: int,
    reading: Reading,
    groups: list[Groups],
    log_ratios: np.ndarray,
    noise: np.ndarray,
    points: np.ndarray,
    distance: Distance | None,
) -> Diagnosis:
    names, sd = element_names(guide.approximation), guide.sd
    if np.isfinite(log_ratios).all():
        weighed = weigh(log_ratios, points, guide.location, sd)
    else:
        unknown = np.full(guide.size, np.nan)
        mean = float(log_ratios.mean()) if not np.isnan(log_ratios).any() else np.nan
        weighed = Importance(mean, np.nan, np.nan, np.nan, unknown, unknown, unknown)
    reasons = {}
    if distance is not None and np.isfinite(log_ratios).all():
        found = shares(
            log_ratios,
            points - guide.location,
            noise,
            distance.gradient,
            distance.bent,
            distance.diagonal,
        )
        reasons = {reason.value: share for reason, share in found.items()}
    return Diagnosis(
        method=method,
        parameters=names,
        rows=reading.rows,
        total_size=total_size,
        draws=len(points),
        elbo=weighed.elbo,
        elbo_error=weighed.elbo_error,
        k_hat=weighed.k_hat,
        k_threshold=k_threshold(len(points)),
        effective_draws=weighed.effective_draws,
        log_ratios=log_ratios,
        mean=guide.location,
        sd=sd,
        corrected_mean=weighed.mean,
        corrected_sd=weighed.sd,
        correction_error=weighed.mean_error / sd,
        step=None if distance is None else distance.step,
        log_scale=None if distance is None else distance.log_scale,
        shrinkage=None if distance is None else distance.shrinkage,
        missing=Missing.NOT_FINITE if distance is None else distance.missing,
        reasons=reasons,
        groups=tuple(
            _group_counts(guide, each, counts)
            for each, counts in zip(groups, reading.counts, strict=True)
        ),
    )


def _group_counts(guide: Guide, groups: Groups, counts: np.ndarray) -> GroupCounts:
    first = int(groups.elements.flat[0])
    variable = next(
        name
        for name, where, *_ in guide.group.ordering.values()
        if first in np.arange(guide.size)[where]
    )
    there = counts[counts > 0]
    return GroupCounts(
        variable,
        len(counts),
        int(there.min()) if len(there) else 0,
        int(len(counts) - len(there)),
    )
