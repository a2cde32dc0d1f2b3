"""Unmask: gaps in texts filled by a network that sees both sides, the surest tokens first.

A lane process: MaskGIT's confidence schedule (Chang et al. 2022, section 3.2) with a masked
language model (Devlin et al. 2019); one pass of the network a step. Knows nothing of when to stop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from ostinato.decode import draw_each, surest, to_keep
from ostinato.errors import EditError, InputError, ItemError
from ostinato.loop import Lane, Report, Text, fold_in
from ostinato.models import MaskedModel, device_of

SHAPE = 32  # tokens: a row is padded to a multiple of this
HIDDEN = -1
DOT = "·"  # what stands for a hidden token in a text


@dataclass(frozen=True)
class MaskedText:
    """A text with gaps: its parts, and how many tokens stand between them."""

    parts: tuple[str, ...]
    tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        right = len(self.parts) == len(self.tokens) + 1 and self.tokens
        if not right or min(self.tokens) < 1:
            raise InputError(
                f"MaskedText must be between parts of a text and hold 1 token or more each, got "
                f"{len(self.parts)} parts and gaps of {list(self.tokens)}. Mark a gap with ___."
            )

    @classmethod
    def of(cls, text: str, tokens: int, mark: str = "___") -> MaskedText:
        """Read a text in which each `mark` stands for a gap of `tokens` tokens."""
        parts = text.split(mark)
        return cls(tuple(parts), (tokens,) * (len(parts) - 1))


@dataclass(frozen=True, kw_only=True)
class FillConfig:
    """How hidden tokens are drawn: `temperature` (0: the likeliest), and the Gumbel `noise` on the
    confidence, which falls to 0 at the last step."""

    temperature: float = 0.7
    noise: float = 1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "noise"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise InputError(
                    f"{name} must be a finite number of 0 or more, got {value!r}. Take for example "
                    f"{getattr(FillConfig, name)}."
                )


@dataclass(slots=True)
class _TextSlot:
    """A lane in its slot. `row` is its sequence; `states[p]` the gap tokens at position p."""

    lane: Lane
    gaps: MaskedText
    row: list[int]
    at: list[int]  # where in the row the gap tokens stand
    states: list[list[int]] = field(default_factory=list)

    @property
    def position(self) -> int:
        return len(self.states) - 1


class Unmask:
    """Fill gaps, a share of their tokens a step. An item is a `MaskedText`.

    Edits: `temperature` and `noise` hold from their position on, and so does `forbid` (tokens);
    `mask` (gap tokens to hide again, counted over all gaps) and `put` (gap token to token) act at
    theirs. Reports: `step` (from 1), `positions` (of the gap tokens that changed) and `put` (what
    stands there now, -1: hidden), `text`, `masked` (still hidden), `confidence` (the mean
    probability of those that were kept), `tokens` (how many), and `ended` after the last step. The
    output is the whole text.
    """

    deterministic = True

    def __init__(
        self, model: MaskedModel, *, steps: int = 8, fill: FillConfig | None = None, slots: int = 16
    ) -> None:
        if steps < 1 or slots < 1:
            raise InputError(f"steps and slots must be at least 1, got {steps} and {slots}.")
        self.model, self.steps, self.slots = model, steps, slots
        self.fill = fill or FillConfig()
        self._network, self._device = model.network.eval(), device_of(model.network)
        special = {*model.tokenizer.special_ids, model.mask_id}
        self._never = sorted(i for i in special if i < model.network.config.vocab_size)
        self._slots: dict[str, _TextSlot] = {}

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a slot, where its past ended."""
        if not isinstance(item, MaskedText):
            raise ItemError(f"An item of Unmask must be MaskedText, got {type(item).__name__}.")
        self._check_edits(lane, sum(item.tokens))
        slot = self._slot(lane, item)
        for report in lane.past:
            state = list(slot.states[-1])
            changed = cast(Sequence[int], report["positions"]), cast(Sequence[int], report["put"])
            for position, token in zip(*changed, strict=True):
                state[position] = token
            slot.states.append(state)
        self._slots[lane.key] = slot

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring the lane back to a position: its tokens there are kept."""
        slot = self._slots[lane.key]
        self._check_edits(lane, len(slot.at))
        slot.lane = lane
        del slot.states[to + 1 :]

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        del self._slots[key]

    def output(self, key: str) -> Text:
        """Return the text as it stands; a hidden token is a dot."""
        slot = self._slots[key]
        return Text(self._text(slot), tokens=tuple(slot.states[-1]), ended=not self._hidden(slot))

    def filled(self, key: str) -> list[str]:
        """Return what stands in each gap."""
        slot, made, first = self._slots[key], [], 0
        for count in slot.gaps.tokens:
            made.append(self._spelled(slot.states[-1][first : first + count]))
            first += count
        return made

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Advance every lane that has not ended; each has a pass of its own, in its own shape."""
        slots = [
            slot
            for slot in self._slots.values()
            if slot.position < self.steps and HIDDEN in self._edited(slot)
        ]
        return {slot.lane.key: self._advance(slot) for slot in slots}

    def _advance(self, slot: _TextSlot) -> Report:
        tokens, fill = self._edited(slot), self._in_force(slot)
        logits = self._logits(slot, tokens)  # (N, V)
        step, count = slot.position + 1, len(tokens)
        uniform = self._uniforms(slot.lane, slot.position, count)
        new, probs = draw_each(logits, fill.temperature, uniform[0])
        hidden = torch.tensor(tokens) == HIDDEN
        keep = to_keep(count, int(hidden.sum()), step, self.steps)
        kept = surest(probs, hidden, keep, fill.noise * (1 - step / self.steps), uniform[1])
        for position in kept.tolist():
            tokens[position] = int(new[position])
        before = slot.states[-1]
        slot.states.append(tokens)
        positions = [p for p in range(count) if tokens[p] != before[p]]
        report: dict[str, object] = {"step": step, "positions": positions}
        report |= {"put": [tokens[p] for p in positions], "text": self._text(slot)}
        report |= {"masked": self._hidden(slot), "tokens": keep}
        if keep:
            report["confidence"] = float(probs[kept].mean())
        if step == self.steps:
            report["ended"] = f"All {self.steps} steps are taken."
        elif not report["masked"]:
            report["ended"] = "Nothing is hidden any more."
        return report

    @torch.inference_mode()
    def _logits(self, slot: _TextSlot, tokens: Sequence[int]) -> Tensor:
        """Return the logits (N, V) of the gap tokens, without what a text cannot hold."""
        row = list(slot.row)
        for at, token in zip(slot.at, tokens, strict=True):
            row[at] = self.model.mask_id if token == HIDDEN else token
        length = min(-(-len(row) // SHAPE) * SHAPE, self._limit)
        mask = (torch.arange(length) < len(row))[None]
        padded = torch.tensor([[*row, *[0] * (length - len(row))]])
        device = self._device
        logits: Tensor = self._network(padded.to(device), mask.to(device))[0, slot.at].float().cpu()
        forbidden = [cast(Sequence[int], e["forbid"]) for _, e in slot.lane.edits if "forbid" in e]
        logits[:, [*self._never, *(token for tokens in forbidden for token in tokens)]] = -torch.inf
        return logits

    def _uniforms(self, lane: Lane, position: int, count: int) -> Tensor:
        """Return the uniform numbers (2, count) in [0, 1), float64, that belong to a position."""
        seed = fold_in(lane.seed, lane.key, lane.round, lane.backtracks, position)
        dice = torch.Generator().manual_seed(seed)
        return torch.rand((2, count), generator=dice, dtype=torch.float64)

    # Texts ------------------------------------------------------------------------------------

    @property
    def _limit(self) -> int:
        return self.model.network.config.max_position_embeddings

    def _slot(self, lane: Lane, gaps: MaskedText) -> _TextSlot:
        """Lay a text out as a row, cut on both sides where it is longer than the model reads."""
        parts = [self.model.tokenizer.encode(part) for part in gaps.parts]
        row, at = list(parts[0]), list[int]()
        for count, part in zip(gaps.tokens, parts[1:], strict=True):
            at += range(len(row), len(row) + count)
            row += [self.model.mask_id] * count + part
        before, behind = self.model.frame
        room = self._limit - len(before) - len(behind)
        span = at[-1] + 1 - at[0]
        if span > room:
            raise ItemError(
                f"The gaps and what is between them have {span} tokens; the model reads {room}. "
                "Give them in several items."
            )
        start = max(0, min(at[0] - (room - span) // 2, len(row) - room))
        row = [*before, *row[start : start + room], *behind]
        shift = len(before) - start
        return _TextSlot(lane, gaps, row, [a + shift for a in at], [[HIDDEN] * len(at)])

    def _hidden(self, slot: _TextSlot) -> int:
        return slot.states[-1].count(HIDDEN)

    def _text(self, slot: _TextSlot) -> str:
        text, first = slot.gaps.parts[0], 0
        for count, part in zip(slot.gaps.tokens, slot.gaps.parts[1:], strict=True):
            text += self._spelled(slot.states[-1][first : first + count]) + part
            first += count
        return text

    def _spelled(self, tokens: Sequence[int]) -> str:
        """Return the text of some tokens: runs of known ones, and dots."""
        text, run = "", list[int]()
        for token in (*tokens, HIDDEN):
            if token != HIDDEN:
                run.append(token)
                continue
            text += (self.model.text(run) if run else "") + DOT
            run = []
        return text[:-1]

    # Edits ------------------------------------------------------------------------------------

    def _check_edits(self, lane: Lane, count: int) -> None:
        known = {"temperature", "noise", "forbid", "mask", "put"}
        size = self.model.network.config.vocab_size
        for _, edits in lane.edits:
            for name, value in edits.items():
                if name not in known:
                    names = ", ".join(sorted(known))
                    raise EditError(f"Unknown edit {name!r} of a lane of Unmask. Known: {names}.")
                if name in ("temperature", "noise"):
                    self._check_fill(name, value)
                elif not _within(name, value, count, size):
                    raise EditError(
                        f"{name} must hold gap tokens from 0 to {count - 1} and tokens from 0 to "
                        f"{size - 1}, got {value!r}."
                    )

    def _check_fill(self, name: str, value: Any) -> None:
        try:
            FillConfig(**{name: value})
        except InputError as error:
            raise EditError(f"The edit cannot be applied: {error}") from None

    def _in_force(self, slot: _TextSlot) -> FillConfig:
        values: dict[str, Any] = {"temperature": self.fill.temperature, "noise": self.fill.noise}
        for at, edits in slot.lane.edits:
            if at <= slot.position:
                values |= {name: edits[name] for name in values if name in edits}
        return FillConfig(**values)

    def _edited(self, slot: _TextSlot) -> list[int]:
        """Return the gap tokens where the lane stands, with the edits of that position."""
        tokens = list(slot.states[-1])
        for at, edits in slot.lane.edits:
            if at == slot.position:
                for position in cast(Sequence[int], edits.get("mask", ())):
                    tokens[position] = HIDDEN
                for key, token in cast(Mapping[object, int], edits.get("put", {})).items():
                    tokens[int(cast(int, key))] = token
        return tokens


def _within(name: str, value: Any, count: int, size: int) -> bool:
    try:
        if name == "forbid":
            return all(0 <= token < size for token in value)
        right = all(0 <= int(position) < count for position in value)
        return right and (name != "put" or all(0 <= token < size for token in value.values()))
    except (TypeError, ValueError, AttributeError):
        return False
