"""Where a fit begins: at draws of the prior, or at values that are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pymc.initial_point import make_initial_point_fn

from pymc_streaming.errors import ArgumentError
from pymc_streaming.vi.guides import Guide

__all__ = ["DRAWS", "INITS", "check_init", "draws_of_prior", "location_at"]

#: The words that ``Trainer(init=)`` knows.
INITS = ("map", "prior")
#: Draws of the prior that a fit in exact passes begins at.
DRAWS = 4


def check_init(init: Any) -> None:
    """Refuse what cannot be meant."""
    if not (init is None or init in INITS if isinstance(init, str | None) else _is_point(init)):
        raise ArgumentError(
            f"init must be 'map', 'prior', or a mapping from names of variables to values, found "
            f"{init!r}."
        )


def _is_point(init: Any) -> bool:
    return isinstance(init, Mapping) and all(isinstance(name, str) for name in init)


def location_at(guide: Guide, values: Mapping[str, Any]) -> np.ndarray:
    """The unconstrained location of given values; of other variables, that of PyMC.

    Parameters
    ----------
    guide : Guide
        Says which elements are which variables.
    values : mapping of str to array
        By name of the free variable, on its own scale.

    Raises
    ------
    ArgumentError
        If there is no such variable, or the value is not one that it can have.
    """
    model = guide.group.model
    shapes = {rv.name: np.shape(rv.eval()) for rv in model.free_RVs if rv.name in values}
    if unknown := sorted(set(values) - set(shapes)):
        names = sorted(rv.name for rv in model.free_RVs)
        raise ArgumentError(f"init has values for {unknown}; the free variables are {names}.")
    for name, shape in shapes.items():
        if np.asarray(values[name]).dtype.kind not in "biuf":
            raise ArgumentError(
                f"init={{{name!r}: ...}} must be a number or an array of them, found "
                f"{values[name]!r}."
            )
        if np.shape(values[name]) not in (shape, ()):
            raise ArgumentError(
                f"init={{{name!r}: ...}} must have shape {shape}, found {np.shape(values[name])}."
            )
    given = {name: np.broadcast_to(values[name], shape) for name, shape in shapes.items()}
    location = _flat(guide, given, 0)
    if not np.isfinite(location).all():
        (name, *_) = (
            name
            for name, where, *_ in guide.group.ordering.values()
            if not np.isfinite(location[where]).all()
        )
        rv = next(rv for rv in model.free_RVs if model.rvs_to_values[rv].name == name)
        raise ArgumentError(
            f"init has a value outside the support, or not finite, for {rv.name!r}: "
            f"{values.get(rv.name)!r}."
        )
    return location


def draws_of_prior(guide: Guide, random: np.random.Generator) -> list[np.ndarray]:
    """Some draws of the prior, unconstrained.

    Raises
    ------
    ArgumentError
        If the prior has no draws, as ``pm.Flat``.
    """
    names = [rv.name for rv in guide.group.model.free_RVs]
    try:
        return [
            _flat(guide, dict.fromkeys(names, "prior"), int(random.integers(2**31)))
            for _ in range(DRAWS)
        ]
    except NotImplementedError as error:
        raise ArgumentError(
            f"init='prior' needs a prior that can be drawn from: {error} Give values (init=...)."
        ) from error


def _flat(guide: Guide, overrides: Mapping[str, Any], seed: int) -> np.ndarray:
    point = make_initial_point_fn(
        model=guide.group.model, overrides=dict(overrides), return_transformed=True
    )(seed)
    location = np.empty(guide.size)
    for name, where, *_ in guide.group.ordering.values():
        location[where] = np.ravel(point[name])
    return location
