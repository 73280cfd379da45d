"""The loop over steps, in a form that Numba compiles and Python runs.

One call takes many steps, on consecutive batches that lie in memory one after the other. Compiled,
with the model's own compiled function called by its address, it runs without the interpreter and
without its lock, so a thread that reads ahead is not held up, and a step on a small batch costs
little more than its arithmetic. For the backends whose functions only Python can call, the same
source runs as it stands.

Everything that Numba compiles to its cache is in this file, because the cache follows the file's
own changes but not those of others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.errors import NumbaExperimentalFeatureWarning
from numba.extending import intrinsic, overload

__all__ = [
    "Evaluate",
    "Update",
    "accumulate",
    "advance",
    "compiled",
    "compiled_accumulate",
    "deviate",
]

#: From a draw and the arrays of a batch, in one tuple, to the gradient, in another.
Evaluate = Callable[[tuple[np.ndarray, ...]], tuple[np.ndarray]]

#: Moves parameters by their gradient, in the place of `adam`.
Update = Callable[[np.ndarray, np.ndarray, np.ndarray, float, int], None]

_VECTOR = types.Array(types.float64, 1, "C")
_MATRIX = types.Array(types.float64, 2, "C")

# The decay of Adam's two moments, and the number that keeps it from dividing by zero.
_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8


@numba.njit(nogil=True, cache=True)
def deviate(scales: np.ndarray, noise: np.ndarray, out: np.ndarray) -> None:
    """What standard normal `noise`, shape (d,), adds to the location in a draw.

    `scales` holds d log standard deviations, and for a dense normal after them the rows of a unit
    lower triangular matrix without its diagonal.
    """
    size = len(noise)
    entry = size
    for i in range(size):
        total = noise[i]
        if len(scales) > size:
            for j in range(i):
                total += scales[entry] * noise[j]
                entry += 1
        out[i] = np.exp(scales[i]) * total


@numba.njit(nogil=True, cache=True)
def pull(
    scales: np.ndarray,
    noise: np.ndarray,
    deviation: np.ndarray,
    slope: np.ndarray,
    out: np.ndarray,
) -> None:
    """Gradient of the objective with respect to `scales`, from the `slope` along the draw."""
    size = len(noise)
    entry = size
    for i in range(size):
        out[i] = slope[i] * deviation[i] - 1.0  # the entropy grows with every log scale
        if len(scales) > size:
            for j in range(i):
                out[entry] = slope[i] * np.exp(scales[i]) * noise[j]
                entry += 1


@numba.njit(nogil=True, cache=True)
def adam(
    parameters: np.ndarray, gradient: np.ndarray, moments: np.ndarray, rate: float, count: int
) -> None:
    """Update number `count`, from 1, of `parameters`, and of `moments`, shape (2, size).

    References
    ----------
    Kingma, D. P. and Ba, J. (2015). Adam: a method for stochastic optimization. ICLR.
    """
    step = rate * np.sqrt(1.0 - _SECOND**count) / (1.0 - _FIRST**count)
    for i in range(len(parameters)):
        moments[0, i] = _FIRST * moments[0, i] + (1.0 - _FIRST) * gradient[i]
        moments[1, i] = _SECOND * moments[1, i] + (1.0 - _SECOND) * gradient[i] ** 2
        parameters[i] -= step * moments[0, i] / (np.sqrt(moments[1, i]) + _EPSILON)


@numba.njit(nogil=True, cache=True)
def combine(a: np.ndarray, by: float, b: np.ndarray, with_: float, out: np.ndarray) -> None:
    """The sum ``by * a + with_ * b`` into `out`."""
    for i in range(len(out)):
        out[i] = by * a[i] + with_ * b[i]


@numba.njit(nogil=True, cache=True)
def is_finite(values: np.ndarray) -> bool:
    """Whether no element is NaN or infinite, nor the sum of their squares.

    Adam would remember an infinite square for ever, and never move again.
    """
    total = 0.0
    for value in values:
        total += value * value
    return bool(np.isfinite(total))


def gradient_at(model: Evaluate, arguments: tuple[np.ndarray, ...]) -> np.ndarray:
    """The gradient at a draw, of a batch. `model` is in compiled code a function's address."""
    return model(arguments)[0]


@overload(gradient_at)
def _gradient_at(model, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001
    return lambda model, arguments: _function_at(model, arguments)(arguments)[0]


@intrinsic
def _function_at(typing_context, address, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        function = cgutils.create_struct_proxy(signature.return_type)(context, builder)
        function.jit_addr = builder.inttoptr(values[0], cgutils.voidptr_t)
        return function._getvalue()

    return _model_type(arguments.types)(address, arguments), generate


def _model_type(argument_types: Iterable[Any]) -> Any:
    """What `advance` takes the machine code at an address for."""
    gradient = types.Array(types.float64, 1, "A")  # some models' comes with gaps in memory
    return types.FunctionType(types.UniTuple(gradient, 1)(types.StarArgTuple(argument_types)))


def rows(blocks: tuple[np.ndarray, ...], start: int, stop: int) -> tuple[np.ndarray, ...]:
    """Rows `start` to `stop` (excluded) of every block."""
    return tuple(block[start:stop] for block in blocks)


@overload(rows, strict=False)  # it holds annotations against those of a lambda
def _rows(blocks: Any, start: Any, stop: Any) -> Any:  # noqa: ARG001
    if len(blocks) == 0:
        return lambda blocks, start, stop: ()  # noqa: ARG005
    return lambda blocks, start, stop: (blocks[0][start:stop], *rows(blocks[1:], start, stop))


def advance(
    model: Any,
    updates: Sequence[Update] | None,
    batch_size: int,
    scales_every: int,
    completed: np.ndarray,
    blocks: tuple[np.ndarray, ...],
    constants: tuple[np.ndarray, ...],
    noise: np.ndarray,
    rates: np.ndarray,
    weights: np.ndarray,
    parameters: tuple[np.ndarray, np.ndarray],
    moments: tuple[np.ndarray, np.ndarray],
    averages: tuple[np.ndarray, np.ndarray],
) -> None:
    """Take a step for every row of `noise`, until one cannot be taken.

    A step whose gradient is not finite changes nothing and is the last.

    Parameters
    ----------
    model : callable, or the address of a compiled one
        The gradient of the negative log-density.
    updates : sequence of callable or None
        The optimiser of the location, and that of the scales; None for `adam`.
    batch_size : int
        Rows of a batch.
    scales_every : int
        Steps from one move of the scales to the next.
    completed : ndarray of int64, shape (1,)
        Steps taken since the parameters were made. Changed, at the end of each.
    blocks, constants : tuple of ndarray
        Batches, one after the other; what else `model` reads.
    noise : ndarray, shape (n, d)
        Standard normal draws.
    rates, weights : ndarray, shape (n,)
        Learning rates; weights of the iterates in the running average.
    parameters, moments, averages : tuple of ndarray
        Location and scales: themselves, what the optimiser remembers, their averages. Changed.
    """
    location, scales = parameters
    deviation, draw = np.empty_like(location), np.empty_like(location)
    slope, gradient = np.empty_like(location), np.empty_like(location)
    scales_gradient = np.empty_like(scales)
    for k in range(len(noise)):
        batch = rows(blocks, k * batch_size, (k + 1) * batch_size)
        deviate(scales, noise[k], deviation)
        combine(location, 1.0, deviation, 1.0, draw)
        forward = gradient_at(model, (draw, *batch, *constants))
        if not is_finite(forward):
            return
        if completed[0] % scales_every == 0:
            combine(location, 1.0, deviation, -1.0, draw)
            mirrored = gradient_at(model, (draw, *batch, *constants))
            if not is_finite(mirrored):
                return
            combine(forward, 0.5, mirrored, -0.5, slope)
            pull(scales, noise[k], deviation, slope, scales_gradient)
            count = completed[0] // scales_every + 1
            if updates is None:
                adam(scales, scales_gradient, moments[1], rates[k], count)
            else:
                updates[1](scales, scales_gradient, moments[1], rates[k], count)
            combine(forward, 0.5, mirrored, 0.5, gradient)
        else:
            combine(forward, 1.0, forward, 0.0, gradient)
        if updates is None:
            adam(location, gradient, moments[0], rates[k], completed[0] + 1)
        else:
            updates[0](location, gradient, moments[0], rates[k], completed[0] + 1)
        for i in range(2):
            combine(averages[i], 1.0 - weights[k], parameters[i], weights[k], averages[i])
        completed[0] += 1


def accumulate(
    model: Any,
    chunk_rows: int,
    n_rows: int,
    blocks: tuple[np.ndarray, ...],
    constants: tuple[np.ndarray, ...],
    points: np.ndarray,
    chosen: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add up what `model` gives for chunks of rows, each at a few points.

    Parameters
    ----------
    model : callable, or the address of a compiled one
        From a draw, rows and constants to a vector.
    chunk_rows : int
        Rows of a chunk; the last may have fewer.
    n_rows : int
        Rows of the blocks.
    blocks, constants : tuple of ndarray
        Rows; what else `model` reads.
    points : ndarray, shape (k, d)
        Draws.
    chosen : ndarray of int64, shape (chunks, m)
        For each chunk the points at which it is looked at; those below zero are left out.
    out : ndarray, shape (k, size of the vector)
        Sums, by point. Added to.
    """
    for chunk in range(len(chosen)):
        start = chunk * chunk_rows
        piece = rows(blocks, start, min(start + chunk_rows, n_rows))
        for point in chosen[chunk]:
            if point < 0:
                continue
            vector = gradient_at(model, (points[point], *piece, *constants))
            for i in range(len(vector)):
                out[point, i] += vector[i]


def compiled(
    function: Any, arguments: tuple[np.ndarray, ...], n_blocks: int
) -> tuple[Callable[..., None], int]:
    """`advance` compiled for one model, and its first argument.

    Parameters
    ----------
    function : numba dispatcher
        Takes `arguments` one by one: the draw, `n_blocks` blocks, the constants. It must be kept:
        its machine code goes with it.
    arguments : tuple of ndarray
        Arrays of the types that it will be called with.
    """
    pair = types.UniTuple(_VECTOR, 2)
    signature = types.void(
        types.int64,
        types.none,
        types.int64,
        types.int64,
        types.Array(types.int64, 1, "C"),
        *_argument_types(arguments, n_blocks),
        _MATRIX,
        _VECTOR,
        _VECTOR,
        pair,
        types.UniTuple(_MATRIX, 2),
        pair,
    )
    return _loop(advance, signature), _address(function, arguments)


def compiled_accumulate(
    function: Any, arguments: tuple[np.ndarray, ...], n_blocks: int
) -> tuple[Callable[..., None], int]:
    """The same for `accumulate`."""
    signature = types.void(
        types.int64,
        types.int64,
        types.int64,
        *_argument_types(arguments, n_blocks),
        _MATRIX,
        types.Array(types.int64, 2, "C"),
        _MATRIX,
    )
    return _loop(accumulate, signature), _address(function, arguments)


def _argument_types(arguments: tuple[np.ndarray, ...], n_blocks: int) -> tuple[Any, Any]:
    return numba.typeof(arguments[1 : 1 + n_blocks]), numba.typeof(arguments[1 + n_blocks :])


def _address(function: Any, arguments: tuple[np.ndarray, ...]) -> int:
    """Where the machine code of `function` is, compiled for `arguments`."""
    # A loop that is given the address is the same for every model with such arrays, and found in
    # the cache. To pass the function itself would cost a tenth of a millisecond at every call.
    expected = _model_type([numba.typeof(argument) for argument in arguments]).signature
    function.compile(expected)
    result = function.overloads[expected.args]
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


def _loop(function: Callable[..., None], signature: Any) -> Callable[..., None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaExperimentalFeatureWarning)
        return numba.njit(signature, nogil=True, cache=True)(function)  # type: ignore[no-any-return]
