"""Products of columns: in these a relation that drifts shows, or a spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pymc_streaming.ordering.features import TestedFeature, standardised
from pymc_streaming.ordering.statistics import (
    FEWEST_MINORITY,
    Layout,
    Test,
    quadratic_forms,
    quadratic_tail,
)

__all__ = ["Relation", "Relations", "find_relations"]

#: Products grow with the square of the factors. Columns beyond those are left out by chance.
MOST_FACTORS = 128
#: Relations that are kept of each kind of order: those that follow it most.
MOST_KEPT = 16
#: Squared correlation of a product with a factor from which it tells nothing new, and a variance
#: that is none.
SAME, TINY = 0.999, 1e-6
#: Factors whose products are summed over the runs at a time, and rows whose moments are.
FACTORS_AT_A_TIME, ROWS_AT_A_TIME = 16, 16_384


@dataclass(frozen=True)
class Relation:
    """The product of two columns that follows the order.

    Parameters
    ----------
    names : (str, str)
        The two; twice the same for the spread of one.
    feature : TestedFeature
        The product.
    p_value : float
        The smallest probability of a test, times the number of tests of all products, at most 1.
    kinds : tuple of str
        The kinds of the tests that found an order.
    """

    names: tuple[str, str]
    feature: TestedFeature
    p_value: float
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Relations:
    """What was looked at, and found.

    Parameters
    ----------
    found : list of Relation
        Those that follow the order, the clearest first; of very many the clearest of each kind.
    columns : tuple of str
        Columns between which relations were looked at.
    """

    found: list[Relation]
    columns: tuple[str, ...]


def find_relations(
    factors: Mapping[str, Sequence[np.ndarray]],
    layout: Layout,
    level: float,
    random: np.random.Generator,
) -> Relations:
    """Test the products of the factors of every two columns, and of each with itself.

    Parameters
    ----------
    factors : mapping of str to sequence of ndarray of float, shape (rows,)
        What stands for a column: standardised numbers.
    layout : Layout
        The runs.
    level : float
        Probability of any false alarm, over all products.
    random : numpy.random.Generator
        Chooses the columns where there are too many.
    """
    names = _chosen({name: len(made) for name, made in factors.items()}, random)
    owners = [name for name in names for _ in factors[name]]
    if not owners:
        return Relations([], ())
    matrix = np.stack([factor for name in names for factor in factors[name]], axis=1)
    first, second, variance, excess = _moments(matrix)
    owner = np.array([names.index(name) for name in owners])
    # Two levels of one text are no relation.
    other = (owner[first] != owner[second]) | (first == second)
    kept = other & (layout.rows / (excess + 3) >= FEWEST_MINORITY)
    first, second, variance, excess = (values[kept] for values in (first, second, variance, excess))
    if not len(first):
        return Relations([], tuple(names))
    p_values: dict[str, list[np.ndarray]] = {}
    ratios: dict[str, list[np.ndarray]] = {}
    # Pairs come sorted by their first factor.
    cuts = np.searchsorted(first, np.arange(0, matrix.shape[1], FACTORS_AT_A_TIME))
    for part in np.split(np.arange(len(first)), cuts[1:]):
        if not len(part):
            continue
        sums = _sums(matrix, first[part], second[part], layout)
        mean = sums.sum(axis=0) / layout.rows
        sums = (sums - layout.length[:, None] * mean) / np.sqrt(variance[part])
        for form in quadratic_forms(sums, layout):
            tail = quadratic_tail(form.values, form.rank, excess[part], form.leverage)
            p_values.setdefault(form.kind, []).append(tail)
            ratios.setdefault(form.kind, []).append(form.values / form.rank)
    tails = {kind: np.concatenate(parts) for kind, parts in p_values.items()}
    n_tests = len(tails) * len(first)
    clearest: set[int] = set()
    for kind, tail in tails.items():
        found = np.flatnonzero(tail * n_tests < level)
        by_size = found[np.argsort(-np.concatenate(ratios[kind])[found], kind="stable")]
        clearest.update(by_size[:MOST_KEPT].tolist())
    relations: dict[tuple[str, str], Relation] = {}
    for i in clearest:
        tests = [Test(kind, float(tail[i])) for kind, tail in tails.items()]
        p = min(1.0, n_tests * min(test.p_value for test in tests))
        pair = (owners[first[i]], owners[second[i]])
        if pair in relations and relations[pair].p_value <= p:
            continue  # another level of the same text
        product = standardised(matrix[:, first[i]] * matrix[:, second[i]])
        feature = TestedFeature(
            "product", tests, layout.sums(product)[:, None], layout.sums(product**2)
        )
        kinds = tuple(test.kind for test in tests if test.p_value * n_tests < level)
        relations[pair] = Relation(pair, feature, p, kinds)
    return Relations(sorted(relations.values(), key=lambda r: (r.p_value, r.names)), tuple(names))


def _chosen(counts: Mapping[str, int], random: np.random.Generator) -> list[str]:
    """Columns with factors, as many as may be, in the order of the table."""
    names = [name for name, count in counts.items() if count]
    if sum(counts.values()) <= MOST_FACTORS:
        return names
    drawn = [names[i] for i in random.permutation(len(names))]
    taken = np.cumsum([counts[name] for name in drawn]) <= MOST_FACTORS
    kept = {name for name, fits in zip(drawn, taken, strict=True) if fits}
    return [name for name in names if name in kept]


def _moments(matrix: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pairs of factors whose product tells something new: numbers, variance, excess kurtosis."""
    n_rows, n_factors = matrix.shape
    powers = np.zeros((5, n_factors, n_factors))
    for start in range(0, n_rows, ROWS_AT_A_TIME):
        rows = matrix[start : start + ROWS_AT_A_TIME].astype(np.float32)  # halves the time
        squares = rows**2
        cubes, fourths = squares * rows, squares**2
        for total, power in zip(powers, (rows, squares, cubes, fourths), strict=False):
            total += power.T @ power
        powers[4] += squares.T @ rows
    first, second = np.triu_indices(n_factors)
    mean, square, cube, fourth, with_first = powers[:, first, second] / n_rows
    variance = square - mean**2
    # The square of a column of two values is the column again; levels exclude each other.
    new = (variance >= TINY) & (with_first**2 <= SAME * variance)
    central = fourth - 4 * mean * cube + 6 * mean**2 * square - 3 * mean**4
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = central / variance**2 - 3.0
    return first[new], second[new], variance[new], excess[new]


def _sums(matrix: np.ndarray, first: np.ndarray, second: np.ndarray, layout: Layout) -> np.ndarray:
    """Sums over the runs of products of factors, for pairs of which few differ in the first."""
    low, high = int(first[0]), int(first[-1]) + 1
    runs = np.split(matrix, layout.bounds[1:])
    return np.stack([(rows[:, low:high].T @ rows)[first - low, second] for rows in runs])
