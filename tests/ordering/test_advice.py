from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pymc_streaming.ordering.advice import UPPER, off_by


@given(st.floats(0.1, 1e7))
def test_what_is_said_bounds_a_prediction_with_one_digit(error):
    found = re.fullmatch(r"off by up to ([\d,.]+) posterior standard deviations?", off_by(error))
    shown = found[1].replace(",", "")
    assert shown.strip("0.") in ("1", "3")
    assert UPPER * error <= float(shown) * (1 + 1e-9) <= 3.4 * UPPER * error


def test_what_is_not_known_is_not_said():
    assert "cannot be told" in off_by(np.inf)
