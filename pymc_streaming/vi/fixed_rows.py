"""Models in which a number of rows is written down."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pymc_streaming.errors import FixedRowsError
from pymc_streaming.vi.passes import Sample, gradients_at
from pymc_streaming.vi.terms import Terms

__all__ = ["check_any_number_of_rows"]


def check_any_number_of_rows(
    terms: Terms, location: np.ndarray, batch: Mapping[str, np.ndarray]
) -> None:
    """Refuse a model that takes as many rows as a batch has, and no other number.

    Parameters
    ----------
    terms : Terms
        The model, compiled.
    location : ndarray, shape (d,)
        Any draw.
    batch : mapping of str to ndarray
        Some rows.

    Raises
    ------
    FixedRowsError
        If one row less is an error.
    """
    rows = Sample(dict(batch))
    fewer = rows.first(max(1, rows.n_rows - 1))
    try:
        gradients_at(terms, fewer, location[None])
    except Exception as error:
        raise FixedRowsError(
            f"The model works on batches of {rows.n_rows:,} rows but not on {fewer.n_rows:,}, and "
            "exact passes and diagnoses take as many as there are. Take the number of rows from "
            "the data instead of writing it down (a shape=, zeros(...)), or take steps: "
            'fit(20_000), say, or fit() with strategy="streaming".'
        ) from error
