"""A process of parts: one state and one set of edits for values that have their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from ostinato.arguments import did_you_mean
from ostinato.errors import EditError, RunError
from ostinato.journal import EditKind
from ostinato.loop import Edits, SparseMetrics


@runtime_checkable
class Part(Protocol):
    """A value with a state of its own, such as an optimizer with its schedule."""

    def state_dict(self) -> dict[str, object]:
        """Return all that a later step depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore exactly what `state_dict` returned."""
        ...


@runtime_checkable
class Editable(Protocol):
    """A part that can be edited."""

    @property
    def known_edits(self) -> Mapping[str, EditKind]:
        """The kinds of the values by the names of the edits."""
        ...

    def change(self, name: str, value: object) -> None:
        """Apply an edit. Raises `EditError` for a wrong value."""
        ...


class Parts:
    """The parts of a process by name: saved, loaded and edited as one.

    `of` is how messages call the process. An edit goes to every part that knows its name. Where
    several do, `part/name` goes to one alone, and holds against `name` in the same edits.

    >>> parts = Parts("Duel", generator=Updater(…), discriminator=Updater(…))
    >>> parts.change({"lr_scale": 0.5})            # both
    >>> parts.change({"generator/lr": 1e-4})       # one
    """

    def __init__(self, of: str, /, **parts: Part) -> None:
        self._of, self._parts = of, parts

    def state_dict(self) -> dict[str, object]:
        """Return the states of all parts by their names."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore all parts. Raises `RunError` for a state of others."""
        if odd := sorted(set(state) ^ set(self._parts)):
            raise RunError(
                f"A state of {self._of} must have the parts {', '.join(self._parts)}, got one "
                f"that differs in {', '.join(odd)}. Resume it with what saved it, or start "
                "another run."
            )
        for name, part in self._parts.items():
            part.load_state_dict(state[name])

    @property
    def known_edits(self) -> dict[str, EditKind]:
        """The kinds of the edits that parts know, by name."""
        return {name: kind for name, kind, _ in self._edits()}

    def _edits(self) -> Iterator[tuple[str, EditKind, Editable]]:
        """Yield each edit's name, kind and part; where several parts know it, by both names."""
        editable = {n: part for n, part in self._parts.items() if isinstance(part, Editable)}
        for owner, part in editable.items():
            for name, kind in part.known_edits.items():
                yield name, kind, part
                if sum(name in other.known_edits for other in editable.values()) > 1:
                    yield f"{owner}/{name}", kind, part

    def change(self, edits: Edits) -> None:
        """Apply edits. Raises `EditError` for an unknown name, before anything is changed."""
        known = self.known_edits
        for name in edits:
            if name not in known:
                raise EditError(
                    f"Unknown edit {name!r} of {self._of}. Known: {', '.join(known)}."
                    f"{did_you_mean(name, known)}"
                )
        # What is for all parts comes first: no order of the names in a record can change a run.
        for name, value in sorted(edits.items(), key=lambda edit: "/" in edit[0]):
            for known_name, _, part in self._edits():
                if known_name == name:
                    part.change(name.rpartition("/")[2], value)


class PartsProcess(SparseMetrics):
    """Base of a process whose state and edits are those of its parts, `_parts`."""

    _parts: Parts

    def state_dict(self) -> dict[str, object]:
        """Return the states of all parts."""
        return self._parts.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state. Raises `InputError` if it belongs to other networks."""
        self._parts.load_state_dict(state)

    @property
    def known_edits(self) -> Mapping[str, EditKind]:
        """The kinds of the edits by name."""
        return self._parts.known_edits

    def change(self, edits: Edits) -> None:
        """Apply edits. Raises `EditError` for a wrong name or value."""
        self._parts.change(edits)
