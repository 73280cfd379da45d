"""A model in words, to tell whether another is the same."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
import pymc as pm
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors, io_toposort

__all__ = ["describe_model"]

# Constants up to this size are written out.
_WRITTEN_OUT = 4


def describe_model(model: pm.Model, placeholders: Collection[Variable]) -> dict[str, str]:
    """For each variable and potential its kind, its shape, and what its log-density is made of.

    Parameters
    ----------
    model : pymc.Model
        The model.
    placeholders : collection of Variable
        What is refilled, so that its values say nothing.

    Examples
    --------
    >>> with pm.Model() as model:
    ...     _ = pm.Normal("b", 0.0, 1.5, shape=2)
    >>> describe_model(model, [])["b"]
    'NormalRV (2,), constants -0.5 0 0 0 1.5 2 2 6.28..., computed by ...'
    """
    described = {}
    for variable in [*model.basic_RVs, *model.potentials]:
        value = model.rvs_to_values.get(variable)
        transform = model.rvs_to_transforms.get(variable)
        words = [type(variable.owner.op).__name__ if variable.owner else "potential"]
        if value is not None:
            words.append(str(value.type.shape))
        if transform is not None:
            words.append(f"by {type(transform).__name__}")
        (logp,) = model.logp(vars=[variable], sum=False)
        described[str(variable.name)] = f"{' '.join(words)}, {_made_of(logp, placeholders)}"
    return described


def _made_of(graph: Variable, placeholders: Collection[Variable]) -> str:
    constants = [
        _in_words(content)
        for each in ancestors([graph])
        if each not in placeholders and (content := _content(each)) is not None
    ]
    digest = _digest(graph, placeholders)
    return f"constants {' '.join(sorted(constants))}, computed by {digest}"


def _content(variable: Variable) -> object:
    """Of a constant, or a variable that is shared."""
    if isinstance(variable, Constant):
        return variable.data
    return variable.get_value(borrow=True) if isinstance(variable, SharedVariable) else None


def _digest(graph: Variable, placeholders: Collection[Variable]) -> str:
    """A hash of what is computed from what, in which order, down to names and all digits."""
    known: dict[Variable, str] = {}

    def leaf(variable: Variable) -> str:
        content = None if variable in placeholders else _content(variable)
        if content is None:
            return f"{variable.name} {variable.type}"
        array = np.asarray(content)
        raw = repr(content).encode() if array.dtype == object else array.tobytes()
        return f"{array.dtype}{array.shape}{hashlib.sha256(raw).hexdigest()}"

    def of(variable: Variable) -> str:
        if variable not in known:
            known[variable] = hashlib.sha256(leaf(variable).encode()).hexdigest()
        return known[variable]

    for node in io_toposort([], [graph]):
        inputs = " ".join(of(each) for each in node.inputs)
        for number, output in enumerate(node.outputs):
            words = f"{node.op} {number} of {inputs}"
            known[output] = hashlib.sha256(words.encode()).hexdigest()
    return of(graph)[:8]


def _in_words(value: object) -> str:
    array = np.asarray(value)
    if array.dtype == object or array.size > _WRITTEN_OUT:
        content = repr(value).encode() if array.dtype == object else array.tobytes()
        return f"{array.dtype}{array.shape}:{hashlib.sha256(content).hexdigest()[:8]}"
    return ",".join(f"{each:.12g}" for each in array.ravel().tolist())
