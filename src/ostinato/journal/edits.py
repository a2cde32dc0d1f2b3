"""Which edits a run's process knows, as the run records them: so a wrong one is refused early."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Literal

from ostinato.errors import EditError, InputError

EditKind = Literal["number", "integer", "text", "list", "object", "any"]

_TYPES: dict[str, tuple[type, ...]] = {
    "number": (int, float),
    "integer": (int,),
    "text": (str,),
    "list": (list, tuple),
    "object": (dict,),
}
_WORDS = {"number": "a number", "integer": "a whole number", "text": "a text", "list": "a list"}


def check_edits(known: Mapping[str, object], edits: Mapping[str, object]) -> None:
    """Check the names and types of edits by those that a run's process knows.

    Ranges are the process's own matter. Raises `EditError`.
    """
    for name, value in edits.items():
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise EditError(f"Unknown edit {name!r}. Known: {', '.join(sorted(known))}.{hint}")
        kind = str(known[name])
        types = _TYPES.get(kind)
        # In Python a bool is an int.
        if types and (isinstance(value, bool) or not isinstance(value, types)):
            raise EditError(f"{name} must be {_WORDS.get(kind, 'an object')}, got {value!r}.")


def checked(edits: Mapping[str, object] | None) -> dict[str, object]:
    """Return edits as a plain mapping. Raises `InputError` where a name is no text."""
    for name in edits or {}:
        if not isinstance(name, str):
            raise InputError(f"The name of an edit must be text, got {name!r}.")
    return dict(edits or {})
