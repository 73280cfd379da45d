"""The verdict on a table: which of its columns, and which relations, follow its order."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pymc_streaming.ordering.effects import Correlogram, Pairs, Stream
from pymc_streaming.ordering.features import ColumnFeatures, TestedFeature, column_features
from pymc_streaming.ordering.footers import ColumnRanges
from pymc_streaming.ordering.relations import find_relations
from pymc_streaming.ordering.sampling import Advance, Sample, Table, draw_sample
from pymc_streaming.ordering.statistics import Layout

__all__ = ["Evidence", "Gap", "Judgement", "judge"]

#: Probability of any false alarm, over all tests of a table: of single columns, of products of
#: columns, and of footers.
COLUMN_LEVEL, PRODUCT_LEVEL, FOOTER_LEVEL = 5e-4, 4e-4, 6e-4
#: With fewer rows no table is called shuffled.
FEWEST_ROWS = 1_000
#: With a larger share of the rows out of reach none is, either.
MOST_OUT_OF_REACH = 0.1


@dataclass(frozen=True)
class Gap:
    """Why it says nothing that no order was found.

    Parameters
    ----------
    label, sentence : str
        In a few words, and in a sentence.
    """

    label: str
    sentence: str


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
    related : tuple of str
        Columns between which relations were looked at.
    gap : Gap or None
        Why it says nothing that no order was found, if it says nothing.
    by_footers : dict of str to float
        Adjusted p-values from footers.
    sample : Sample
        What was looked at.
    n_unjudged : int
        Columns beside those, whose types cannot be judged.
    """

    verdict: str
    reason: str
    columns: dict[str, Evidence]
    products: list[Evidence]
    related: tuple[str, ...]
    gap: Gap | None
    by_footers: dict[str, float]
    sample: Sample
    n_unjudged: int = 0
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

    def added_error(
        self, stream: Stream, steps: int, without: Collection[str] = ()
    ) -> tuple[float, Evidence | None]:
        """Largest error that the order adds to a fit, in posterior standard deviations, and why.

        Infinite where only footers tell of an order: then nobody knows. The columns `without`
        are left out, and their relations.
        """
        worst: tuple[float, Evidence | None] = (0.0, None)
        if stream.buffer_size is not None and stream.buffer_size >= self.total_rows:
            return worst
        for evidence in self.ordered:
            if any(name in without for name in evidence.names):
                continue
            if not any(feature.tests for feature in evidence.features):
                return math.inf, evidence
            for correlogram in self.correlograms(evidence):
                error = correlogram.added_error(stream, steps)
                if error > worst[0]:
                    worst = (error, evidence)
        return worst

    @property
    def total_rows(self) -> int:
        """Rows of the table, or all that were seen."""
        return self._pairs.total

    def predicted_error(self, batch_size: int, buffer_size: int | None, steps: int) -> float:
        """Error that the order adds to a fit, in posterior standard deviations."""
        return self.added_error(Stream(batch_size, buffer_size), steps)[0]

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
    n_unjudged: int = 0,
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
    n_unjudged : int, default 0
        Columns that are not in `table`, as their types cannot be judged.
    """
    sample = draw_sample(table, seed, n_rows, advance)
    layout = Layout(sample.start, sample.length, sample.fragment)
    random = np.random.default_rng([seed, 1])
    found = {name: column_features(a, layout, random) for name, a in sample.columns.items()}
    n_tests = sum(len(f.tests) for column in found.values() for f in column.features)
    columns = {
        name: _evidence(name, column, n_tests, COLUMN_LEVEL) for name, column in found.items()
    }
    factors = {name: column.factors for name, column in found.items()}
    relations = find_relations(factors, layout, PRODUCT_LEVEL, random)
    products = [Evidence(r.names, [r.feature], 0.0, r.p_value, r.kinds) for r in relations.found]
    by_footers = {name: min(1.0, column.p_value() * len(ranges)) for name, column in ranges.items()}
    judgement = Judgement(
        "unknown", "", columns, products, relations.columns, _gap(sample), by_footers, sample,
        n_unjudged,
    )  # fmt: skip
    judgement.verdict, judgement.reason = _verdict(judgement)
    return judgement


def _evidence(
    name: str,
    column: ColumnFeatures,
    n_tests: int,
    level: float,
) -> Evidence:
    """With Bonferroni's correction over all tests of the family."""
    tests = [test for feature in column.features for test in feature.tests]
    kinds = [test.kind for test in tests if test.p_value * n_tests < level]
    return Evidence(
        (name,),
        column.features,
        column.lag,
        min([1.0, *(test.p_value * n_tests for test in tests)]),
        tuple(dict.fromkeys(kinds)),
        column.values,
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
    if judgement.gap is not None:
        why = judgement.gap.sentence
        return "unknown", f"No order was found in {sample.rows:,} rows, but {why}."
    if judgement.n_unjudged >= len(judgement.columns):
        by = "them" if judgement.n_unjudged > 1 else "it"
        return "unknown", (
            f"No order was found in {sample.rows:,} rows, but {_not_judged(judgement)}: the rows "
            f"may be sorted by {by}."
        )
    return "shuffled", (
        f"No order was found in {sample.rows:,} rows from all over the table{_limits(judgement)}."
    )


def _gap(sample: Sample) -> Gap | None:
    if not sample.covered:
        return Gap(
            "only the beginning was seen",
            "only the beginning was seen, and nothing tells where the rest is",
        )
    if sample.covered < 1 - MOST_OUT_OF_REACH:
        return Gap("row groups too long", _too_deep(sample))
    if sample.rows < FEWEST_ROWS:
        return Gap("too few rows", "that is too few to tell a random order from another")
    return None


def _too_deep(sample: Sample) -> str:
    share = max(0.01, 1 - sample.covered)
    return f"{share:.0%} of the rows lie too deep in long row groups to be looked at"


def _not_judged(judgement: Judgement) -> str:
    count = judgement.n_unjudged
    total = count + len(judgement.columns)
    return f"{count:,} of {total:,} columns {'were' if count > 1 else 'was'} not judged"


def _limits(judgement: Judgement) -> str:
    """What was not looked at, of a table that is called shuffled."""
    said = []
    if judgement.sample.covered < 1:
        said.append(_too_deep(judgement.sample))
    if judgement.n_unjudged:
        said.append(_not_judged(judgement))
    untested = sum(not any(f.tests for f in e.features) for e in judgement.columns.values())
    if untested:
        said.append(f"{untested:,} column{'s' * (untested > 1)} had too few distinct values")
    related, judged = len(judgement.related), len(judgement.columns)
    varied = [e for e in judgement.columns.values() if {f.what for f in e.features} - {"nulls"}]
    if related < len(varied):
        said.append(f"relations were looked at among {related:,} of {judged:,} columns")
    return "".join(f"; {words}" for words in said)
