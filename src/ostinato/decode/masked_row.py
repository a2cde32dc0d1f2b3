"""A lane whose tokens are decided in any order: its states, and the edits that apply to it.

Shared by `ostinato.text.Unmask` and the samplers of image codes. Knows no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from ostinato.arguments import require
from ostinato.decode.maskgit import MASKED
from ostinato.loop import Lane, Report, fold_in

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)


@dataclass(slots=True)
class MaskedRow:
    """A lane in its slot: `states[p]` holds its tokens at position p, `MASKED` where undecided."""

    lane: Lane
    states: list[list[int]] = field(default_factory=list, kw_only=True)

    @property
    def position(self) -> int:
        """The number of steps that the lane has taken."""
        return len(self.states) - 1

    @property
    def masked(self) -> int:
        """The number of tokens that are not decided."""
        return self.states[-1].count(MASKED)

    def replay(self, past: Sequence[Report], tokens: str) -> None:
        """Take recorded steps: each reports the `positions` that changed, and their `tokens`."""
        for report in past:
            state = list(self.states[-1])
            changes = _ints(report["positions"]), _ints(report[tokens])
            for position, token in zip(*changes, strict=True):
                state[position] = token
            self.states.append(state)

    def rewind(self, lane: Lane, to: int) -> None:
        """Go back to position `to`; the tokens there are kept."""
        self.lane = lane
        del self.states[to + 1 :]

    def record(self, tokens: list[int]) -> list[int]:
        """Add the state after a step; return the positions whose token changed."""
        before = self.states[-1]
        self.states.append(tokens)
        return [p for p, token in enumerate(tokens) if token != before[p]]

    def edited(self) -> list[int]:
        """Return the current tokens with the `mask` and `put` edits of this position."""
        tokens = list(self.states[-1])
        for edits in self.lane.edits.at(self.position):
            for position in _ints(edits.get("mask", ())):
                tokens[position] = MASKED
            put = edits.get("put", {})
            assert isinstance(put, Mapping)
            for position, token in put.items():
                tokens[int(position)] = token
        return tokens

    def in_force(self, settings: Settings) -> Settings:
        """Return a dataclass of settings with the edits of its fields up to this position."""
        names = {spec.name for spec in fields(settings)}
        return replace(settings, **self.lane.edits.in_force(self.position, names))


def uniforms(lane: Lane, position: int, *shape: int) -> Tensor:
    """Return the uniform numbers in [0, 1), float64, that belong to a position of a lane."""
    seed = fold_in(lane.seed, lane.key, lane.round, lane.backtracks, position)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_mask(value: object, length: int) -> None:
    """Raise `InputError` where a `mask` edit does not fit a row of `length` tokens."""
    right = isinstance(value, list | tuple) and all(_in_range(p, length) for p in value)
    require(right, "mask", f"a list of positions from 0 to {length - 1}", value)


def check_put(value: object, length: int, vocab_size: int) -> None:
    """Raise `InputError` where a `put` edit, from position to token, does not fit a row.

    JSON turns the positions, which are keys, into texts.
    """
    right = isinstance(value, Mapping) and all(
        _in_range(int(p) if isinstance(p, str) and p.isdecimal() else p, length)
        and _in_range(token, vocab_size)
        for p, token in value.items()
    )
    expected = f"a map of positions from 0 to {length - 1} to tokens from 0 to {vocab_size - 1}"
    require(right, "put", expected, value)


def check_tokens(name: str, value: object, vocab_size: int) -> None:
    """Raise `InputError` where an edit is not a list of tokens."""
    right = isinstance(value, list | tuple) and all(_in_range(t, vocab_size) for t in value)
    require(right, name, f"a list of tokens from 0 to {vocab_size - 1}", value)


def _in_range(value: object, end: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < end


def _ints(value: object) -> Sequence[int]:
    assert isinstance(value, list | tuple)
    return value
