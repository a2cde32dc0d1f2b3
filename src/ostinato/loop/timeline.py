"""The edits of a lane by position, and the questions that lane processes ask of them.

Knows no process: what an edit means is the family's own.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from ostinato.arguments import did_you_mean
from ostinato.errors import EditError, InputError, ItemError

Edits = Mapping[str, object]
"""Changes to a process, by name; a process refuses a name that it does not know."""

_position: Callable[[tuple[int, Edits]], int] = itemgetter(0)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Edits by position, those of one position in the order in which they came.

    A value: it never changes. `entries` may be given in any order of positions; those without a
    name are left out, and a timeline without entries is false. A family asks for an edit as it
    means it: a setting holds from its position on (`in_force`), a single change applies at its
    position (`at`), values may add up (`values`), and a sequence is taken from its position on, one
    element a position (`covering`).
    """

    entries: tuple[tuple[int, Edits], ...] = ()

    def __post_init__(self) -> None:
        entries = sorted((entry for entry in self.entries if entry[1]), key=_position)
        object.__setattr__(self, "entries", tuple(entries))

    def __bool__(self) -> bool:
        return bool(self.entries)

    def added(self, position: int, edits: Edits) -> Timeline:
        """Return these edits with more at a position, after those that are there."""
        return Timeline((*self.entries, (position, edits)))

    def up_to(self, position: int) -> tuple[tuple[int, Edits], ...]:
        """Return the entries up to a position, its own included."""
        return self.entries[: bisect_right(self.entries, position, key=_position)]

    def at(self, position: int) -> list[Edits]:
        """Return the edits at a position alone, the oldest first."""
        first = bisect_left(self.entries, position, key=_position)
        return [edits for _, edits in self.up_to(position)[first:]]

    def newest_at(self, position: int, name: str) -> object:
        """Return the newest value of a name at a position alone, None where there is none."""
        values = [edits[name] for edits in self.at(position) if name in edits]
        return values[-1] if values else None

    def in_force(self, position: int, names: Collection[str] | None = None) -> dict[str, Any]:
        """Return the newest value of each name up to a position, or of each of these `names`."""
        return {
            name: value
            for _, edits in self.up_to(position)
            for name, value in edits.items()
            if names is None or name in names
        }

    def values(self, position: int, name: str) -> list[tuple[int, Any]]:
        """Return all values of a name up to a position, each with its own, the oldest first."""
        return [(at, edits[name]) for at, edits in self.up_to(position) if name in edits]

    def covering(self, position: int, name: str) -> Iterator[tuple[int, Sequence[Any]]]:
        """Yield the sequences of a name that reach over a position, each with its start.

        The latest start comes first. A newer sequence replaces an older one of the same start.
        """
        newest: dict[int, Sequence[Any]] = dict(self.values(position, name))
        for start, sequence in reversed(newest.items()):
            if position < start + len(sequence):
                yield start, sequence

    def next_after(self, position: int) -> int | None:
        """Return the next position with edits after this one, None where there is none."""
        index = bisect_right(self.entries, position, key=_position)
        return self.entries[index][0] if index < len(self.entries) else None

    def check(
        self,
        whose: str,
        known: Collection[str],
        check: Callable[[str, object], object],
        *,
        at_start: Collection[str] = (),
    ) -> None:
        """Raise `EditError` for a name that is not known, and for a wrong value.

        Edits of later positions are checked too, so that a wrong one is refused at once. `whose`
        says in the message whose edits they are: "a lane of Decode". `check(name, value)` raises
        `InputError` or `ItemError`. The names `at_start` may have any value, at position 0.
        """
        for position, edits in self.entries:
            for name, value in edits.items():
                if position == 0 and name in at_start:
                    continue
                if name not in known:
                    raise _refused(name, position, whose, known, at_start)
                try:
                    check(name, value)
                except EditError:
                    raise
                except (InputError, ItemError) as error:
                    raise EditError(f"The edit cannot be applied: {error}") from None

    def to_json(self) -> list[list[object]]:
        """Return the entries as they are saved, each as [position, edits]."""
        return [[position, dict(edits)] for position, edits in self.entries]

    @classmethod
    def from_json(cls, saved: Iterable[tuple[int, Edits]]) -> Timeline:
        """Read back what `to_json` wrote."""
        return cls(tuple((position, edits) for position, edits in saved))


def _refused(
    name: str, position: int, whose: str, known: Collection[str], at_start: Collection[str]
) -> EditError:
    """Return the error for a name that is not known at a position."""
    if name in at_start:
        return EditError(
            f"The edit {name!r} of {whose} must be at position 0, got {position}. Start another "
            "round with it."
        )
    names = sorted({*known, *at_start})
    hint = did_you_mean(name, names)
    return EditError(f"Unknown edit {name!r} of {whose}. Known: {', '.join(names)}.{hint}")
