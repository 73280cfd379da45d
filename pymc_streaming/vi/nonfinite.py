"""After a step that could not be taken: what is to blame."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytensor

from pymc_streaming.errors import FitError, IndexRangeError, NonFiniteError
from pymc_streaming.vi.additivity import PROBE_MODE
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.compiling import flat
from pymc_streaming.vi.guides import Guide
from pymc_streaming.vi.indices import streamed_indices

__all__ = ["explain"]


def explain(
    binding: Binding,
    guide: Guide,
    batch: Mapping[str, np.ndarray],
    noise: np.ndarray,
    where: str,
    advice: str,
) -> FitError:
    """Find out why a step could not be taken.

    Parameters
    ----------
    binding : Binding
        The model and its placeholders.
    guide : Guide
        Its parameters are those of the last good step.
    batch : mapping of str to ndarray
        The batch of the failed step.
    noise : ndarray, shape (d,)
        Standard normal draw of the failed step.
    where : str
        Words for the step and its rows.
    advice : str
        What to do when parameters ran away.

    Returns
    -------
    IndexRangeError or NonFiniteError
        To be raised.
    """
    kept = "The parameters of the last good step are kept in trainer.approximation."
    with binding.in_placeholders(batch), np.errstate(all="ignore"):
        if found := _out_of_range(binding, guide):
            return IndexRangeError(
                f"{where}: {found}. Give the codes through categories= with all "
                f"levels, or give the parameter more elements; filter out rows without a group. "
                f"{kept}"
            )
        found = _not_finite(binding, guide, noise)
    return NonFiniteError(
        f"{where}, is not finite: {found}. {kept} Look for values outside the support of the "
        f"likelihood or far out of scale. {advice}"
    )


def _out_of_range(binding: Binding, guide: Guide) -> str:
    placeholders = binding.placeholders.values()
    indices = streamed_indices([binding.model.logp()], placeholders)
    if not indices:
        return ""
    expressions = [
        flat(expression, guide, pytensor.tensor.as_tensor(guide.location))
        for index in indices
        for expression in (index.index.min(), index.index.max(), index.size)
    ]
    values = iter(pytensor.function([], expressions, mode=PROBE_MODE)())
    limits = {
        (index.name, int(next(values)), int(next(values)), int(next(values))) for index in indices
    }
    return "; ".join(
        f"the codes that index {name!r} run from {least} to {most}, but it has the elements 0 to "
        f"{size - 1}"
        for name, least, most, size in sorted(limits)
        if least < 0 or most >= size
    )


def _not_finite(binding: Binding, guide: Guide, noise: np.ndarray) -> str:
    model = binding.model
    # Not the compiled functions: this reads pm.Data, and runs in Python, once.
    draw = pytensor.shared(guide.draw(noise))
    variables = [*model.free_RVs, *model.observed_RVs]
    densities = [flat(term.sum(), guide, draw) for term in model.logp(vars=variables, sum=False)]
    gradient = pytensor.grad(flat(model.logp(), guide, draw), draw)
    *values, slope = pytensor.function([], [*densities, gradient], mode=PROBE_MODE)()
    bad = [
        f"the log-density of {variable.name!r} is {float(value)}"
        for variable, value in zip(variables, values, strict=True)
        if not np.isfinite(value)
    ]
    bad += [
        f"the gradient with respect to {name!r} is NaN or infinite in "
        f"{int((~np.isfinite(slope[where])).sum())} of {slope[where].size} elements"
        for name, where, *_ in guide.group.ordering.values()
        if not np.isfinite(slope[where]).all()
    ]
    return "; ".join(bad) or "the sum of the gradients overflows"
