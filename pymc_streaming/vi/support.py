"""Conditions under which a log-likelihood is more than minus infinity.

PyMC writes the support of a distribution as ``switch(condition, logp, -inf)`` and the domain
of its parameters as a check around the result. A value outside gives a loss of infinity but
very often a finite gradient, so a step that asks only for gradients would never notice. The
conditions are a few comparisons, so the step can ask for them each time.
"""

from __future__ import annotations

import functools

import numpy as np
import pytensor.tensor as pt
from pymc.logprob.utils import CheckParameterValue
from pytensor.graph.basic import Constant, Variable
from pytensor.scalar.basic import Cast, Mul, Switch
from pytensor.tensor.basic import Alloc
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.shape import SpecifyShape
from pytensor.tensor.variable import TensorVariable

__all__ = ["inside_support"]

_TRUE, _FALSE = pt.as_tensor(np.array(True)), pt.as_tensor(np.array(False))


def inside_support(log_likelihood: TensorVariable) -> TensorVariable:
    """Whether every element of `log_likelihood` is inside its distribution's support.

    Only conditions that decide the whole density count: what lies below a sum of densities,
    as in a mixture, may be outside the support of one component. A value outside that of all
    components is not seen.

    Parameters
    ----------
    log_likelihood : TensorVariable
        Elementwise log-likelihood, possibly scaled.

    Returns
    -------
    TensorVariable
        Boolean scalar.
    """
    return pt.all(_inside(log_likelihood))


def _inside(density: Variable) -> TensorVariable:
    """The same, element by element; a constant True where nothing is known to be outside."""
    if _is_minus_infinity(density):
        return _FALSE
    node = density.owner
    if node is None:
        return _TRUE
    if isinstance(node.op, CheckParameterValue):
        return _and(
            _inside(node.inputs[0]),
            *[pt.as_tensor(check).astype("bool") for check in node.inputs[1:]],
        )
    if isinstance(node.op, Alloc | SpecifyShape):
        return _inside(node.inputs[0])
    if isinstance(node.op, DimShuffle):
        inside = _inside(node.inputs[0])
        return inside if inside is _TRUE or inside.ndim == 0 else node.op(inside)
    if isinstance(node.op, Elemwise):
        if isinstance(node.op.scalar_op, Mul | Cast):
            return _and(*[_inside(factor) for factor in node.inputs])
        if isinstance(node.op.scalar_op, Switch):
            condition, if_true, if_false = node.inputs
            inside = _inside(if_true), _inside(if_false)
            if any(branch is not _TRUE for branch in inside):
                return pt.switch(condition, *inside)
    return _TRUE


def _and(*conditions: TensorVariable) -> TensorVariable:
    known = [condition for condition in conditions if condition is not _TRUE]
    return functools.reduce(pt.and_, known) if known else _TRUE


def _is_minus_infinity(variable: Variable) -> bool:
    while variable.owner is not None and (
        isinstance(variable.owner.op, DimShuffle)
        or (
            isinstance(variable.owner.op, Elemwise)
            and isinstance(variable.owner.op.scalar_op, Cast)
        )
    ):
        variable = variable.owner.inputs[0]
    return isinstance(variable, Constant) and bool(np.all(np.isneginf(variable.data)))
