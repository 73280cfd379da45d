"""Batches and the model's ``pm.Data``: which array goes where, and how it gets there.

The compiled step does not read ``pm.Data``. It takes the arrays of a batch as arguments, of the
batch's own static shape, in the place of the placeholders in the graph. So every backend compiles,
nothing has to be set before a step, and the model is never left holding a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.replace import graph_replace
from pytensor.tensor.variable import TensorVariable

from pymc_streaming.errors import PlaceholderError

__all__ = ["Binding", "placeholder_names"]


class Binding:
    """The connection between the arrays of a batch and a model's placeholders.

    Parameters
    ----------
    model : pymc.Model
        Model whose ``pm.Data`` are filled.
    data_name : str, mapping or None
        Name of the ``pm.Data`` for the one array of the batch; or a mapping from the name
        of each array to the name of its ``pm.Data``; or None when they have the same names.
    batch : mapping of str to ndarray
        A batch as all others will be: names, shapes, dtypes.

    Raises
    ------
    PlaceholderError
        If a name, number of dimensions, shape of a row or kind of number does not fit.
    """

    def __init__(
        self,
        model: pm.Model,
        data_name: str | Mapping[str, str] | None,
        batch: Mapping[str, np.ndarray],
    ) -> None:
        self.model = model
        self.names = placeholder_names(data_name, list(batch))
        self.placeholders = {
            key: _placeholder(model, name, key, batch[key]) for key, name in self.names.items()
        }
        self.n_rows = len(next(iter(batch.values())))
        self._inputs: dict[str, TensorVariable] = {}
        self._convert: dict[str, np.dtype | None] = {}
        for key, placeholder in self.placeholders.items():
            dtype = np.dtype(placeholder.dtype)
            self._convert[key] = None if batch[key].dtype == dtype else dtype
            self._inputs[key] = pt.tensor(self.names[key], shape=batch[key].shape, dtype=dtype)

    def static(self, expression: TensorVariable) -> TensorVariable:
        """The same expression, of the arrays of a batch instead of the placeholders."""
        replacements = {self.placeholders[key]: array for key, array in self._inputs.items()}
        return graph_replace(expression, replacements, strict=False)

    @property
    def inputs(self) -> list[TensorVariable]:
        """The variables that stand for the arrays of a batch, in the order of `arrays`."""
        return list(self._inputs.values())

    def arrays(self, batches: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """The arrays of one or more batches as compiled functions take them.

        They are not copied, unless a placeholder has another type.

        Raises
        ------
        PlaceholderError
            If that type cannot hold a whole number that is there.
        """
        return tuple(self._converted(key, batches[key]) for key in self._inputs)

    @contextmanager
    def in_placeholders(self, batch: Mapping[str, np.ndarray]) -> Iterator[None]:
        """Put `batch` into the model's ``pm.Data`` with ``set_data``, and restore them after.

        Raises
        ------
        PlaceholderError
            If PyMC refuses the batch.
        """
        before = {key: data.get_value(borrow=True) for key, data in self.placeholders.items()}
        try:
            for key, name in self.names.items():
                try:
                    self.model.set_data(name, self._converted(key, batch[key]))
                except (ValueError, TypeError, NotImplementedError) as error:
                    raise PlaceholderError(
                        f"pm.Data {name!r} does not take the first batch, of shape "
                        f"{batch[key].shape}: {error} Declare it with as many rows as a batch "
                        "has, e.g. pm.Data(name, loader.placeholder())."
                    ) from error
            yield
        finally:
            for key, value in before.items():
                self.placeholders[key].set_value(value, borrow=True)

    def _converted(self, key: str, array: np.ndarray) -> np.ndarray:
        """`array` in the dtype of its placeholder, refused if that changes a whole number."""
        dtype = self._convert[key]
        if dtype is None:
            return array
        converted = array.astype(dtype)
        if array.dtype.kind in "iu" and not np.array_equal(converted, array):
            worst = array.flat[np.argmax(converted != array)]
            raise PlaceholderError(
                f"pm.Data {self.names[key]!r} holds {dtype} and cannot take the value {worst:,} "
                f"of array {key!r} ({array.dtype}). PyMC narrows integer data with floatX "
                "(int32 for float64, int16 for float32) but leaves unsigned types alone: "
                f"declare it as pm.Data({self.names[key]!r}, np.zeros(batch_size, 'uint32'))."
            )
        return converted


def placeholder_names(data_name: str | Mapping[str, str] | None, keys: list[str]) -> dict[str, str]:
    """From each array of a batch to the name of its ``pm.Data``."""
    if data_name is None:
        return {key: key for key in keys}
    if isinstance(data_name, str):
        if len(keys) > 1:
            raise PlaceholderError(
                f"data_name={data_name!r} names one pm.Data, but a batch has the arrays {keys}. "
                "Give a mapping from array to pm.Data, or leave data_name out when the names "
                "are the same."
            )
        return {keys[0]: data_name}
    if set(data_name) != set(keys):
        raise PlaceholderError(
            f"data_name must map every array of a batch to a pm.Data: expected the keys "
            f"{sorted(keys)}, found {sorted(data_name)}."
        )
    if len(set(data_name.values())) < len(data_name):
        raise PlaceholderError(f"data_name maps two arrays to one pm.Data: {dict(data_name)}.")
    return dict(data_name)


def _placeholder(model: pm.Model, name: str, key: str, array: np.ndarray) -> SharedVariable:
    known = sorted(variable.name for variable in model.data_vars)
    placeholder = model.named_vars.get(name, model.named_vars.get(model.name_for(name)))
    if placeholder is None or placeholder not in model.data_vars:
        raise PlaceholderError(
            f"The model has no pm.Data {name!r} for the array {key!r}; its pm.Data are {known}. "
            "data_name= says which one each array goes into."
        )
    if not isinstance(placeholder, SharedVariable):
        raise PlaceholderError(
            f"{name!r} is a constant in this model, not a pm.Data that can be refilled."
        )
    shape = placeholder.get_value(borrow=True).shape
    if len(shape) != array.ndim or shape[1:] != array.shape[1:]:
        raise PlaceholderError(
            f"pm.Data {name!r} has shape {shape}, a batch of {key!r} has shape {array.shape}: "
            "all but the number of rows must agree. loader.placeholder() gives zeros of the "
            "right shape."
        )
    if array.dtype.kind == "f" and np.dtype(placeholder.dtype).kind != "f":
        raise PlaceholderError(
            f"pm.Data {name!r} holds {placeholder.dtype}, but batches of {key!r} hold "
            f"{array.dtype}, which would be cut to whole numbers. Declare it with floating "
            "zeros, or give the integer column a name of its own in columns=."
        )
    return placeholder
