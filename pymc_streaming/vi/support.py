"""Conditions under which a log-likelihood is more than minus infinity.

PyMC writes the support of a distribution as ``switch(condition, logp, -inf)`` and the domain
of its parameters as a check around the result. A value outside gives a loss of infinity but
very often a finite gradient, so a step that asks only for gradients would never notice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytensor.tensor as pt
from pymc.logprob.utils import CheckParameterValue
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.scalar.basic import Add, Cast, Log, Mul, Sub, Switch
from pytensor.tensor.basic import Alloc, Join, MakeVector
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.math import All
from pytensor.tensor.shape import SpecifyShape
from pytensor.tensor.variable import TensorVariable

__all__ = ["support_violation", "violation"]

_TRUE, _FALSE = pt.as_tensor(np.array(True)), pt.as_tensor(np.array(False))


def support_violation(log_likelihood: TensorVariable) -> TensorVariable:
    """Zero if every element of `log_likelihood` is inside its distribution's support, else NaN.

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
        A scalar. It is a sum over rows, as the gradient is, so it is computed in the same pass.
    """
    inside = _inside(log_likelihood)
    return violation(inside, log_likelihood.dtype)


def violation(condition: TensorVariable, dtype: str) -> TensorVariable:
    """Zero if `condition` is true everywhere, else NaN."""
    zero, nan = (np.asarray(value, dtype) for value in (0.0, np.nan))
    return pt.switch(condition, zero, nan).sum()


def _inside(density: Variable) -> TensorVariable:
    """The same, element by element; a constant True where nothing is known to be outside."""
    if _is_minus_infinity(density):
        return _FALSE
    node = density.owner
    if node is None:
        return _TRUE
    if isinstance(node.op, CheckParameterValue):
        checks = [
            _by_element(condition, density)
            for check in node.inputs[1:]
            for condition in _conditions(pt.as_tensor(check))
        ]
        return _and(_inside(node.inputs[0]), *checks)
    if isinstance(node.op, Alloc | SpecifyShape):
        return _inside(node.inputs[0])
    if isinstance(node.op, DimShuffle):
        inside = _inside(node.inputs[0])
        return inside if inside is _TRUE or inside.ndim == 0 else node.op(inside)
    if isinstance(node.op, Elemwise):
        if isinstance(node.op.scalar_op, Mul | Cast | Add | Sub):
            return _and(*[_inside(part) for part in node.inputs])
        if isinstance(node.op.scalar_op, Log):
            condition = _boolean(node.inputs[0])
            return _TRUE if condition is None else condition
        if isinstance(node.op.scalar_op, Switch):
            condition, if_true, if_false = node.inputs
            inside = _inside(if_true), _inside(if_false)
            if any(branch is not _TRUE for branch in inside):
                return pt.switch(condition, *inside)
    return _TRUE


def _boolean(variable: Variable) -> TensorVariable | None:
    """The condition that a number is, 0 or 1; None for other numbers."""
    tensor = pt.as_tensor(_beneath(variable, _is_cast))
    return tensor if tensor.type.dtype == "bool" else None


def _conditions(check: TensorVariable) -> list[TensorVariable]:
    """The conditions that were put together into one: ``all([all(a), all(b)])``."""
    node = check.owner
    if node is not None and isinstance(node.op, All) and check.type.ndim == 0:
        together = node.inputs[0].owner
        if together is not None and isinstance(together.op, MakeVector | Join):
            inputs = together.inputs[isinstance(together.op, Join) :]
            scalars = [_beneath(each, _is_shape) for each in inputs]
            if all(scalar.type.ndim == 0 for scalar in scalars):
                return [found for scalar in scalars for found in _conditions(scalar)]
    return [check]


def _beneath(variable: Variable, is_wrapping: Callable[[Apply], bool]) -> Variable:
    """What a variable is made of by wrappings of one input alone."""
    while variable.owner is not None and is_wrapping(variable.owner):
        variable = variable.owner.inputs[0]
    return variable


def _is_cast(node: Apply) -> bool:
    return isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, Cast)


def _is_shape(node: Apply) -> bool:
    return isinstance(node.op, DimShuffle)


def _by_element(check: TensorVariable, density: Variable) -> TensorVariable:
    """The condition that `check` asks of all elements, if each belongs to one of `density`."""
    check = check.astype("bool")
    node = check.owner
    if node is None or not isinstance(node.op, All):
        return check
    each = node.inputs[0].astype("bool")
    wanted, found = density.type.shape, each.type.shape
    fits = len(found) <= len(wanted) and all(
        size == 1 or (size is not None and size == other)
        for size, other in zip(reversed(found), reversed(wanted), strict=False)
    )
    return each if fits and node.op.axis in (None, tuple(range(each.ndim))) else check


def _and(*conditions: TensorVariable) -> TensorVariable:
    known = [condition for condition in conditions if condition is not _TRUE]
    return functools.reduce(pt.and_, known) if known else _TRUE


def _is_minus_infinity(variable: Variable) -> bool:
    variable = _beneath(variable, lambda node: _is_cast(node) or _is_shape(node))
    return isinstance(variable, Constant) and bool(np.all(np.isneginf(variable.data)))
