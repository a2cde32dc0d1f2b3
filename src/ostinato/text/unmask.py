"""Unmask: gaps in texts filled by a masked language model, the most confident tokens first.

A lane process: MaskGIT's confidence schedule (Chang et al. 2022, section 3.2) with a masked
language model (Devlin et al. 2019); one pass of the network a step. Knows nothing of when to stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ostinato.arguments import (
    SAMPLING_RANGES,
    NumberRange,
    counted,
    require_at_least,
    require_types,
)
from ostinato.decode import (
    MASKED,
    MaskedRow,
    check_mask,
    check_put,
    check_tokens,
    uniforms,
    unmask_step,
)
from ostinato.errors import InputError, ItemError
from ostinato.journal import EditKind
from ostinato.loop import Lane, Report, Text
from ostinato.models import MaskedModel, device_of

PAD_TO = 32  # tokens: rows are padded to a multiple, so that few shapes occur
DOT = "·"  # what a masked token looks like in a text
EDITS: Mapping[str, EditKind] = {
    "temperature": "number",
    "noise": "number",
    "forbid": "any",
    "mask": "list",
    "put": "any",
}


@dataclass(frozen=True)
class MaskedText:
    """A text with gaps: its parts, and the number of tokens of each gap between them."""

    parts: tuple[str, ...]
    tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        require_types(self)
        right = len(self.parts) == len(self.tokens) + 1 and self.tokens
        if not right or min(self.tokens) < 1:
            raise InputError(
                f"The gaps of a MaskedText must lie between its parts and hold 1 token or more "
                f"each, got {len(self.parts)} parts and gaps of {list(self.tokens)}. Mark a gap "
                "with ___."
            )

    @classmethod
    def of(cls, text: str, tokens: int, mark: str = "___") -> MaskedText:
        """Read a text in which each `mark` stands for a gap of `tokens` tokens."""
        parts = text.split(mark)
        return cls(tuple(parts), (tokens,) * (len(parts) - 1))


NOISE = NumberRange(lambda value: 0 <= value < 1e9, "a finite number of 0 or more")


@dataclass(frozen=True, kw_only=True)
class FillConfig:
    """How masked tokens are sampled: `temperature` (0: the most likely ones), and the Gumbel
    `noise` on the confidence, which falls to 0 at the last step."""

    temperature: float = 0.7
    noise: float = 1.0

    def __post_init__(self) -> None:
        ranges = {"temperature": SAMPLING_RANGES["temperature"], "noise": NOISE}
        for name, numbers in ranges.items():
            numbers.require(
                name, getattr(self, name), f"Use for example {getattr(FillConfig, name)}."
            )
        require_types(self)


@dataclass(slots=True)
class _TextSlot(MaskedRow):
    """A lane in its slot. `row` is its whole sequence; the states are those of the gap tokens."""

    gaps: MaskedText
    row: list[int]
    at: list[int]  # the indices of the gap tokens in the row


class Unmask:
    """Fill gaps, a share of their tokens a step. An item is a `MaskedText`.

    Edits: `temperature`, `noise` and `forbid` (tokens) hold from their position on. `mask` (gap
    tokens to mask again, counted over all gaps) and `put` (gap token to token) apply at theirs.

    Reports: `step` (from 1), `positions` (of the gap tokens that changed) and `put` (their tokens,
    -1: masked), `text`, `masked` (still masked), `confidence` (the mean probability of the tokens
    kept), `tokens` (their number), and `ended` after the last step. The output is the whole text.
    """

    known_edits = EDITS
    deterministic = True
    costs = ("tokens",)
    unit = "tokens"

    def __init__(
        self, model: MaskedModel, *, steps: int = 8, fill: FillConfig | None = None, slots: int = 16
    ) -> None:
        require_at_least(1, steps=steps, slots=slots)
        self.model, self.steps, self.slots = model, steps, slots
        self.fill = fill or FillConfig()
        self._network, self._device = model.network.eval(), device_of(model.network)
        special = {*model.tokenizer.special_ids, model.mask_id}
        self._never = sorted(i for i in special if i < model.network.config.vocab_size)
        self._slots: dict[str, _TextSlot] = {}

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a slot, at the end of its past."""
        if not isinstance(item, MaskedText):
            raise ItemError(f"An item of Unmask must be MaskedText, got {type(item).__name__}.")
        self._check_edits(lane, sum(item.tokens))
        slot = self._new_slot(lane, item)
        slot.replay(lane.past, "put")
        self._slots[lane.key] = slot

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring the lane back to a position; its tokens there are kept."""
        slot = self._slots[lane.key]
        self._check_edits(lane, len(slot.at))
        slot.rewind(lane, to)

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        del self._slots[key]

    def output(self, key: str) -> Text:
        """Return the current text; a masked token is a dot."""
        slot = self._slots[key]
        return Text(self._text(slot), tokens=tuple(slot.states[-1]), ended=not slot.masked)

    def filled(self, key: str) -> list[str]:
        """Return the current text of each gap."""
        return self._gap_texts(self._slots[key])

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Advance every lane that has not ended.

        Each has a pass of its own: in a shared one, the padding, and with it the bits, would depend
        on the other lanes.
        """
        slots = [
            slot
            for slot in self._slots.values()
            if slot.position < self.steps and MASKED in slot.edited()
        ]
        return {slot.lane.key: self._advance(slot) for slot in slots}

    def _advance(self, slot: _TextSlot) -> Report:
        tokens, fill = slot.edited(), slot.in_force(self.fill)
        result = unmask_step(
            tokens,
            self._logits(slot, tokens),
            uniforms(slot.lane, slot.position, 2, len(tokens)),
            unknown=len(tokens),
            step=slot.position + 1,
            steps=self.steps,
            temperature=fill.temperature,
            noise=fill.noise,
        )
        positions = slot.record(result.tokens)
        report: dict[str, object] = {
            "step": slot.position,
            "positions": positions,
            "put": [result.tokens[p] for p in positions],
            "text": self._text(slot),
            "masked": result.masked,
            "tokens": result.decided,
        }
        if result.decided:
            report["confidence"] = result.confidence
        if slot.position == self.steps:
            report["ended"] = f"All {self.steps} steps are taken."
        elif not result.masked:
            report["ended"] = "No token is masked any more."
        return report

    @torch.inference_mode()
    def _logits(self, slot: _TextSlot, tokens: Sequence[int]) -> Tensor:
        """Return the logits (N, V) of the gap tokens; -inf for special and forbidden tokens."""
        row = list(slot.row)
        for at, token in zip(slot.at, tokens, strict=True):
            row[at] = self.model.mask_id if token == MASKED else token
        length = min(-(-len(row) // PAD_TO) * PAD_TO, self._limit)
        mask = (torch.arange(length) < len(row))[None]
        padded = torch.tensor([[*row, *[0] * (length - len(row))]])  # (1, T)
        device = self._device
        logits: Tensor = self._network(padded.to(device), mask.to(device))[0, slot.at].float().cpu()
        logits[:, [*self._never, *self._forbidden(slot)]] = -torch.inf
        return logits

    @staticmethod
    def _forbidden(slot: _TextSlot) -> list[int]:
        forbidden = slot.lane.edits.values(slot.position, "forbid")
        return [token for _, tokens in forbidden for token in tokens]

    # Texts ------------------------------------------------------------------------------------

    @property
    def _limit(self) -> int:
        return self.model.network.config.max_position_embeddings

    def _new_slot(self, lane: Lane, gaps: MaskedText) -> _TextSlot:
        """Write a text as a row of tokens, cut on both sides where the model reads fewer."""
        self.model.tokenizer.require_known("".join(gaps.parts))
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
                f"The gaps and the text between them have {counted(span, 'tokens')}; the model "
                f"reads {room}. "
                "Split the text into several items."
            )
        # The window has the same context on both sides of the gaps, as far as the text goes.
        start = max(0, min(at[0] - (room - span) // 2, len(row) - room))
        row = [*before, *row[start : start + room], *behind]
        shift = len(before) - start
        states = [[MASKED] * len(at)]
        return _TextSlot(lane, gaps, row, [a + shift for a in at], states=states)

    def _text(self, slot: _TextSlot) -> str:
        first, *rest = slot.gaps.parts
        filled = zip(self._gap_texts(slot), rest, strict=True)
        return first + "".join(gap + part for gap, part in filled)

    def _gap_texts(self, slot: _TextSlot) -> list[str]:
        texts, first = [], 0
        for count in slot.gaps.tokens:
            texts.append(self._decoded(slot.states[-1][first : first + count]))
            first += count
        return texts

    def _decoded(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; a masked one is a dot.

        Runs of known tokens are decoded together: alone, parts of one word would be apart.
        """
        text, run = "", list[int]()
        for token in (*tokens, MASKED):
            if token != MASKED:
                run.append(token)
                continue
            text += (self.model.text(run) if run else "") + DOT
            run = []
        return text[:-1]  # without the dot of the sentinel

    # Edits ------------------------------------------------------------------------------------

    def _check_edits(self, lane: Lane, count: int) -> None:
        vocab_size = self.model.network.config.vocab_size

        def check(name: str, value: object) -> None:
            if name == "mask":
                check_mask(value, count)
            elif name == "put":
                check_put(value, count, vocab_size)
            elif name == "forbid":
                check_tokens(name, value, vocab_size)
            else:
                FillConfig(**{name: value})  # type: ignore[arg-type]

        lane.edits.check("a lane of Unmask", EDITS, check)
