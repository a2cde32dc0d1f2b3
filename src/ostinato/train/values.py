"""Plain values that are saved with a process, as a part of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ostinato.errors import RunError


class Values(SimpleNamespace):
    """What a process remembers besides its weights: counts, texts, tensors, as attributes.

    >>> values = Values(games=0, best=None)
    >>> values.games += 1

    They must be what a checkpoint can hold: tensors, and values that JSON can.
    """

    def state_dict(self) -> dict[str, object]:
        """Return the values by name."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what was saved. Raises `RunError` for values of other names."""
        if odd := sorted(set(state) ^ set(vars(self))):
            raise RunError(
                f"Saved values must be {', '.join(vars(self))}, got some that differ in "
                f"{', '.join(odd)}. Resume them with what saved them, or start another run."
            )
        vars(self).update(state)
