r"""Signs: points around a location at which expectations under a Gaussian are plain averages.

With every parameter one standard deviation above or below its mean, as the rows of a Hadamard
matrix say, the average of a cubic polynomial over the rows and their mirror images is its
expectation under independent normals. And because any two columns are orthogonal, the slope along a
parameter's own sign is the curvature in its direction alone: what the others add cancels.

That takes a column for each parameter; but parameters of which no row of the table has two, such as
the effects of groups, add nothing to each other, and share a column: a *colour*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import hadamard

__all__ = ["MOST_COLUMNS", "Signs", "sign_patterns"]

#: More colours than this are told apart by random signs, which are nearly orthogonal.
MOST_COLUMNS = 2048


@dataclass(frozen=True)
class Signs:
    """Patterns of signs.

    Parameters
    ----------
    patterns : ndarray of float64, shape (k, d)
        Of 1 and -1; k is a power of two.
    colours : ndarray of int, shape (d,)
        Columns of parameters with different colours are orthogonal.
    """

    patterns: np.ndarray
    colours: np.ndarray

    @property
    def n_colours(self) -> int:
        """Number of colours."""
        return int(self.colours.max()) + 1

    def around(self, location: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """All points, shape (2 k, d): one `scale` from `location`, then their mirror images."""
        deviations = self.patterns * scale
        return np.concatenate([location + deviations, location - deviations])


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
