from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from pymc_streaming.ordering.footers import ColumnRanges, read_footers
from pymc_streaming.ordering.rarities import clustering_p_value, count_rare_values
from pymc_streaming.sources.files import find_files

N = 20_000


def ranges_of(tmp_path, column, row_group_size: int = 1_000) -> ColumnRanges:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"c": column}), path, row_group_size=row_group_size)
    files = find_files(path, "*")
    footers = read_footers(files)
    count_rare_values(files, footers)
    return footers.ranges["c"]


def placed(rows, usual, rare) -> pa.Array:
    values = [usual] * N
    for row in rows:
        values[row] = rare
    return pa.array(values)


@pytest.mark.parametrize(
    ("usual", "rare"),
    [(0, 1), (1, 0), (0.0, -2.5), ("no", "yes"), (False, True)],
)
def test_rare_values_in_the_last_group(usual, rare, tmp_path):
    column = ranges_of(tmp_path, placed(range(N - 60, N), usual, rare))
    assert column.rare < 1e-50


def test_nulls_are_no_values(tmp_path):
    values = [None if i % 3 else int(i > N - 200) for i in range(N)]
    assert ranges_of(tmp_path, pa.array(values, pa.int64())).rare < 1e-30


def test_the_probability_is_that_of_a_hypergeometric_distribution():
    values = np.full(10, 50)
    expected = 10 * stats.hypergeom.pmf(3, 500, 50, 3)
    assert clustering_p_value(values, 1, 3) == pytest.approx(expected)
    expected = 45 * stats.hypergeom.pmf(6, 500, 100, 6)
    assert clustering_p_value(values, 2, 6) == pytest.approx(expected)
    assert clustering_p_value(values, 1, 1) == 1.0


@pytest.mark.parametrize("n_rare", [1, 2, 3, 5])
def test_p_values_of_shuffled_tables_are_not_too_small(n_rare):
    """Groups of uneven size; how many of them hold a rare row."""
    rng = np.random.default_rng(0)
    values = np.array([10, 20, 20, 40, 40, 40, 80, 80, 100])
    group = np.repeat(np.arange(9), values)
    p = np.array(
        [
            clustering_p_value(
                values, len(np.unique(group[rng.choice(430, n_rare, replace=False)])), n_rare
            )
            for _ in range(4_000)
        ]
    )
    for level in (0.2, 0.05, 0.01):
        assert np.mean(p <= level) <= level + 4 * np.sqrt(level / len(p))


@pytest.mark.parametrize("n_rare", [1, 2, 3, 6])
def test_scattered_rare_values_are_no_evidence(n_rare, tmp_path):
    rows = np.random.default_rng(1).choice(N, n_rare, replace=False)
    assert ranges_of(tmp_path, placed(rows, 0, 1)).rare > 1e-3


def test_only_few_groups_of_one_column_are_read(tmp_path, monkeypatch):
    rows = np.arange(0, N, 1_000)
    monkeypatch.setattr("pymc_streaming.ordering.rarities._count", lambda *_: 1 / 0)
    assert ranges_of(tmp_path, placed(rows[:8], 0, 1)).rare == 1.0
    with pytest.raises(ZeroDivisionError):
        ranges_of(tmp_path, placed(rows[:4], 0, 1))
