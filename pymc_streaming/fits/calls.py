"""Which calls of ``fit`` were made: a program that is run again goes on in the right one."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pymc_streaming.errors import CheckpointMismatchError

__all__ = ["Call", "Calls", "Place"]


@dataclass(frozen=True)
class Call:
    """The arguments of ``fit``, and the strategy then. ``str(call)`` is Python.

    Parameters
    ----------
    n, max_passes : int or None
        As for `Trainer.fit`.
    strategy : str
        As for `Trainer`.

    Examples
    --------
    >>> str(Call(20_000, None, "auto")), str(Call(None, 3, "auto"))
    ('fit(20_000)', 'fit(max_passes=3)')
    """

    n: int | None
    max_passes: int | None
    strategy: str

    def __str__(self) -> str:
        return f"fit({self._arguments})"

    @property
    def to_resume(self) -> str:
        """The call that goes on with it."""
        return f"fit({', '.join(filter(None, [self._arguments, "resume='auto'"]))})"

    @property
    def _arguments(self) -> str:
        if self.n is not None:
            return f"{self.n:_}"
        return "" if self.max_passes is None else f"max_passes={self.max_passes:_}"


class Place(enum.Enum):
    """Where a call stands among those that were made before."""

    NEW = enum.auto()
    INTERRUPTED = enum.auto()
    PAST = enum.auto()


class Calls:
    """Calls that were made, by this process and those it goes on from.

    Attributes
    ----------
    ended : bool
        Whether the last one came to its end.
    asked : int
        How many this process was asked for.
    """

    def __init__(self) -> None:
        self.ended, self.asked = True, 0
        self._made: list[Call] = []

    def place(self, call: Call, resume: object) -> Place:
        """Put down a call that is asked for now.

        With "auto" a new process is taken to ask again, one by one, for those that were made; with
        a path, for the next one, or for the last if that was interrupted.

        Raises
        ------
        CheckpointMismatchError
            If it is another than the one that was made.
        """
        if resume != "auto":
            self.asked = len(self._made)
        number = self.asked
        if not self.ended and number == len(self._made):  # the last one again
            number -= 1
        if resume is None or number == len(self._made):
            self._made.append(call)
            self.asked, self.ended = len(self._made), False
            return Place.NEW
        self.asked = number + 1
        if call != (before := self._made[number]):
            strategy = f" with strategy={before.strategy!r}" * (call.strategy != before.strategy)
            raise CheckpointMismatchError(
                f"The checkpoint is of a {before}{strategy}, and the call is {call}. A fit depends "
                "on how long it is to be: call the same to go on; or, to begin anew, leave out "
                "resume= and give an empty checkpoint_dir."
            )
        is_last = number == len(self._made) - 1
        return Place.INTERRUPTED if is_last and not self.ended else Place.PAST

    def to_dict(self) -> dict[str, Any]:
        """All of this, as JSON can hold it."""
        return {"made": [asdict(call) for call in self._made], "ended": self.ended}

    def load(self, plain: Mapping[str, Any]) -> None:
        """Take over what another process had made."""
        self._made, self.ended = [Call(**call) for call in plain["made"]], plain["ended"]
