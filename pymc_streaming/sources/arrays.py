"""NumPy arrays to the two types of a block, ``floatX`` and int64, without silent loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pymc_streaming.errors import MissingValueError, PrecisionError, SourceError
from pymc_streaming.sources.base import SINGLE, Block

__all__ = ["block_dtype", "floating_dtype", "named_arrays", "narrowed", "refuse_large"]


def floating_dtype() -> np.dtype:
    """PyTensor's ``floatX`` of this moment."""
    import pytensor  # takes a second, and few users of this module need it

    dtype: np.dtype = np.dtype(pytensor.config.floatX)
    return dtype


def block_dtype(dtype: np.dtype, floating: np.dtype) -> np.dtype | None:
    """The type an array of `dtype` has in a block, or None if it holds no numbers."""
    if dtype.kind == "f":
        return floating
    return np.dtype(np.int64) if dtype.kind in "iub" else None


def refuse_large(values: np.ndarray, floating: np.dtype, where: str) -> None:
    """Raise `PrecisionError` if a whole number is too large for `floating` to hold exactly.

    Parameters
    ----------
    values : numpy.ndarray
        Whole numbers, or floats that stand for exact quantities (seconds, decimals).
    floating : numpy.dtype
        Where they are to go.
    where : str
        The place in words, for the message.
    """
    limit = 2 ** (np.finfo(floating).nmant + 1)
    if values.dtype.kind == "b" or not len(values):
        return
    if values.dtype.kind in "iu" and np.iinfo(values.dtype).max <= limit:
        return
    lowest, highest = values.min(), values.max()
    # Not abs(): the magnitude of the lowest int64 is not an int64.
    if lowest >= -limit and highest <= limit:
        return
    largest = highest if highest > limit else lowest
    raise PrecisionError(
        f"{where} holds {largest.item():,}, beyond ±{limit:,}: {floating} cannot tell such numbers "
        "apart. Subtract an origin in a transform, give it levels in `categories` if it is a code, "
        "or read it as an integer array of its own."
    )


def narrowed(values: np.ndarray, dtype: np.dtype, where: str, *, copy: bool = False) -> np.ndarray:
    """`values` as `dtype`; `PrecisionError` rather than an overflow."""
    if values.dtype == dtype and not copy:
        return values
    if values.dtype == np.uint64 and dtype.kind == "i" and len(values):
        largest = int(values.max())
        if largest > np.iinfo(dtype).max:
            raise PrecisionError(
                f"{where} holds {largest:,}, too large for {dtype}. Give it levels in `categories` "
                "if it is a code, or write the table with smaller numbers."
            )
    try:
        with np.errstate(over="raise"):
            return values.astype(dtype, copy=copy)
    except FloatingPointError:
        raise PrecisionError(
            f"{where} holds a number beyond ±{np.finfo(dtype).max:.3g}, the largest {dtype}. "
            "Rescale it in a transform, or set PyTensor's floatX to float64."
        ) from None


def named_arrays(
    value: Any, floating: np.dtype, where: str, error: type[SourceError], *, convert: bool = True
) -> Block:
    """A block from what a person's code or argument holds: an array, or a mapping of arrays.

    Parameters
    ----------
    value : array_like or Mapping[str, array_like]
        One array is called ``"batch"``.
    floating : numpy.dtype
        Type of the floating arrays of the block.
    where : str
        Whose value it is, in words, for messages.
    error : type of SourceError
        What to raise when it is not such a value.
    convert : bool, default True
        Whether to convert to ``floatX`` and int64 now, or only to check.

    Returns
    -------
    dict of str to numpy.ndarray
    """
    given = value if isinstance(value, Mapping) else {SINGLE: value}
    if not given:
        raise error(f"{where} returned no arrays, expected at least one.")
    block: Block = {}
    for name, item in given.items():
        if not isinstance(name, str):
            raise error(f"{where}: expected the names of arrays to be strings, found {name!r}.")
        what = f"{where}: array {name!r}"
        if isinstance(item, np.ma.MaskedArray) and np.ma.count_masked(item):
            raise MissingValueError(
                f"{what} has {np.ma.count_masked(item):,} masked entries, expected a number in "
                "every place. Fill them (array.filled(...)); a missing-indicator column keeps the "
                "information."
            )
        try:
            array = np.asarray(item)
        except ValueError as reason:
            raise error(f"{what} is no array of numbers: {reason}.") from reason
        dtype = block_dtype(array.dtype, floating)
        if dtype is None or array.ndim == 0:
            raise error(
                f"{what} should be an array of numbers with one row per observation, found "
                f"{type(item).__name__} of shape {array.shape} and type {array.dtype}."
            )
        block[name] = narrowed(array, dtype, what) if convert else array
    lengths = {name: len(array) for name, array in block.items()}
    if len(set(lengths.values())) > 1:
        raise error(f"{where}: the arrays have different numbers of rows: {lengths}.")
    return block
