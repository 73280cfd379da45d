r"""From pass to pass: to the Gaussian with the highest ELBO.

A pass gives the gradient over all rows; the optimum of the surrogate there is where the next pass
looks. A move is kept if the ELBO rose along it, judged by the gradients at its ends,

.. math:: \tfrac12 (G_\text{before} + G_\text{after})^\top \Delta > 0,

which is exact for cubic polynomials up to their third derivative and, unlike a difference of two
ELBOs of millions, not drowned in rounding. If not, it is taken back, and the next goes no further
than to where the ELBO is highest along it, by the same gradients. Moves may become longer as long
as the ELBO still rises at their ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pymc_streaming.vi.family import Correctable, Family, Found, Normal
from pymc_streaming.vi.passes import NotFinite, Table
from pymc_streaming.vi.status import Moved, Status

__all__ = ["Ascent", "ascend", "look_closely", "with_more_points"]


# Changes of log scales up to here come of the means; and up to here, of fewer points before.
_FOLLOWING, _FINER = 0.03, 0.1
# How often noise is halved at most to come to more points: of large tables one is enough for long.
_HALVINGS = 16
# The part of a move to where the ELBO is highest, below which moves do not become longer.
_OVERSHOT = 2.0 / 3.0
# A move as short as this, in standard deviations, says nothing of how far the next may go.
_SHORT = 1.0
# The part of the change of scales before, from which on a change of a covariance is noise.
_LASTING = 0.7
# Of moves that become shorter more slowly than that it is noise how slowly.
_SLOWEST = 0.8
# Moves of a mean, in tolerances, that leave scales where they are.
_RESTING = 5.0


@dataclass(frozen=True)
class Ascent[Q: Normal]:
    """Where an ascent ended.

    Parameters
    ----------
    q : Gaussian
        The result.
    status : Status
        How it ended.
    passes : int
        Passes that were made.
    trail : tuple of Moved
        What each led to, but for one that was made for the scales alone.
    """

    q: Q
    status: Status
    passes: int
    trail: tuple[Moved, ...]


def ascend[Q: Normal, D: Found](
    families: Sequence[Family[Q, D]],
    table: Table,
    q: Q,
    curvature: Callable[[Q, D], Correctable],
    *,
    renewed: bool = False,
    radius: float = np.inf,
    step_tolerance: float = 0.02,
    rough_tolerance: float = 0.02,
    scale_tolerance: float = 0.005,
    max_passes: int = 20,
    seen: Callable[[Moved], None] | None = None,
) -> Ascent[Q]:
    """Find the Gaussian with the highest ELBO.

    Parameters
    ----------
    families : sequence of Family
        The kind of Gaussian, with the model: looking at few points, then at more.
    table : Table
        The rows.
    q : Gaussian
        Where to start.
    curvature : callable
        Gives the curvature for what the first pass found; if `renewed`, every pass.
    renewed : bool, default False
        Whether the curvature is cheap enough to be looked at anew after each pass.
    radius : float, default inf
        How far the first move may go, in standard deviations.
    step_tolerance : float, default 0.02
        The ascent ends when every mean is closer to its end than this, in standard deviations, as
        far as the last moves tell.
    rough_tolerance : float, default 0.02
        The same, for looking at more points.
    scale_tolerance : float, default 0.005
        The same for log scales.
    max_passes : int, default 20
        Passes that may be made.
    seen : callable
        Hears of each pass.

    Returns
    -------
    Ascent
        With the last Gaussian that was not worse than those before it; after Ctrl-C too.

    Raises
    ------
    NotFinite
        If the first pass gives no finite derivatives.
    """
    trail: list[Moved] = []
    passes, kept, before = 0, True, None
    family, *others = families

    def look(q: Q) -> D:
        """With more points from then on if these turn out to be too few."""
        nonlocal passes, family
        while True:
            found = family.look(table, q, passes)
            passes += 1
            noisy = found.are_finite and found.noise > family.most_noise
            if not noisy or passes >= max_passes or not sharpened():
                return found

    def sharpened() -> bool:
        """Take more points from then on; says whether there are more."""
        nonlocal family
        blunter, family = family, with_more_points(family, table)
        return family is not blunter

    try:
        found, found_by = look(q), family
        if not found.are_finite:
            raise NotFinite(q.location)
        bend = curvature(q, found)
        finer, doubts, pace, earlier = False, 0.0, 1.0, None
        while True:
            best = family.best(q, found, bend, radius)
            moved = Moved(passes, *family.moved(q, best), kept)
            trail.append(moved)
            if seen is not None:
                seen(moved)
            # A step that was cut short tells nothing of the way that is left.
            free = moved.step < 0.5 * radius
            # What is seen better for the first time has other scales, if not by much.
            doubt = family.doubt(table.n_rows)
            more = doubts if doubt is not None else _FINER if finer else 0.0
            tolerance = max(scale_tolerance, more, doubt or 0.0)
            near, slowest = (rough_tolerance, 0.0) if others else (step_tolerance, _SLOWEST)
            arrived = free and _arrives(moved, before, earlier, near, tolerance, slowest)
            others = [
                each
                for each in others
                if _looks_closer(each, family, table) or found.noise > each.most_noise
            ]
            finer = arrived and bool(others)
            # Noise of curvatures may hide a maximum, or keep every move from being one upwards.
            stuck = not kept and moved.step < step_tolerance / 16
            if arrived and not finer:
                stuck = not family.has_maximum(best, found)
                if not stuck:
                    q, status = best, Status.CONVERGED
                    break
            if passes >= max_passes:
                q, status = best if kept else q, Status.PASSES_USED_UP
                break
            if stuck and sharpened():
                found, found_by, kept, before = look(q), family, True, None
                continue
            if stuck:
                q, status = best if arrived else q, Status.STALLED
                break
            # Scales that change although the means rest are noise, and more than of rows alike.
            if before is not None and moved.step < _RESTING * step_tolerance:
                lasting = 0.0 if doubt is not None else _LASTING * before.log_scale
                if moved.log_scale > max(tolerance, lasting):
                    sharpened()
            doubts = doubt or 0.0
            if finer:
                (family, *others), q, before, earlier = others, best, moved, None
                found, found_by = look(q), family
                if found.are_finite:
                    continue
                status = Status.STALLED
                break
            new = family.part(q, best, pace)
            there, seen_by = look(new), family
            # What was seen with other points cannot be compared. In nats: less is noise, and would
            # not matter.
            before_it, after_it = family.slopes((q, found), (new, there))
            rise = 0.5 * float(np.sum(before_it + after_it))
            kept = there.are_finite and (seen_by is not found_by or rise > -0.01)
            highest, highest_scales = map(_highest, before_it, after_it)
            if kept:
                move, change = new.location - q.location, found.gradient - there.gradient
                q, found, found_by, before, earlier = new, there, seen_by, moved, before
                if highest > 1.0:
                    radius *= 3.0
                elif highest < _OVERSHOT:
                    radius = min(radius, max(moved.step, _SHORT))
                if moved.log_scale > tolerance:
                    pace = min(1.0, pace * np.clip(highest_scales, 0.5, 2.0))
                if renewed:
                    bend = curvature(q, found)
                # Along a ridge what is expected differs from what is where the mean is.
                # Where scales changed more, the gradient did so because of them.
                if moved.step > moved.log_scale:
                    bend.correct(move, change)
            else:
                before = earlier = None
                radius = min(highest, 0.5) * min(radius, moved.step)
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    return Ascent(q, status, passes, tuple(trail))


def look_closely[Q: Normal, D: Found](family: Family[Q, D], table: Table, again: Table, q: Q) -> D:
    """Go over `table`, and if its points turn out to be too few, over `again` with more."""
    found = family.look(table, q, 0)
    while found.are_finite and found.noise > family.most_noise:
        blunter, family = family, with_more_points(family, again)
        if family is blunter:
            break
        found = family.look(again, q, 0)
    return found


def with_more_points[Q: Normal, D: Found](family: Family[Q, D], table: Table) -> Family[Q, D]:
    """The next that looks at more points; the same if there are no more."""
    sharper = family
    for _ in range(_HALVINGS):
        sharper = sharper.sharper()
        if _looks_closer(sharper, family, table):
            return sharper
    return family


def _looks_closer[Q: Normal, D: Found](
    one: Family[Q, D], other: Family[Q, D], table: Table
) -> bool:
    return one.points(table.n_rows) > other.points(table.n_rows)


def _highest(before: float, after: float) -> float:
    """Where a parabola with these slopes at 0 and 1 is highest; at least a tenth."""
    if not before > after:  # it bends up, or is not finite
        return 2.0 if after > 0.0 else 0.25
    return max(before / (before - after), 0.1)


def _arrives(
    moved: Moved,
    before: Moved | None,
    earlier: Moved | None,
    step_tolerance: float,
    scale_tolerance: float,
    slowest: float,
) -> bool:
    """Whether what is left after a move is small.

    A move is about as long as the way that was left before it; what is left after it is less in the
    proportion in which this move was shorter than the one before, or that one than the one before
    it, whichever is nearer to one. Where moves become shorter slowly, though not more slowly than
    `slowest`, it is all that are to come, which may be twice as much. Small changes of scales come
    of the moves of the means, which they follow a pass later, and shrink as those do.
    """
    left = step_rate = scale_rate = 1.0
    if before is not None:
        step_rate, scale_rate = _rates(moved, before)
        if earlier is not None:
            step_rate, scale_rate = np.maximum((step_rate, scale_rate), _rates(before, earlier))
        if moved.log_scale < _FOLLOWING:
            scale_rate = min(scale_rate, step_rate)
        left = step_rate * max(1.0, 0.5 / (1.0 - min(step_rate, slowest)))
    return moved.step * left < step_tolerance and moved.log_scale * scale_rate < scale_tolerance


def _rates(moved: Moved, before: Moved) -> tuple[float, float]:
    """How much shorter a move was than the one before: of the means, and of the scales."""
    return (
        min(1.0, moved.step / max(before.step, 1e-12)),
        min(1.0, moved.log_scale / max(before.log_scale, 1e-12)),
    )
