"""After a step that was not finite: which variables are to blame."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytensor
from pytensor.compile.mode import Mode

from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.guides import Guide
from pymc_streaming.vi.step import flat

__all__ = ["not_finite"]


def not_finite(
    binding: Binding, guide: Guide, batch: Mapping[str, np.ndarray], noise: np.ndarray
) -> str:
    """Words for what is not finite at the draw made of `noise`.

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
    """
    model = binding.model
    # Not replaced by slots: this reads pm.Data, and runs in Python, once.
    draw = guide.location + guide.deviation(pytensor.tensor.as_tensor(noise))
    variables = [*model.free_RVs, *model.observed_RVs]
    densities = [flat(term.sum(), guide, draw) for term in model.logp(vars=variables, sum=False)]
    gradient = pytensor.grad(flat(model.logp(), guide, draw), guide.location)
    function = pytensor.function(
        [], [*densities, gradient], mode=Mode(linker="py", optimizer="fast_compile")
    )
    with binding.in_placeholders(batch), np.errstate(all="ignore"):
        *values, slope = function()
    bad = [
        f"the log-density of {variable.name!r} is {float(value)}"
        for variable, value in zip(variables, values, strict=True)
        if not np.isfinite(value)
    ]
    bad += [
        f"the gradient with respect to {name!r} has {int((~np.isfinite(slope[where])).sum())} "
        "elements that are NaN or infinite"
        for name, where, *_ in guide.group.ordering.values()
        if not np.isfinite(slope[where]).all()
    ]
    return "; ".join(bad) or "the sum of the gradients overflows"
