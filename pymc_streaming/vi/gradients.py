"""Whether the likelihood has a gradient in every parameter that it depends on."""

from __future__ import annotations

from collections.abc import Sequence

import pymc as pm
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.traversal import ancestors
from pytensor.scalar.basic import Ceil, Floor, RoundHalfAwayFromZero, RoundHalfToEven, Sign, Trunc
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.variable import TensorVariable

from pymc_streaming.errors import NoGradientError

__all__ = ["check_gradients"]

_STEPS = Ceil, Floor, RoundHalfAwayFromZero, RoundHalfToEven, Sign, Trunc


def check_gradients(model: pm.Model, streamed: Sequence[TensorVariable]) -> None:
    """Refuse a parameter that reaches a likelihood or a potential through steps alone.

    Parameters
    ----------
    model : pymc.Model
        The model.
    streamed : sequence of TensorVariable
        The observed variables whose likelihood is of rows.

    Raises
    ------
    NoGradientError
        If there is such a parameter.
    """
    _check(
        model,
        "likelihood",
        streamed,
        "Write the step as a smooth function, such as "
        "pm.math.sigmoid((x - threshold) / width), or sum over its values.",
    )
    for potential in model.potentials:
        _check(
            model,
            f"potential {potential.name!r}",
            [potential],
            "Write a limit as a transform: "
            "transform=pm.distributions.transforms.ordered for an order, pm.TruncatedNormal, "
            "pm.LogNormal and others for a range.",
        )


def _check(model: pm.Model, what: str, variables: Sequence[TensorVariable], advice: str) -> None:
    terms = model.logp(vars=list(variables), sum=False)
    reached, smoothly = set(ancestors(terms)), _smooth_ancestors(terms)
    for variable in model.free_RVs:
        value = model.rvs_to_values[variable]
        if value in reached and value not in smoothly:
            raise NoGradientError(
                f"The {what} depends on {variable.name!r} but has no gradient in it, so that it "
                "cannot be fitted: it enters through a comparison, a switch, or rounding alone. "
                f"{advice}"
            )


def _smooth_ancestors(variables: Sequence[Variable]) -> set[Variable]:
    found: set[Variable] = set()
    left = list(variables)
    while left:
        variable = left.pop()
        if variable in found:
            continue
        found.add(variable)
        if variable.owner is not None and not _is_step(variable.owner):
            left += variable.owner.inputs
    return found


def _is_step(node: Apply) -> bool:
    """Whether what comes out changes by steps: whole numbers, truth values, what was rounded."""
    if isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, _STEPS):
        return True
    kinds = [getattr(out.type, "dtype", "float") for out in node.outputs]
    return all(kind.startswith(("bool", "int", "uint")) for kind in kinds)
