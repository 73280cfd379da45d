"""What there is of something that runs: arrays, and facts that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["State", "random_state", "set_random_state"]


@dataclass(frozen=True)
class State:
    """Arrays and facts by name.

    Parameters
    ----------
    arrays : dict of str to ndarray
        Possibly those in use: they are written before anything goes on.
    facts : dict of str to Any
        What JSON can hold.

    Examples
    --------
    >>> whole = State.of(left=State({"x": np.zeros(2)}), right=State(facts={"n": 1}))
    >>> sorted(whole.arrays), whole.part("right").facts
    (['left/x'], {'n': 1})
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, **parts: State) -> State:
        """One state of several, by name."""
        arrays = {
            f"{name}/{key}": array
            for name, part in parts.items()
            for key, array in part.arrays.items()
        }
        return cls(arrays, {name: part.facts for name, part in parts.items()})

    def part(self, name: str) -> State:
        """One of those that `of` was given."""
        return State(self.under(name), self.facts[name])

    def under(self, name: str) -> dict[str, np.ndarray]:
        """The arrays whose names begin with that and a slash, without it."""
        prefix = f"{name}/"
        return {
            key.removeprefix(prefix): array
            for key, array in self.arrays.items()
            if key.startswith(prefix)
        }

    def __contains__(self, name: str) -> bool:
        return name in self.facts


def random_state(random: np.random.Generator) -> dict[str, Any]:
    """Where a generator is, for JSON.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> before = random_state(random)
    >>> first = random.random()
    >>> set_random_state(random, before)
    >>> random.random() == first
    True
    """
    state: dict[str, Any] = _plain(random.bit_generator.state)
    return state


def set_random_state(random: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Put a generator there; it must be of the same kind."""
    random.bit_generator.state = _restored(state)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "values": value.tolist()}
    return value.item() if isinstance(value, np.generic) else value


def _restored(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"dtype", "values"}:
        return np.array(value["values"], dtype=value["dtype"])
    return {key: _restored(each) for key, each in value.items()}
