"""What is fitted: a model that was checked, bound to the arrays of a loader, and a Gaussian."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
from pytensor.tensor.variable import TensorVariable

from pymc_streaming.errors import ArgumentError
from pymc_streaming.loader import DataLoader
from pymc_streaming.vi.binding import Binding
from pymc_streaming.vi.checks import check_model
from pymc_streaming.vi.guides import GUIDES, Guide
from pymc_streaming.vi.initial import draws_of_prior, location_at
from pymc_streaming.vi.modes import starts_around

__all__ = ["Subject", "subject_of"]


@dataclass(frozen=True)
class Subject:
    """A model that fits are made of.

    Parameters
    ----------
    method : str
        As for `Trainer`.
    init : str, mapping or None
        As for `Trainer`.
    binding : Binding
        The model and its placeholders.
    streamed : list of TensorVariable
        The observed variables whose likelihood is streamed.
    guide : Guide
        The family, which fits move.
    variables : list
        All that the model had when it was checked.
    """

    method: str
    init: str | Mapping[str, Any] | None
    binding: Binding
    streamed: list[TensorVariable]
    guide: Guide
    variables: list[Any]

    def check_unchanged(self) -> None:
        """Refuse a model that has other variables by now."""
        if self.variables != _variables(self.binding.model):
            raise ArgumentError(
                "The model has other variables than at the first fit, which compiled it. Make "
                "a new Trainer for it."
            )

    def starts(self, random: np.random.Generator) -> list[np.ndarray]:
        """Where fits of a sample begin."""
        location = self.guide.location.copy()
        if isinstance(self.init, Mapping):
            return [location]
        if self.init == "prior":
            draws = draws_of_prior(self.guide, random)
            return [location, *draws, self.guide.initial]  # the prior may be far from the data
        return starts_around(location, self.guide.initial, random)


def subject_of(
    model: pm.Model,
    data_name: str | Mapping[str, str] | None,
    method: str,
    init: str | Mapping[str, Any] | None,
    loader: DataLoader,
    batch: Mapping[str, np.ndarray],
    seed: int,
) -> Subject:
    """Check a model, and refuse what would make its posterior wrong without an error.

    Parameters
    ----------
    model : pymc.Model
        The model.
    data_name, method, init
        As for `Trainer`.
    loader : DataLoader
        The rows.
    batch : mapping of str to ndarray
        Some of them.
    seed : int
        For what of the start is random.

    Raises
    ------
    ModelError, PlaceholderError
        If it cannot be streamed.
    ArgumentError
        If `init` is not a point of the model.
    """
    binding = Binding(model, data_name, batch)
    streamed = check_model(binding, batch, n_rows=loader.total_size, num_batches=loader.num_batches)
    # Below the posterior of a parameter of unit scale that all rows inform, by a hundred.
    guide = GUIDES[method](model, seed, 0.01 / math.sqrt(loader.total_size))
    if isinstance(init, Mapping):
        guide.location[:] = location_at(guide, init)
    elif init == "prior":
        guide.location[:] = draws_of_prior(guide, np.random.default_rng(seed))[0]
    return Subject(method, init, binding, list(streamed), guide, _variables(model))


def _variables(model: pm.Model) -> list[Any]:
    return [*model.basic_RVs, *model.potentials]
