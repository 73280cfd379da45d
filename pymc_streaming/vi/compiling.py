"""How everything is compiled that runs on batches."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pymc.pytensorf import resolve_backend_compile_kwargs
from pytensor import config
from pytensor.compile.mode import Mode, get_mode
from pytensor.graph.replace import graph_replace
from pytensor.link.jax.linker import JAXLinker
from pytensor.link.numba.linker import NumbaLinker
from pytensor.tensor.variable import TensorVariable

from pymc_streaming.errors import ArgumentError
from pymc_streaming.vi import kernels
from pymc_streaming.vi.guides import Guide
from pymc_streaming.vi.indices import clip_indices
from pymc_streaming.vi.linking import ClosedLinker
from pymc_streaming.vi.products import with_light_products
from pymc_streaming.vi.support import support_violation, violation

__all__ = [
    "all_but",
    "arguments_of",
    "backend_of",
    "called",
    "compiled",
    "constants",
    "flat",
    "function_settings",
    "guarded",
    "is_numba",
]


def arguments_of(backend: str | None, compile_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of ``pytensor.function`` for a backend; refused if they cannot be used."""
    given = dict(compile_kwargs) if compile_kwargs else None
    try:
        arguments: dict[str, Any] = resolve_backend_compile_kwargs(backend, given)
    except (KeyError, ValueError, TypeError) as error:
        raise ArgumentError(
            f"backend={backend!r} with compile_kwargs={compile_kwargs!r} cannot be used: "
            f"{error}. Backends are 'numba', 'jax' and 'c'."
        ) from error
    return arguments


def backend_of(compile_kwargs: Mapping[str, Any]) -> str:
    """What compiles, ``"numba"``, ``"jax"`` or ``"c"``, by the arguments that a person gave."""
    linker = get_mode(compile_kwargs.get("mode")).linker
    if isinstance(linker, NumbaLinker):
        return "numba"
    return "jax" if isinstance(linker, JAXLinker) else "c"


def function_settings(compile_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``pytensor.function``, from those that a person gave."""
    mode = get_mode(compile_kwargs.get("mode"))
    if isinstance(mode.linker, NumbaLinker):
        mode = with_light_products(mode)
        mode = Mode(ClosedLinker(allow_gc=mode.linker.allow_gc), mode.provided_optimizer)
    if isinstance(mode.linker, JAXLinker):
        # Keep JAX from cutting float64 and int64 to half, which it does unless told otherwise.
        import jax

        importlib.import_module("pytensor.link.jax.dispatch")  # sets the same switch on import
        jax.config.update("jax_enable_x64", True)
    return {
        **compile_kwargs,
        # The conditions behind PyMC's parameter checks are in `support_violation` already.
        "mode": mode.including("local_remove_check_parameter"),
        "trust_input": True,
        "on_unused_input": "ignore",
    }


def compiled(inputs: Sequence[Any], outputs: Any, settings: Mapping[str, Any], **more: Any) -> Any:
    """``pytensor.function``, which leaves no files behind.

    What PyTensor writes for Numba stays for ever, in the folder of temporary files, unless it is
    told of another, which it keeps tidy.
    """
    folder = config.generated_src_dir or str(Path(config.base_compiledir) / "generated_source")
    with config.change_flags(generated_src_dir=folder):
        return pytensor.function(list(inputs), outputs, **settings, **more)


def is_numba(settings: Mapping[str, Any]) -> bool:
    """Whether functions compiled so can be called from compiled code."""
    return isinstance(settings["mode"].linker, NumbaLinker)


def guarded(
    terms: Sequence[TensorVariable], data: Sequence[TensorVariable]
) -> tuple[list[TensorVariable], TensorVariable]:
    """Log-likelihoods that are safe to compile, and zero, or NaN where they mean nothing.

    Parameters
    ----------
    terms : sequence of TensorVariable
        Elementwise log-likelihoods.
    data : sequence of TensorVariable
        The arrays of rows that they are of.
    """
    terms, in_range = clip_indices(terms, data)
    violations = [support_violation(term) for term in terms]
    violations += [violation(condition, terms[0].dtype) for condition in in_range]
    return terms, pt.add(*violations)


def all_but(streamed: Sequence[TensorVariable], model: pm.Model) -> list[TensorVariable]:
    """Everything in a model that has a log-density, but for the likelihoods that are streamed."""
    variables = [*model.basic_RVs, *model.potentials]
    return [variable for variable in variables if variable not in streamed]


def flat(expression: TensorVariable, guide: Guide, draw: TensorVariable) -> TensorVariable:
    """Replace the value variables in `expression` by slices of the flat vector `draw`."""
    model = guide.group.model
    values = {value.name: value for value in model.value_vars}
    replacements = {
        values[name]: draw[where].reshape(shape).astype(dtype)
        for name, where, shape, dtype in guide.group.ordering.values()
    }
    return graph_replace(expression, replacements, strict=False)


def constants(function: Any, n_inputs: int) -> tuple[np.ndarray, ...]:
    """What a compiled function reads besides its inputs: shared variables, as they are now."""
    # In one layout, whatever a person has set: the loops are compiled for it.
    return tuple(
        np.require(value, requirements=("C", "W")) if isinstance(value, np.ndarray) else value
        for value in (container.storage[0] for container in function.input_storage[n_inputs:])
    )


def called(function: Any, arguments: tuple[np.ndarray, ...]) -> kernels.Evaluate:
    """A compiled function in the form in which `kernels` call one, called once."""

    def evaluate(given: tuple[np.ndarray, ...]) -> tuple[np.ndarray]:
        return (np.asarray(function(*given[: len(arguments)])[0]),)

    evaluate(arguments)
    return evaluate
