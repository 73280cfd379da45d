"""Parameters that the likelihood depends on by steps: it has no slope in them."""

from __future__ import annotations

import numpy as np

from pymc_streaming.errors import NoGradientError
from pymc_streaming.vi.guides import Guide
from pymc_streaming.vi.passes import Sample, gradients_at
from pymc_streaming.vi.terms import Terms

__all__ = ["check_gradients"]

# How far parameters are moved to see whether the likelihood changes.
_FAR = 1.0


def check_gradients(
    terms: Terms, guide: Guide, location: np.ndarray, sample: Sample, random: np.random.Generator
) -> None:
    """Refuse a model whose likelihood changes with a parameter, but has no gradient in it.

    Parameters
    ----------
    terms : Terms
        The model, compiled.
    guide : Guide
        Says which elements of a draw are which variables.
    location : ndarray, shape (d,)
        Where to look.
    sample : Sample
        Rows.
    random : numpy.random.Generator
        For the places around.

    Raises
    ------
    NoGradientError
        If there is such a parameter.
    """
    # Not where two parameters are the same, between which the step may be.
    location = location + 0.1 * random.standard_normal(len(location))
    slopes = gradients_at(terms, sample, location[None])
    model = guide.group.model
    variables = {model.rvs_to_values[rv].name: rv.name for rv in model.free_RVs}
    for name, where, *_ in guide.group.ordering.values():
        if name not in terms.of_rows or slopes[:, where].any():
            continue
        points = np.tile(location, (3, 1))
        points[0, where] -= _FAR
        points[2, where] += _FAR
        values = np.zeros(3)
        terms.add_values(sample.rows, sample.weights, sample.n_rows, points, values)
        if np.ptp(values) > 0.0:
            raise NoGradientError(
                f"The likelihood depends on {variables[name]!r} but has no gradient in it, so that "
                "it cannot be fitted: it enters through a comparison, a switch, or rounding. Write "
                "the step as a smooth function, such as pm.math.sigmoid((x - threshold) / width), "
                "or sum over its values."
            )
