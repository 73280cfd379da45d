"""The verdict on a table: which of its columns, and which relations, follow its order."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pymc_streaming.ordering.effects import Correlogram, Pairs, Stream
from pymc_streaming.ordering.features import (
    ColumnFeatures,
    TestedFeature,
    column_features,
    product_feature,
    product_tests,
)
from pymc_streaming.ordering.footers import ColumnRanges
from pymc_streaming.ordering.sampling import Advance, Sample, Table, draw_sample
from pymc_streaming.ordering.statistics import Layout

__all__ = ["Evidence", "Judgement", "judge"]

#: Probability of any false alarm, over all tests of a table: of single columns, of products of
#: columns, and of footers.
COLUMN_LEVEL, PRODUCT_LEVEL, FOOTER_LEVEL = 5e-4, 4e-4, 6e-4
#: Products grow with the square of the columns.
MOST_FACTORS = 32
#: With fewer rows no table is called shuffled.
FEWEST_ROWS = 1_000
#: With fewer fragments, not having seen any to its end leaves the order open.
FEWEST_FRAGMENTS = 8


@dataclass
class Evidence:
    """What speaks for an order, of one column or of the product of two.

    Parameters
    ----------
    names : tuple of str
        The column, or the two.
    features : list of TestedFeature
        What was tested.
    lag : float
        Correlation of neighbouring rows.
    p_value : float
        The smallest probability of a test of the sample, times the number of tests in the
        family, at most 1.
    kinds : tuple of str
        The kinds of the tests that found an order.
    values : ndarray or None
        The sampled numbers, for pictures.
    """

    names: tuple[str, ...]
    features: list[TestedFeature]
    lag: float
    p_value: float
    kinds: tuple[str, ...]
    values: np.ndarray | None = None


@dataclass
class Judgement:
    """What a sample and footers say about a table.

    Parameters
    ----------
    verdict : {"shuffled", "ordered", "unknown"}
        The order, over all columns.
    reason : str
        Why, in a sentence.
    columns : dict of str to Evidence
        Every column that was judged.
    products : list of Evidence
        Relations that follow the order.
    by_footers : dict of str to float
        Adjusted p-values from footers.
    sample : Sample
        What was looked at.
    """

    verdict: str
    reason: str
    columns: dict[str, Evidence]
    products: list[Evidence]
    by_footers: dict[str, float]
    sample: Sample
    _correlograms: dict[tuple[str, ...], list[Correlogram]] = field(default_factory=dict)

    @cached_property
    def _pairs(self) -> Pairs:
        return Pairs(self.sample)

    def correlograms(self, evidence: Evidence) -> list[Correlogram]:
        """One for each feature of a column or product."""
        if evidence.names not in self._correlograms:
            self._correlograms[evidence.names] = [
                Correlogram(self._pairs, f.sums, f.squares) for f in evidence.features
            ]
        return self._correlograms[evidence.names]

    @cached_property
    def ordered(self) -> list[Evidence]:
        """Columns and products that follow the order, the clearest first."""
        found = [e for e in self.columns.values() if self.is_ordered(e)]
        return sorted(found, key=lambda e: e.p_value) + self.products

    def is_ordered(self, evidence: Evidence) -> bool:
        """Whether a column or product follows the order."""
        single = len(evidence.names) == 1
        return bool(evidence.kinds) or (single and self.follows_ranges(evidence.names[0]))

    def follows_ranges(self, name: str) -> bool:
        """Whether footers show that a column follows the order."""
        return self.by_footers.get(name, 1.0) < FOOTER_LEVEL

    def expected_error(self, stream: Stream, steps: int) -> tuple[float, Evidence | None]:
        """Largest error of a fit by the order, in posterior standard deviations, and its cause."""
        worst: tuple[float, Evidence | None] = (0.0, None)
        for evidence in self.ordered:
            for correlogram in self.correlograms(evidence):
                error = correlogram.expected_error(stream, steps)
                if error > worst[0]:
                    worst = (error, evidence)
        return worst

    def predicted_error(self, batch_size: int, buffer_size: int | None, steps: int) -> float:
        """Error of a fit of so many steps by the order, in posterior standard deviations."""
        return self.expected_error(Stream(batch_size, buffer_size), steps)[0]

    def design_effect(self, evidence: Evidence, stream: Stream) -> float:
        """Of the features of a column or product, the largest."""
        effects = [c.design_effect(stream) for c in self.correlograms(evidence)]
        return max(effects, default=1.0)


def judge(
    table: Table,
    ranges: Mapping[str, ColumnRanges],
    seed: int,
    n_rows: int | None = None,
    advance: Advance | None = None,
) -> Judgement:
    """Look at a table.

    Parameters
    ----------
    table : Table
        What to sample.
    ranges : mapping of str to ColumnRanges
        What footers tell.
    seed : int
        Seed of the sample.
    n_rows : int, optional
        Rows of the table, where its fragments do not say.
    advance : callable, optional
        Told the fragments read, and all that are to be.
    """
    sample = draw_sample(table, seed, n_rows, advance)
    layout = Layout(sample.start, sample.length, sample.fragment)
    random = np.random.default_rng([seed, 1])
    found = {name: column_features(a, layout, random) for name, a in sample.columns.items()}
    n_tests = sum(len(f.tests) for column in found.values() for f in column.features)
    columns = {
        name: _evidence((name,), column.features, n_tests, COLUMN_LEVEL, column)
        for name, column in found.items()
    }
    scores = {name: c.scores for name, c in found.items() if c.scores is not None}
    scores = dict(itertools.islice(scores.items(), MOST_FACTORS))
    tests = dict(product_tests(scores, layout))
    n_tests = sum(map(len, tests.values()))
    products = [
        _evidence((first, second), [feature], n_tests, PRODUCT_LEVEL)
        for (first, second), made in tests.items()
        if any(test.p_value * n_tests < PRODUCT_LEVEL for test in made)
        for feature in [product_feature(scores[first], scores[second], made, layout)]
    ]
    by_footers = {name: min(1.0, column.p_value() * len(ranges)) for name, column in ranges.items()}
    judgement = Judgement(
        "unknown",
        "",
        columns,
        sorted(products, key=lambda e: e.p_value),
        by_footers,
        sample,
    )
    judgement.verdict, judgement.reason = _verdict(judgement)
    return judgement


def _evidence(
    names: tuple[str, ...],
    features: list[TestedFeature],
    n_tests: int,
    level: float,
    column: ColumnFeatures | None = None,
) -> Evidence:
    """With Bonferroni's correction over all tests of the family."""
    tests = [test for feature in features for test in feature.tests]
    kinds = [test.kind for test in tests if test.p_value * n_tests < level]
    return Evidence(
        names,
        features,
        0.0 if column is None else column.lag,
        min([1.0, *(test.p_value * n_tests for test in tests)]),
        tuple(dict.fromkeys(kinds)),
        None if column is None else column.values,
    )


def _verdict(judgement: Judgement) -> tuple[str, str]:
    sample = judgement.sample
    footers = [name for name, p in judgement.by_footers.items() if p < FOOTER_LEVEL]
    columns = [e.names[0] for e in judgement.ordered if len(e.names) == 1]
    columns += [name for name in footers if name not in columns]
    if columns:
        rest = f" and {len(columns) - 3} more" if len(columns) > 3 else ""
        many = len(columns) > 1
        return "ordered", (
            f"Column{'s' * many} {', '.join(map(repr, columns[:3]))}{rest} "
            f"follow{'s' * (not many)} the order of the rows."
        )
    if judgement.products:
        first, second = judgement.products[0].names
        what = (
            f"The spread of column {first!r}"
            if first == second
            else f"The relation of columns {first!r} and {second!r}"
        )
        return "ordered", f"{what} follows the order of the rows."
    tests = [f.tests for evidence in judgement.columns.values() for f in evidence.features]
    if not any(tests):
        return "unknown", "No column has enough distinct values to judge the order by."
    if sample.n_rows is None or (sample.deepest < 1 and sample.n_fragments < FEWEST_FRAGMENTS):
        return "unknown", (
            f"Only the beginning was seen, {sample.rows:,} rows, and nothing tells where the rest "
            "is; no order was found there."
        )
    if sample.rows < FEWEST_ROWS:
        return "unknown", (f"{sample.rows:,} rows are too few to tell a random order from another.")
    return "shuffled", f"No order was found in {sample.rows:,} rows from all over the table."
