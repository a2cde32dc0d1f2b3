"""The place in the data: which batches the next step sees, and which are left out.

A part of a training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count as count_from
from itertools import islice
from typing import Any, ClassVar

from ostinato.arguments import require_at_least
from ostinato.errors import EditError
from ostinato.journal import EditKind
from ostinato.train.batch_sampler import BatchSampler
from ostinato.train.updater import not_negative


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch: its index, counted over all epochs, and the indices of its examples."""

    index: int
    examples: tuple[int, ...]


class BatchCursor:
    """Takes `per_step` batches of a sampler for each step.

    `index` is that of the next batch, counted over all epochs. Edits: `skip` is the number of next
    batches to skip, `skip_steps` are pairs of a position and a number of steps to skip.
    """

    known_edits: ClassVar[Mapping[str, EditKind]] = {"skip": "number", "skip_steps": "list"}

    def __init__(self, sampler: BatchSampler, per_step: int = 1) -> None:
        require_at_least(1, per_step=per_step)
        self.sampler, self.per_step = sampler, per_step
        self.steps, self.index = 0, 0
        self._left_out: set[int] = set()  # indices of batches ahead that no step will see

    @property
    def epoch(self) -> float:
        """The passes over the examples so far."""
        return self.index / self.sampler.batches

    def take(self) -> list[Batch]:
        """Return the batches of the next step, and go on behind them."""
        indices = list(islice(self._coming(), self.per_step))
        self.steps, self.index = self.steps + 1, indices[-1] + 1
        self._left_out = {index for index in self._left_out if index >= self.index}
        return [Batch(index, self.sampler.batch(index)[1]) for index in indices]

    def _coming(self) -> Iterator[int]:
        """Yield the indices of the batches to come, without those left out."""
        return (i for i in count_from(self.index) if i not in self._left_out)

    # A part -----------------------------------------------------------------------------------

    def change(self, name: str, value: object) -> None:
        """Apply an edit. Raises `EditError` for a wrong value."""
        if name == "skip":
            number = not_negative(name, value)
            if number != int(number):
                raise EditError(f"skip must be a whole number of batches, got {value!r}.")
            self.index += int(number)
        else:
            self._skip_steps(value)

    def _skip_steps(self, pairs: object) -> None:
        """Leave out the batches of coming steps, each pair being [position, number of steps]."""
        for pair in pairs if isinstance(pairs, list | tuple) else [pairs]:
            match pair:
                case [int(position), int(number)] if position > self.steps and number > 0:
                    # Batches are left out by index, not counted off at once: the steps before
                    # `position` are taken again first and must see the batches they saw.
                    first = (position - 1 - self.steps) * self.per_step
                    last = first + number * self.per_step
                    self._left_out |= set(islice(self._coming(), first, last))
                case _:
                    raise EditError(
                        f"skip_steps must be pairs [position, number] of steps after "
                        f"{self.steps}, got {pair!r}."
                    )

    def state_dict(self) -> dict[str, object]:
        """Return the place, and the batches ahead that are left out."""
        return {"steps": self.steps, "index": self.index, "left_out": sorted(self._left_out)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the place."""
        self.steps, self.index = state["steps"], state["index"]
        self._left_out = set(state["left_out"])
