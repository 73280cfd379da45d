"""After a step that could not be taken: what is to blame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.tensor.variable import TensorVariable

from pymc_streaming.errors import FitError, IndexRangeError, NonFiniteError
from pymc_streaming.vi.additivity import PROBE_MODE
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.compiling import flat
from pymc_streaming.vi.guides import Guide
from pymc_streaming.vi.indices import CODES, out_of_range, streamed_indices

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
        indices = streamed_indices([binding.model.logp()], binding.placeholders.values())
        if found := out_of_range(indices, lambda wanted: _evaluated(wanted, guide)):
            return IndexRangeError(f"{where}: {found}. {CODES} {kept}")
        found = _not_finite(binding, guide, noise)
    return NonFiniteError(
        f"{where}, is not finite: {found}. {kept} Look for values outside the support of the "
        f"likelihood or far out of scale. {advice}"
    )


def _evaluated(wanted: Sequence[TensorVariable], guide: Guide) -> list[np.ndarray]:
    """Values of expressions where the guide is."""
    at = pt.as_tensor(guide.location)
    values: list[np.ndarray] = pytensor.function(
        [], [flat(expression, guide, at) for expression in wanted], mode=PROBE_MODE
    )()
    return values


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
