"""A matrix times a vector, compiled in a second.

PyTensor has one product, of two matrices in any layout, and to compile that for Numba takes half a
minute on a machine that never did. A linear predictor, and the gradient of its coefficients, need
no more than this.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytensor.tensor as pt
from numba import types
from numba.extending import get_cython_function_address
from pytensor.compile.mode import Mode
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import in2out, node_rewriter
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)
from pytensor.tensor.elemwise import DimShuffle
from pytensor.tensor.math import Dot

__all__ = ["with_light_products"]

# After PyTensor's own rewrites have settled, and before loops are fused.
_POSITION = 48.0


class MatrixVectorProduct(Op):
    """``matrix @ vector``, of one floating type."""

    __props__ = ()

    def make_node(self, matrix: Any, vector: Any) -> Apply:
        """Apply it."""
        matrix, vector = pt.as_tensor(matrix), pt.as_tensor(vector)
        out = pt.tensor(shape=(matrix.type.shape[0],), dtype=matrix.dtype)
        return Apply(self, [matrix, vector], [out])

    def perform(self, node: Apply, inputs: Any, output_storage: Any) -> None:  # noqa: ARG002
        """Compute it."""
        matrix, vector = inputs
        output_storage[0][0] = matrix @ vector


_product = MatrixVectorProduct()


@node_rewriter([Dot])
def _lighten(fgraph: Any, node: Apply) -> list[Any] | None:  # noqa: ARG001
    left, right = node.inputs
    if left.dtype != right.dtype or left.dtype not in _GEMV:
        return None
    if right.type.shape[1] == 1:
        return [pt.expand_dims(_product(left, _squeezed(right, 1)), 1)]
    if left.type.shape[0] == 1:
        return [pt.expand_dims(_product(right.T, _squeezed(left, 0)), 0)]
    return None


def _squeezed(matrix: Any, axis: int) -> Any:
    """The vector that a matrix of one column, or row, was made of."""
    node = matrix.owner
    if node is not None and isinstance(node.op, DimShuffle) and node.inputs[0].ndim == 1:
        return node.inputs[0]
    return pt.squeeze(matrix, axis)


def with_light_products(mode: Mode) -> Mode:
    """`mode` with the products that need it."""
    return mode.register((in2out(_lighten), _POSITION))


def _blas(letter: str) -> Any:
    """The routine of SciPy's BLAS under a name by which machine code from a cache finds it."""
    name = f"pymc_streaming_{letter}gemv"
    address = get_cython_function_address("scipy.linalg.cython_blas", f"{letter}gemv")
    llvm.add_symbol(name, address)
    return types.ExternalFunction(name, types.void(*[types.voidptr] * 11))


_GEMV = {"float32": _blas("s"), "float64": _blas("d")}


@register_funcify_default_op_cache_key(MatrixVectorProduct)
def _compiled(_op: MatrixVectorProduct, node: Apply, **_: Any) -> tuple[Any, int]:
    dtype = np.dtype(node.outputs[0].dtype)
    gemv = _GEMV[dtype.name]

    @numba_njit
    def product(matrix, vector):  # type: ignore[no-untyped-def]
        n_rows, n_columns = matrix.shape
        if len(vector) != n_columns:
            raise ValueError("a matrix and a vector do not fit")
        if vector.strides[0] != vector.itemsize:
            vector = vector.copy()
        out = np.zeros(n_rows, dtype)
        item, (first, second) = matrix.itemsize, matrix.strides
        by_rows = second == item and (n_rows == 1 or first >= n_columns * item)
        by_columns = first == item and (n_columns == 1 or second >= n_rows * item)
        if not (by_rows or by_columns) or first % item or second % item:
            matrix, by_rows = matrix.copy(), True
            first = n_columns * item
        # To BLAS, columns are what lies together: a matrix by rows is one transposed.
        kind = np.array([84 if by_rows else 78], np.uint8)  # the letters T and N
        inner, outer = (n_columns, n_rows) if by_rows else (n_rows, n_columns)
        lead = max((first if by_rows else second) // item, inner, 1)
        sizes = np.array([inner, outer, lead, 1], np.int32)
        numbers = np.array([1.0, 0.0], dtype)
        gemv(
            kind.ctypes,
            sizes.ctypes,
            sizes[1:].ctypes,
            numbers.ctypes,
            matrix.ctypes,
            sizes[2:].ctypes,
            vector.ctypes,
            sizes[3:].ctypes,
            numbers[1:].ctypes,
            out.ctypes,
            sizes[3:].ctypes,
        )
        return out

    return product, 1
