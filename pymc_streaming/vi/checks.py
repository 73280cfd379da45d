"""What is checked once about a model, before anything is compiled.

Each check stands for a way to get a wrong posterior without any error: a likelihood that is
scaled by the wrong number, or not at all, or that must not be scaled. They look at the graph
of the model; `additivity` evaluates it on the first batch as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytensor
from pymc.pytensorf import constant_fold
from pymc.variational.minibatch_rv import MinibatchRandomVariable
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.shape import Shape, Shape_i
from pytensor.tensor.variable import TensorVariable

from pymc_streaming.errors import (
    BatchSizedShapeWarning,
    DependentRowsError,
    DiscreteLatentError,
    FixedObservedError,
    ModelError,
    NothingStreamedError,
    ObservedRowsError,
    RowSizedLatentError,
    StreamedPotentialError,
    StreamedPriorError,
    TotalSizeIsBatchCountError,
    TotalSizeMismatchError,
    TotalSizeMissingError,
    TotalSizeTooSmallError,
    UnstreamedTotalSizeError,
)
from pymc_streaming.notices import warn
from pymc_streaming.vi.additivity import PROBE_MODE, check_additive
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.gradients import check_gradients

__all__ = ["check_model"]


def check_model(
    binding: Binding, batch: Mapping[str, np.ndarray], *, n_rows: int, num_batches: int
) -> list[TensorVariable]:
    """Refuse a model that streaming would give a wrong posterior.

    Parameters
    ----------
    binding : Binding
        The model and its placeholders.
    batch : mapping of str to ndarray
        The first batch.
    n_rows : int
        Rows N that one pass streams.
    num_batches : int
        Batches in one pass.

    Returns
    -------
    list of TensorVariable
        The observed variables whose likelihood is streamed.

    Raises
    ------
    ModelError
        One subclass for each thing that can be wrong.
    NonFiniteError
        If the log-likelihood of the first batch is not finite where the fit would start.

    Warns
    -----
    BatchSizedShapeWarning
        If something in the model that does not depend on the batch has its number of rows.
    """
    model = binding.model
    _check_potentials(binding)
    streamed = _streamed_likelihoods(binding)
    _check_free_variables(binding)
    with binding.in_placeholders(batch):
        for variable in model.observed_RVs:
            if variable in streamed:
                _check_total_size(variable, binding, n_rows, num_batches)
                _check_rows_are_separate(variable)
                _check_observed(variable, binding)
            else:
                _check_unscaled(variable)
    check_gradients(model, streamed)
    _warn_batch_sized(binding, streamed)
    check_additive(binding, streamed, batch, n_rows)
    return streamed


def _streamed_likelihoods(binding: Binding) -> list[TensorVariable]:
    model = binding.model
    used = {
        variable: _placeholders_of([variable, model.rvs_to_values[variable]], binding)
        for variable in model.observed_RVs
    }
    unused = sorted(set(binding.names.values()).difference(*used.values()))
    if unused:
        raise NothingStreamedError(
            f"No likelihood depends on pm.Data {', '.join(map(repr, unused))}, so streaming it "
            "changes nothing. Use it in the observed values or parameters of a likelihood, or "
            "leave its column out."
        )
    return [variable for variable, names in used.items() if names]


def _check_free_variables(binding: Binding) -> None:
    model = binding.model
    if not model.free_RVs:
        raise ModelError("The model has no free variables: there is nothing to fit.")
    for variable in model.free_RVs:
        if np.dtype(variable.dtype).kind != "f":
            raise DiscreteLatentError(
                f"Free variable {variable.name!r} is discrete ({variable.dtype}); variational "
                "inference moves along gradients. Marginalise it out, e.g. with pm.Mixture."
            )
        # Looking no further than the variable's own parameters: what they inherit from
        # another free variable is that one's fault.
        others = [other for other in model.free_RVs if other is not variable]
        if names := _placeholders_of([variable], binding, blockers=others, through_shape=False):
            raise StreamedPriorError(
                f"The prior of {variable.name!r} depends on the values in pm.Data "
                f"{', '.join(map(repr, names))}: it would be another prior at every step, and PyMC "
                "does not rescale it. Compute what it needs over the whole table beforehand."
            )
        if names := _placeholders_of([variable], binding, blockers=others):
            raise RowSizedLatentError(
                f"Free variable {variable.name!r} takes its shape from pm.Data "
                f"{', '.join(map(repr, names))}: element i would belong to another row in every "
                "batch. Marginalise it out, or index it by group with a streamed column of "
                "group codes, e.g. effect[group]."
            )


def _check_potentials(binding: Binding) -> None:
    model = binding.model
    for potential in model.potentials:
        inside = set(ancestors([potential], blockers=model.free_RVs))
        # Where a potential reads an observed variable, PyMC puts its observed values.
        values = [model.rvs_to_values[rv] for rv in model.observed_RVs if rv in inside]
        if names := _placeholders_of([potential, *values], binding, blockers=model.free_RVs):
            raise StreamedPotentialError(
                f"Potential {potential.name!r} depends on pm.Data {', '.join(map(repr, names))}; "
                "PyMC never rescales a potential, so it would count for one batch instead of all "
                "rows. Write it as a likelihood: pm.CustomDist(..., logp=..., observed=..., "
                "total_size=len(loader))."
            )


def _check_total_size(
    variable: TensorVariable, binding: Binding, n_rows: int, num_batches: int
) -> None:
    name, batch_size = variable.name, binding.n_rows
    fix = "Pass total_size=len(loader), which is the number of rows."
    totals = _total_size(variable)
    if not totals:
        raise TotalSizeMissingError(
            f"Likelihood {name!r} depends on a streamed pm.Data but has no total_size (0 counts "
            f"as none): the {batch_size:,} rows of a batch would count as all the data there are, "
            f"instead of standing for {n_rows:,}. {fix}"
        )
    shape = _value(binding.model.rvs_to_values[variable].shape)
    axis, total = next(iter(totals.items()))
    if total != n_rows:
        if total == num_batches:
            raise TotalSizeIsBatchCountError(
                f"Likelihood {name!r} has total_size={total:,}, the number of batches; it must be "
                f"the number of rows, {n_rows:,}. {fix}"
            )
        if total < batch_size:
            raise TotalSizeTooSmallError(
                f"Likelihood {name!r} has total_size={total:,}, less than the {batch_size:,} rows "
                f"of one batch. {fix}"
            )
        raise TotalSizeMismatchError(
            f"Likelihood {name!r} has total_size={total:,}, but the loader streams {n_rows:,} "
            f"rows. {fix}"
        )
    if shape[axis] != batch_size:
        raise ObservedRowsError(
            f"Likelihood {name!r} observes an array of shape {tuple(map(int, shape))}, in which "
            f"axis {axis} should have the {batch_size:,} rows of a batch: PyMC scales by "
            "total_size over the length of that axis. Observe one value, or one row, per row "
            "of the batch."
        )
    static = binding.static(binding.model.rvs_to_values[variable]).shape[axis]
    (length,) = constant_fold([static], raise_not_constant=False)
    if not isinstance(length, np.ndarray | np.integer | int):
        raise ObservedRowsError(
            f"How many values likelihood {name!r} observes depends on the values in the batch, so "
            "PyMC would scale each batch by another number. Drop rows before they are streamed, "
            "with filters= or in the source."
        )
    others = {a: t for a, t in totals.items() if a != axis and t != shape[a]}
    if others:
        raise TotalSizeMismatchError(
            f"Likelihood {name!r} is scaled along axes {sorted(totals)}; only the rows are "
            f"streamed. Pass total_size=(len(loader), None)."
        )


def _check_rows_are_separate(variable: TensorVariable) -> None:
    distribution = variable.owner.inputs[0]
    support = getattr(getattr(distribution.owner, "op", None), "ndim_supp", 0)
    if support >= variable.ndim:
        raise DependentRowsError(
            f"Likelihood {variable.name!r} ({_kind(distribution)}) is one joint distribution over "
            "all rows of a batch; its log-density is not a sum over rows, so no total_size can "
            "rescale it. Use a likelihood with independent rows."
        )


def _check_observed(variable: TensorVariable, binding: Binding) -> None:
    value = binding.model.rvs_to_values[variable]
    if _placeholders_of([value], binding):
        return
    observed = _value(value)
    if np.all(observed == observed.flat[0]):
        return  # the zeros or ones of a trick with custom densities: the same for every row
    raise FixedObservedError(
        f"Likelihood {variable.name!r} compares a streamed pm.Data with observed values that stay "
        "the same in every batch. Stream them too: observed=batch[:, k], or a pm.Data of their own."
    )


def _check_unscaled(variable: TensorVariable) -> None:
    totals = _total_size(variable)
    shape = tuple(int(n) for n in _value(variable.shape)) if totals else ()
    if any(total != shape[axis] for axis, total in totals.items()):
        raise UnstreamedTotalSizeError(
            f"Likelihood {variable.name!r} is not streamed, but has total_size="
            f"{next(iter(totals.values())):,} for an array of shape {shape}: it would count "
            "more than once. Leave total_size out for data that is wholly in the model, and give "
            "a pm.Minibatch to the loader as an array instead."
        )


def _warn_batch_sized(binding: Binding, streamed: list[TensorVariable]) -> None:
    model, rows = binding.model, binding.n_rows
    shapes = model.eval_rv_shapes()
    found = [
        f"free variable {variable.name!r}"
        for variable in model.free_RVs
        if rows in shapes[variable.name] and rows > 1
    ]
    fixed = {
        node
        for node in ancestors(
            [node for rv in streamed for node in (rv, model.rvs_to_values[rv])],
            blockers=model.free_RVs,
        )
        if isinstance(node, Constant | SharedVariable)
        and node not in binding.placeholders.values()
        and rows in np.shape(_content(node))
    }
    found += [f"the fixed array {node.name or node.type}" for node in fixed if rows > 1]
    if found:
        warn(
            f"{found[0][0].upper()}{', '.join(found)[1:]} has the {rows:,} rows of a batch but "
            "stays the same from batch to batch. If it is meant to go with the rows, stream it; "
            "if the equality is chance, choose another batch_size.",
            BatchSizedShapeWarning,
        )


def _placeholders_of(
    variables: Iterable[Variable],
    binding: Binding,
    *,
    blockers: Iterable[Variable] = (),
    through_shape: bool = True,
) -> list[str]:
    """Names of the streamed ``pm.Data`` that `variables` depend on, sorted."""
    found: set[str] = set()
    names = {placeholder: binding.names[key] for key, placeholder in binding.placeholders.items()}
    blocked, seen = set(blockers), set()
    pending = list(variables)
    while pending:
        variable = pending.pop()
        if variable in seen or variable in blocked:
            continue
        seen.add(variable)
        if variable in names:
            found.add(names[variable])
        node = variable.owner
        if node is not None and (through_shape or not isinstance(node.op, Shape | Shape_i)):
            pending.extend(node.inputs)
    return sorted(found)


def _total_size(variable: TensorVariable) -> dict[int, int]:
    """The ``total_size`` of an observed variable, by axis; empty when it has none."""
    node = variable.owner
    if node is None or not isinstance(node.op, MinibatchRandomVariable):
        return {}
    sizes = dict(enumerate(node.inputs[1:]))
    return {
        axis: int(_value(size)) for axis, size in sizes.items() if isinstance(size, TensorVariable)
    }


def _value(variable: Variable) -> np.ndarray:
    return np.asarray(pytensor.function([], variable, mode=PROBE_MODE, on_unused_input="ignore")())


def _content(node: Constant | SharedVariable) -> Any:
    if isinstance(node.type, RandomType):
        return None
    return node.data if isinstance(node, Constant) else node.get_value(borrow=True)


def _kind(variable: Variable) -> str:
    return type(variable.owner.op).__name__.removesuffix("RV") if variable.owner else "observed"
