"""Which columns of a batch a model reads. Found out by evaluating it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pymc as pm
import pytensor

from pymc_streaming.vi.additivity import PROBE_MODE
from pymc_streaming.vi.binding import Binding

__all__ = ["unread_columns"]


def unread_columns(
    model: pm.Model, data_name: str | Mapping[str, str] | None, batch: Mapping[str, np.ndarray]
) -> set[tuple[str, int]]:
    """Columns of which the likelihood is the same in any order of their values.

    Of a column with one value only, and of a model that cannot be evaluated, nothing is claimed.

    Parameters
    ----------
    model : pymc.Model
        The model.
    data_name : str, mapping or None
        As for a `Binding`.
    batch : mapping of str to ndarray
        A batch of at least two rows.

    Returns
    -------
    set of (str, int)
        The array, and the number of the column in it.
    """
    unread = set()
    random = np.random.default_rng(0)
    try:
        binding = Binding(model, data_name, batch)
        values = [model.rvs_to_values[variable] for variable in model.free_RVs]
        terms = model.logp(vars=model.observed_RVs, sum=False)
        function = pytensor.function(values, terms, mode=PROBE_MODE, on_unused_input="ignore")
        point = [
            (start + 0.1 * random.standard_normal(start.shape)).astype(start.dtype)
            for start in (model.initial_point(random_seed=0)[value.name] for value in values)
        ]

        def log_likelihoods(rows: Mapping[str, np.ndarray]) -> np.ndarray:
            with binding.in_placeholders(rows):
                return np.concatenate([np.ravel(term) for term in function(*point)])

        expected = log_likelihoods(batch)
        for name, array in batch.items():
            flat = array.reshape(len(array), -1)
            for column in range(flat.shape[1]):
                mixed = flat.copy()
                mixed[:, column] = np.roll(flat[:, column], 1)
                if np.array_equal(mixed, flat):
                    continue
                found = log_likelihoods({**batch, name: mixed.reshape(array.shape)})
                if np.array_equal(found, expected):
                    unread.add((name, column))
    except Exception:  # noqa: BLE001 - what is wrong with the model is said where it is checked
        return set()
    return unread
