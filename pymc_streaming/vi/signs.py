r"""Signs: points around a location at which expectations under a Gaussian are plain averages.

With every parameter one standard deviation above or below its mean, as the rows of a Hadamard
matrix say, the average of a cubic polynomial over the rows and their mirror images is its
expectation under independent normals. And because any two columns are orthogonal, the slope along a
parameter's own sign is the curvature in its direction alone: what the others add cancels.

That takes a column for each parameter; but parameters of which no row of the table has two, such as
the effects of groups, add nothing to each other, and share a column: a *colour*.

Of such effects some are known by few rows, or by none, and are as wide as their prior, which is too
wide for cubic polynomials. `with_lengths` looks at each pattern at four lengths, short and long,
whose squares and fourth powers average to those of a Gaussian. In a small table any parameter may
be like that, and looking at it so often takes no time. There a parameter may multiply another, as
the spread of effects does that are not centred, so any two have to be long together as often as if
that were independent. Of a few rows a single one may bend the log-density where four lengths do not
look, so there are up to 256.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy.linalg import hadamard
from scipy.optimize import root
from scipy.special import factorial2, ndtri

__all__ = ["MOST_COLUMNS", "SMALL_TABLE", "Signs", "sign_patterns", "with_lengths"]

#: More colours than this are told apart by random signs, which are nearly orthogonal.
MOST_COLUMNS = 2048
#: Rows of a table so small that each may be looked at many times.
SMALL_TABLE = 2**17
# One long and three short ones: the mean of their squares is 1, of their fourth powers 3.
_LENGTHS = np.sqrt([1.0 + np.sqrt(6.0), *[1.0 - np.sqrt(2.0 / 3.0)] * 3])
# Parameters that are all taken at lengths: of more, those that share a colour.
_MOST_EVERY = 128
# How often; and for up to half as many as the first, where no two are long together more often than
# others, which takes a power of four.
_SETS, _FEWER_SETS = 64, 8
# Lengths where each row is looked at in all patterns at all of them: at most, at least, and as many
# as make so many looks with rows and patterns.
_MANY_LENGTHS, _FEWER_LENGTHS, _LOOKS = 256, 64, 2**24
# Rounds in which they are made uncorrelated.
_ROUNDS = 50
# Products in the field of four elements, whose sums are exclusive ors.
_PRODUCTS = np.array([[0, 0, 0, 0], [0, 1, 2, 3], [0, 2, 3, 1], [0, 3, 1, 2]])


@dataclass(frozen=True)
class Signs:
    """Patterns of signs.

    Parameters
    ----------
    patterns : ndarray of float64, shape (k, d)
        Of 1 and -1, possibly times a length; k is a power of two.
    colours : ndarray of int, shape (d,)
        Columns of parameters with different colours are orthogonal.
    together : int, default 1
        So many patterns after one another are the same, at different lengths.
    """

    patterns: np.ndarray
    colours: np.ndarray
    together: int = 1

    @property
    def n_colours(self) -> int:
        """Number of colours."""
        return int(self.colours.max()) + 1

    def around(self, location: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """All points, shape (2 k, d): one `scale` from `location`, then their mirror images."""
        deviations = self.patterns * scale
        return np.concatenate([location + deviations, location - deviations])

    def curvature(self, scale: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        """Minus the expected second derivatives, shape (d, d), by gradients at all points `around`.

        For a colour for each parameter: orthogonal columns tell those of all others apart.
        """
        n = len(self.patterns)
        found = (gradients[n:] - gradients[:n]).T @ self.patterns / (n * scale)
        symmetric: np.ndarray = 0.25 * (found + found.T)
        return symmetric


def sign_patterns(colours: np.ndarray, random: np.random.Generator) -> Signs:
    """Patterns in which parameters of different colours are orthogonal.

    Parameters
    ----------
    colours : ndarray of int, shape (d,)
        Numbers from 0 on.
    random : numpy.random.Generator
        For the order of rows and columns, and the signs within a colour.

    References
    ----------
    Hedayat, A. and Wallis, W. D. (1978). Hadamard matrices and their applications. *Annals of
    Statistics* 6(6), 1184-1238.

    Examples
    --------
    >>> signs = sign_patterns(np.array([0, 1, 1, 2]), np.random.default_rng(0))
    >>> np.abs(signs.patterns.T @ signs.patterns).astype(int).tolist()
    [[4, 0, 0, 0], [0, 4, 4, 0], [0, 4, 4, 0], [0, 0, 0, 4]]
    """
    n_colours = int(colours.max()) + 1
    order = 1 << (n_colours - 1).bit_length()
    if order <= MOST_COLUMNS:
        matrix = hadamard(order)[random.permutation(order)]
        columns = matrix[:, random.permutation(order)[:n_colours]]
    else:
        columns = random.choice([-1.0, 1.0], size=(MOST_COLUMNS, n_colours))
    patterns = columns[:, colours] * random.choice([-1.0, 1.0], size=len(colours))
    return Signs(np.ascontiguousarray(patterns), colours)


def with_lengths(signs: Signs, random: np.random.Generator, n_rows: int) -> Signs:
    """The same patterns, each at several lengths.

    Parameters
    ----------
    signs : Signs
        Patterns of 1 and -1.
    random : numpy.random.Generator
        For which parameter is long when.
    n_rows : int
        Of the table. Of a small one, all parameters are taken at four lengths, if they are up to
        128; of one of few rows at 64 to 256, the more the fewer rows and parameters there are; else
        at four those that share a colour.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> longer = with_lengths(sign_patterns(np.array([0, 1, 1]), random), random, 10**6)
    >>> [(longer.patterns**power).mean(axis=0).round(12).tolist() for power in (2, 4)]
    [[1.0, 1.0, 1.0], [1.0, 3.0, 3.0]]
    """
    size = len(signs.colours)
    most = _LOOKS // (n_rows * len(signs.patterns))
    if most >= max(_FEWER_LENGTHS, 4 * size):
        count = min(1 << most.bit_length() - 1, _MANY_LENGTHS)
        lengths = _uncorrelated(count, size, random)
        patterns = (lengths[:, None, :] * signs.patterns).reshape(-1, size)
        return Signs(patterns, signs.colours, len(patterns))
    every = n_rows <= SMALL_TABLE and size <= _MOST_EVERY
    shared = np.flatnonzero(every | (np.bincount(signs.colours)[signs.colours] > 1))
    if not len(shared):
        return signs
    # The same turns for all patterns, or columns would not be orthogonal. So it takes several sets
    # of them that two parameters are long together as often as they should.
    n = len(shared)
    sets = []
    for turns in _turns(n, random) if every else random.integers(4, size=(1, n)):
        lengths = np.ones((len(_LENGTHS), size))
        lengths[:, shared] = _LENGTHS[turns ^ np.arange(len(_LENGTHS))[:, None]]
        sets.append((signs.patterns[:, None, :] * lengths).reshape(-1, size))
    patterns = np.concatenate(sets)
    return Signs(patterns, signs.colours, len(_LENGTHS))


def _uncorrelated(count: int, size: int, random: np.random.Generator) -> np.ndarray:
    """Lengths of parameters, shape (count, size), with squares as of independent Gaussians.

    In each column they are those of `_many_lengths`, moved a little, so that of any two the squares
    are uncorrelated: after Lowdin, the nearest to what they were.

    References
    ----------
    Lowdin, P.-O. (1950). On the non-orthogonality problem connected with the use of atomic wave
    functions in the theory of molecules and crystals. *Journal of Chemical Physics* 18(3), 365-375.
    """
    squares = _many_lengths(count) ** 2 - 1.0
    excess = np.stack([random.permutation(squares) for _ in range(size)], axis=1)
    for _ in range(_ROUNDS):
        values, vectors = np.linalg.eigh(excess.T @ excess / (2 * len(excess)))
        excess = np.maximum(excess @ (vectors / np.sqrt(values)) @ vectors.T, -1.0)
        excess -= excess.mean(axis=0)
    found = np.maximum(1.0 + excess, 0.0)
    lengths: np.ndarray = np.sqrt(found / found.mean(axis=0))
    return lengths


@functools.cache
def _many_lengths(count: int) -> np.ndarray:
    """Equally likely lengths, whose even moments up to the eighth are those of a Gaussian."""
    quantiles = ndtri(0.5 + (np.arange(count) + 0.5) / (2 * count))
    shares, powers = (quantiles / quantiles[-1]) ** 2, np.arange(2, 9, 2)

    def lengths(coefficients: np.ndarray) -> np.ndarray:
        longer: np.ndarray = quantiles * np.exp(np.polyval(coefficients, shares))
        return longer

    def errors(coefficients: np.ndarray) -> np.ndarray:
        moments = (lengths(coefficients)[:, None] ** powers).mean(axis=0)
        differences: np.ndarray = np.log(moments / factorial2(powers - 1))
        return differences

    return lengths(root(errors, np.zeros(len(powers)), tol=1e-12).x)


def _turns(size: int, random: np.random.Generator) -> np.ndarray:
    """Which length each parameter has first, shape (sets, size).

    Over the sets, the differences of any two columns are every element of the field equally often:
    then both are long together in a sixteenth of all points. Of many parameters by chance.

    References
    ----------
    Bose, R. C. and Bush, K. A. (1952). Orthogonal arrays of strength two and three. *Annals of
    Mathematical Statistics* 23(4), 508-524.
    """
    if size > _SETS // 2:
        return random.integers(4, size=(_FEWER_SETS, size))
    columns = random.permutation(_SETS)[:size]
    digits = [(np.arange(_SETS)[:, None] >> k & 3, columns >> k & 3) for k in (0, 2, 4)]
    turns: np.ndarray = np.bitwise_xor.reduce([_PRODUCTS[s, c] for s, c in digits])
    return turns[random.permutation(_SETS)] ^ random.integers(4, size=size)
