"""Conditions under which a log-likelihood is more than minus infinity.

PyMC writes the support of a distribution as ``switch(condition, logp, -inf)`` and the domain
of its parameters as a check around the result. A value outside gives a loss of infinity but
very often a finite gradient, so a step that asks only for gradients would never notice. The
conditions are a few comparisons, so the step can ask for them each time.
"""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
from pymc.logprob.utils import CheckParameterValue
from pytensor.graph.basic import Constant, Variable
from pytensor.scalar.basic import Cast, Mul, Switch
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.variable import TensorVariable

__all__ = ["inside_support"]


def inside_support(log_likelihood: TensorVariable) -> TensorVariable:
    """Whether every element of `log_likelihood` is inside its distribution's support.

    Only conditions that decide the whole density count: what lies below a sum of densities,
    as in a mixture, may be outside the support of one component.

    Parameters
    ----------
    log_likelihood : TensorVariable
        Elementwise log-likelihood, possibly scaled.

    Returns
    -------
    TensorVariable
        Boolean scalar.
    """
    conditions: list[TensorVariable] = []
    pending: list[Variable] = [log_likelihood]
    while pending:
        node = pending.pop().owner
        if node is None:
            continue
        if isinstance(node.op, CheckParameterValue):
            conditions += node.inputs[1:]
            pending.append(node.inputs[0])
        elif isinstance(node.op, DimShuffle):
            pending += node.inputs
        elif isinstance(node.op, Elemwise):
            if isinstance(node.op.scalar_op, Mul | Cast):
                pending += node.inputs
            elif isinstance(node.op.scalar_op, Switch):
                condition, if_true, if_false = node.inputs
                if _is_minus_infinity(if_false):
                    conditions.append(condition)
                    pending.append(if_true)
                elif _is_minus_infinity(if_true):
                    conditions.append(pt.invert(condition.astype("bool")))
                    pending.append(if_false)
    return pt.all([pt.all(condition) for condition in conditions] or [True])


def _is_minus_infinity(variable: Variable) -> bool:
    while variable.owner is not None and (
        isinstance(variable.owner.op, DimShuffle)
        or (
            isinstance(variable.owner.op, Elemwise) and isinstance(variable.owner.op.scalar_op, Cast)
        )
    ):
        variable = variable.owner.inputs[0]
    return isinstance(variable, Constant) and bool(np.all(np.isneginf(variable.data)))
