"""Codes in the data that pick elements of a parameter: ``effect[group]``.

Compiled code does not look whether a code is in range: one that is too large reads, and in the
gradient writes, memory that belongs to something else, and a negative one counts from the end.
Here every such index is clipped, so that nothing can happen, and watched, so that a code out of
range stops the fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply, Variable, equal_computations
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.traversal import ancestors
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.subtensor import AdvancedSubtensor
from pytensor.tensor.variable import TensorVariable

__all__ = [
    "CODES",
    "StreamedIndex",
    "clip_indices",
    "out_of_range",
    "picked_variables",
    "streamed_indices",
]

#: What to do about a code out of range.
CODES = (
    "Give the codes through categories= with all levels, or give the parameter more elements; "
    "filter out rows without a group."
)


@dataclass(frozen=True)
class StreamedIndex:
    """An index that depends on the data.

    Parameters
    ----------
    base : TensorVariable
        What is indexed.
    index : TensorVariable
        The codes.
    size : TensorVariable
        Elements along the axis that they index.
    """

    base: TensorVariable
    index: TensorVariable
    size: TensorVariable

    @property
    def name(self) -> str:
        """Of what is indexed."""
        return self.base.name or str(self.base)

    @property
    def in_range(self) -> TensorVariable:
        """Whether all codes are in range; a boolean scalar."""
        return pt.all(pt.ge(self.index, 0) & pt.lt(self.index, self.size))


def streamed_indices(
    expressions: Sequence[TensorVariable], data: Iterable[Variable]
) -> list[StreamedIndex]:
    """All indices in `expressions` that depend on `data`."""
    nodes = {variable.owner for variable in ancestors(expressions) if variable.owner is not None}
    sources = set(data)
    return [found for node in nodes for _, found in _indices_of(node, sources)]


def out_of_range(
    indices: Sequence[StreamedIndex],
    evaluate: Callable[[list[TensorVariable]], Sequence[int | np.ndarray]],
) -> str:
    """Which codes are out of range, in words; empty if none are.

    Parameters
    ----------
    indices : sequence of StreamedIndex
        Where codes pick elements.
    evaluate : callable
        Gives the values of expressions, for the rows in question.
    """
    if not indices:
        return ""
    values = iter(
        evaluate([wanted for i in indices for wanted in (i.index.min(), i.index.max(), i.size)])
    )
    limits = {(i.name, int(next(values)), int(next(values)), int(next(values))) for i in indices}
    return "; ".join(
        f"the codes that index {name!r} run from {least} to {most}, but it has the elements 0 to "
        f"{size - 1}"
        for name, least, most, size in sorted(limits)
        if least < 0 or most >= size
    )


def picked_variables(
    expressions: Sequence[TensorVariable], data: Iterable[Variable], values: Iterable[Variable]
) -> set[Variable]:
    """Those of `values` of which codes in the data pick elements, one for a row.

    What is indexed must be made of them element by element: not of a matrix and a vector, say. And
    it must be indexed by one code alone: a row with two picks two elements, as of two players.
    """
    sources, wanted = set(data), set(values)
    nodes = {variable.owner for variable in ancestors(expressions) if variable.owner is not None}
    found: dict[Variable, list[Variable]] = {}
    for node in nodes:
        for _, index in _indices_of(node, sources):
            if wanted.isdisjoint(ancestors([index.index])):
                for variable in _made_of(index.base, wanted):
                    codes = found.setdefault(variable, [])
                    if not any(equal_computations([index.index], [each]) for each in codes):
                        codes.append(index.index)
    return {variable for variable, codes in found.items() if len(codes) == 1}


def _made_of(base: Variable, values: set[Variable]) -> set[Variable]:
    """Those of `values` that `base` is made of element by element."""
    found, left = set(), [base]
    while left:
        variable = left.pop()
        if variable in values:
            found.add(variable)
        elif variable.owner is not None and isinstance(variable.owner.op, Elemwise | DimShuffle):
            left += variable.owner.inputs
    return found


def clip_indices(
    expressions: Sequence[TensorVariable], data: Iterable[Variable]
) -> tuple[list[TensorVariable], list[TensorVariable]]:
    """Clip all indices that depend on `data`.

    Returns
    -------
    expressions : list of TensorVariable
        The same where every code is in range.
    conditions : list of TensorVariable
        Whether they are, boolean scalars.
    """
    graph = FunctionGraph(outputs=list(expressions), clone=True, copy_inputs=False)
    sources = set(data)
    conditions = []
    for node in graph.toposort():
        for position, found in _indices_of(node, sources):
            clipped = pt.clip(found.index, 0, found.size - 1).astype(found.index.dtype)
            graph.change_node_input(node, position, clipped)
            conditions.append(found.in_range)
    return list(graph.outputs), conditions


def _indices_of(node: Apply, data: set[Variable]) -> list[tuple[int, StreamedIndex]]:
    """Position among the inputs, and index, for each index of a node that depends on `data`."""
    if not isinstance(node.op, AdvancedSubtensor):
        return []
    entries = enumerate(node.op.idx_list)
    axes = {entry + 1: axis for axis, entry in entries if isinstance(entry, int)}
    base = node.inputs[0]
    return [
        (position, StreamedIndex(base, index, base.shape[axis]))
        for position, axis in axes.items()
        if (index := node.inputs[position]).type.dtype != "bool"
        and data.intersection(ancestors([index]))
    ]
