from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pymc_streaming import order_report
from pymc_streaming.ordering import relations
from pymc_streaming.ordering.features import column_features
from pymc_streaming.ordering.relations import find_relations
from pymc_streaming.ordering.statistics import Feature, Layout, run_tests

N = 40_000


def layout_of(n_fragments: int = 8, runs: int = 16, length: int = 50, gap: int = 30) -> Layout:
    number = np.arange(n_fragments * runs)
    return Layout(number * (length + gap), np.full(len(number), length), number // runs)


def factors_of(columns: dict[str, np.ndarray], layout: Layout) -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return {name: column_features(c, layout, rng).factors for name, c in columns.items()}


def test_products_are_tested_as_if_each_were_a_column():
    layout = layout_of()
    rng = np.random.default_rng(0)
    factors = factors_of({name: rng.exponential(size=6_400) for name in "abc"}, layout)
    found = find_relations(factors, layout, 1e9, rng).found  # every test is one that finds
    assert {r.names for r in found} == {(a, b) for a in "abc" for b in "abc" if a <= b}
    for relation in found:
        first, second = (factors[name][0] for name in relation.names)
        product = first * second
        product = (product - product.mean()) / product.std()
        feature = Feature(layout.sums(product)[:, None], 1, float(np.mean(product**4)) - 3)
        expected = {test.kind: test.p_value for test in run_tests(feature, layout)}
        made = {test.kind: test.p_value for test in relation.feature.tests}
        assert made == pytest.approx(expected, rel=1e-3)


def test_a_relation_that_drifts_shows_in_the_product_only():
    layout = layout_of(length=200)
    rng = np.random.default_rng(0)
    n = int(layout.rows)
    x = rng.normal(size=n)
    y = np.linspace(-0.5, 0.5, n) * x + rng.normal(size=n)
    for values in (x, y):
        features = column_features(values, layout, rng).features
        assert min(t.p_value for f in features for t in f.tests) > 1e-4
    factors = factors_of({"x": x, "y": y}, layout)
    relation = find_relations(factors, layout, 1e-3, rng).found[0]
    assert relation.names == ("x", "y")
    assert "trend" in relation.kinds


def test_the_square_of_a_column_of_two_values_is_not_tested():
    layout = layout_of()
    rare = (np.random.default_rng(0).random(6_400) < 0.012).astype(float)
    factors = factors_of({"x": rare}, layout)
    assert find_relations(factors, layout, 1e9, np.random.default_rng(0)).found == []


def drifting(n_columns: int, n_rows: int = N) -> dict[str, np.ndarray]:
    """Many columns, of which the last two have a relation that drifts."""
    rng = np.random.default_rng(0)
    table = {f"c{i}": rng.normal(size=n_rows) for i in range(n_columns)}
    last, before = f"c{n_columns - 1}", f"c{n_columns - 2}"
    table[last] = np.linspace(-1, 1, n_rows) * table[before] + rng.normal(size=n_rows)
    return table


def test_relations_of_the_last_of_many_columns_are_looked_at():
    report = order_report(drifting(60, 10_000))
    assert report.relations[0].columns == ("c58", "c59")


def test_relations_that_were_not_looked_at_are_named_in_the_verdict(monkeypatch):
    monkeypatch.setattr(relations, "MOST_FACTORS", 4)
    rng = np.random.default_rng(0)
    report = order_report({f"c{i}": rng.normal(size=N) for i in range(10)})
    assert report.verdict == "shuffled"
    assert "relations were looked at among 4 of 10 columns" in report.reason
    assert len(report.related_columns) == 4
    few = order_report({name: rng.normal(size=N) for name in "ab"})
    assert "relations" not in few.reason


def test_relations_of_text_that_drift_are_found(tmp_path):
    """What goes with which word changes along the table; how often each comes does not."""
    rng = np.random.default_rng(0)
    along = np.linspace(-0.4, 0.4, N)
    is_red, is_dark = rng.random((2, N)) < 0.5
    alike = rng.random(N) < 0.5 + along
    table = {
        "x": np.where(is_red, along, -along) + rng.normal(size=N),
        "word": np.where(is_red, "red", "green"),
        "tone": np.where(is_dark, "dark", "light"),
        "other": np.where(is_dark == alike, "near", "far"),
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet", row_group_size=2_000)
    report = order_report(tmp_path / "t.parquet")
    assert not any(column.ordered for column in report.columns)
    found = {relation.columns for relation in report.relations}
    assert found - {("x", "x")} == {("x", "word"), ("tone", "other")}
