from __future__ import annotations

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode

from pymc_streaming.vi.indices import clip_indices, picked_variables, streamed_indices

FAST = Mode(linker="py", optimizer="fast_compile")
CODES = pytensor.shared(np.array([0, 2, 1]), name="codes")
EFFECT = pt.as_tensor(np.array([10.0, 20.0, 30.0])).copy(name="effect")
TABLE = pt.as_tensor(np.arange(12.0).reshape(3, 4)).copy(name="table")
COUNTY_OF = pt.as_tensor(np.array([1, 0, 2])).copy(name="county_of")


def evaluate(expression, codes):
    (clipped,), conditions = clip_indices([expression], [CODES])
    function = pytensor.function(
        [CODES_IN], [clipped, *conditions], givens={CODES: CODES_IN}, mode=FAST
    )
    value, *in_range = function(np.asarray(codes))
    return value, [bool(condition) for condition in in_range]


CODES_IN = pt.lvector("codes_in")


@pytest.mark.parametrize(
    "build",
    [
        lambda codes: EFFECT[codes],
        lambda codes: EFFECT[codes][:, None] * 2,
        lambda codes: TABLE[codes],
        lambda codes: TABLE[codes, 1],
        lambda codes: TABLE[:, codes],
        lambda codes: TABLE[codes, codes],
        lambda codes: EFFECT[(codes * 1.0).astype("int64")],
        lambda codes: EFFECT[COUNTY_OF[codes]],
    ],
)
def test_nothing_changes_in_range_and_nothing_is_missed_out_of_it(build):
    expression = build(CODES)
    plain = pytensor.function([CODES_IN], expression, givens={CODES: CODES_IN}, mode=FAST)
    value, in_range = evaluate(expression, [0, 2, 1])
    np.testing.assert_array_equal(value, plain([0, 2, 1]))
    assert in_range
    assert all(in_range)
    for codes in ([0, 2, -1], [0, 2, 100_000]):
        _, in_range = evaluate(expression, codes)
        assert not all(in_range)


def test_only_what_depends_on_the_data_is_watched():
    fixed = pt.as_tensor(np.array([0, 1]))
    assert streamed_indices([EFFECT[fixed] + EFFECT[:2]], [CODES]) == []
    assert (
        streamed_indices([EFFECT[pt.gt(CODES, 1)]], [CODES]) == []
    )  # a mask cannot be out of range
    (found,) = streamed_indices([EFFECT[CODES]], [CODES])
    assert found.name == "effect"


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda codes, a, b: a[codes] + b.sum(), {"a"}),
        (lambda codes, a, b: (3.0 * a + b.sum())[codes], {"a"}),
        (lambda codes, a, b: pt.exp(a)[codes] * b[codes], {"a", "b"}),
        (lambda codes, a, b: pt.dot(TABLE, b)[codes] + a[codes], {"a"}),
        (lambda codes, a, b: a[COUNTY_OF] + b.sum(), set()),
        (lambda codes, a, b: pt.dot(TABLE, a) + b.sum(), set()),
    ],
)
def test_what_codes_pick_elements_of(build, expected):
    a, b = pt.vector("a", shape=(4,)), pt.vector("b", shape=(4,))
    expression = build(CODES, a, b).sum()
    assert {v.name for v in picked_variables([expression], [CODES], [a, b])} == expected
