"""Blocks made on demand: a function that starts a fresh iterator for every pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from pymc_streaming.errors import (
    ArgumentError,
    ConsumedIteratorError,
    RowCountError,
    RowCountWarning,
    SchemaError,
)
from pymc_streaming.notices import warn
from pymc_streaming.sources.arrays import floating_dtype, named_arrays
from pymc_streaming.sources.base import ArraySpec, Block, Fragment, IterableDataset
from pymc_streaming.sources.columns import described

__all__ = ["GeneratorSource", "generator_source"]


def generator_source(
    factory: Callable[[], Iterator[Any]], *, n_rows: int | None = None
) -> GeneratorSource:
    """Read blocks from a function that starts a fresh iterator for every pass.

    Parameters
    ----------
    factory : callable
        Called without arguments once per pass, returns an iterator of blocks: one
        array, or a mapping of named arrays with equally many rows. Every block has
        the same arrays, row shapes and types; only the number of rows may differ.
        Floats become PyTensor's ``floatX``, integers and booleans int64.
    n_rows : int, optional
        Rows in one pass. When it is not given, a pass is spent on counting them. An
        iterator without end needs it, as the N of the population it draws from.

    Returns
    -------
    GeneratorSource
        One fragment. It cannot be read from the middle.

    Raises
    ------
    ConsumedIteratorError
        If the factory returns the same iterator again.
    SchemaError
        If a block is no block, or unlike the first.
    RowCountError
        If there are no rows.

    Warns
    -----
    RowCountWarning
        If the rows had to be counted.

    Examples
    --------
    >>> import numpy as np
    >>> from pymc_streaming import generator_source
    >>> def blocks():
    ...     for seed in range(3):
    ...         yield np.random.default_rng(seed).normal(size=(100, 4))
    >>> generator_source(blocks, n_rows=300).layout["batch"].row_shape
    (4,)
    """
    return GeneratorSource(factory, n_rows=n_rows)


class GeneratorSource(IterableDataset):
    """Blocks made on demand; made by :func:`generator_source`."""

    def __init__(self, factory: Callable[[], Iterator[Any]], *, n_rows: int | None = None) -> None:
        if isinstance(factory, Iterator):
            raise ConsumedIteratorError(
                f"generator_source was given a {type(factory).__name__}, which can be read only "
                "once; streaming inference reads the data many times. Give the function that makes "
                "it: generator_source(blocks), not generator_source(blocks())."
            )
        if not callable(factory):
            raise ArgumentError(f"factory must be callable, found {type(factory).__name__}.")
        given: object = n_rows
        if given is not None and (type(given) is bool or not isinstance(given, int) or given < 1):
            raise ArgumentError(f"n_rows must be an int of at least 1, found {n_rows!r}.")
        self._factory = factory
        self._floating = floating_dtype()
        iterator = self._start()
        try:
            first = next(iterator, None)
        finally:
            _close(iterator)
        if first is None:
            raise RowCountError("The generator yielded no block, expected at least one.")
        self.layout = _layout(named_arrays(first, self._floating, _where(0), SchemaError))
        again = self._start()
        _close(again)
        if again is iterator:
            raise ConsumedIteratorError(
                "The factory returned the same iterator twice, and an iterator can be read only "
                "once. Make a new one in every call: lambda: make_blocks(), not lambda: blocks."
            )
        self._n_rows = int(n_rows) if n_rows is not None else self._counted()
        known = None if n_rows is not None else self._n_rows
        self.fragments = [Fragment(known, "generator")]

    @property
    def n_rows(self) -> int:
        """Rows in one pass, as given or counted."""
        return self._n_rows

    def __repr__(self) -> str:
        return f"<GeneratorSource: {self.n_rows:,} rows; {described(self.layout)}>"

    def read(self, fragment: Fragment) -> Iterator[Block]:  # noqa: ARG002
        """Yield the blocks of a fresh iterator."""
        iterator = self._start()
        number = -1
        try:
            for number, value in enumerate(iterator):
                block = named_arrays(value, self._floating, _where(number), SchemaError)
                if (found := _layout(block)) != self.layout:
                    raise SchemaError(
                        f"{_where(number)} has {described(found)}, expected as in the first block "
                        f"{described(self.layout)}. Make every block with the same arrays, row "
                        "shapes and types."
                    )
                yield block
        finally:
            _close(iterator)
        if number < 0:
            raise ConsumedIteratorError(
                "The factory's iterator yielded nothing, but did when the source was made. Make "
                "everything that it reads from anew in every call."
            )

    def _start(self) -> Iterator[Any]:
        made = self._factory()
        try:
            return iter(made)
        except TypeError as error:
            raise ArgumentError(
                f"factory must return an iterator of blocks, found {type(made).__name__}."
            ) from error

    def _counted(self) -> int:
        started = time.perf_counter()
        n_rows = sum(
            len(next(iter(block.values()))) for block in self.read(Fragment(None, "generator"))
        )
        if not n_rows:
            raise RowCountError("The generator yielded no rows, expected at least one.")
        warn(
            f"A pass of {time.perf_counter() - started:.1f} s was spent on counting the "
            f"{n_rows:,} rows of the generator. Give n_rows={n_rows} to save it.",
            RowCountWarning,
        )
        return n_rows


def _layout(block: Block) -> dict[str, ArraySpec]:
    return {name: ArraySpec(array.shape[1:], array.dtype) for name, array in block.items()}


def _where(number: int) -> str:
    return f"generator, block {number:,}"


def _close(iterator: Iterator[Any]) -> None:
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
