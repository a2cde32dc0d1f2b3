"""Decode: a batch of sequences, one token a step (autoregressive sampling).

A lane process. It knows prompts, tokens and caches; not when to stop, nor what a good text is.
A sampled token is run through the network only in the step after it, so that a token that is
taken back at once has cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import cast

import torch
from torch import Tensor

from ostinato.decode.constrained_state import ConstrainedState
from ostinato.decode.constraint import Constraint
from ostinato.decode.detokenizer import Detokenizer
from ostinato.decode.edits import OF_SHIFTS, check_edit, shifts
from ostinato.decode.sampling import (
    SamplingParams,
    SamplingRow,
    adjust,
    draw,
    forbid,
    spread,
    top_logprobs,
)
from ostinato.decode.slots import SlotAllocator
from ostinato.decode.speculative import DraftProposer, DraftRequest, Speculator
from ostinato.errors import EditError, InputError, ItemError
from ostinato.inference import open_backend
from ostinato.loop import Edits, Lane, Report, Text, uniform
from ostinato.models import LanguageModel


@dataclass(frozen=True)
class TokenPrompt:
    """What a lane begins from: the prompt's tokens, and how its continuation is drawn.

    `track_logprobs` names tokens whose log-probability is noted at every position (in the text's `tracked_logprobs`):
    where a value could have been said. `top_logprobs` is how many of the likeliest tokens are reported
    at every position with their log-probabilities. `constraint` is what the continuation must be as
    a whole. `draws` is the (seed, key) that its random numbers come from, where they are not the
    lane's own. `limit` is the most tokens that the continuation may have, its end token included,
    where `Decode` allows more. `forced` holds the tokens that are known, by their positions in the
    continuation: they are taken as they are, whatever is forbidden there.
    """

    tokens: Sequence[int]
    sampling: SamplingParams | None = None
    track_logprobs: Sequence[int] = ()
    top_logprobs: int = 0
    constraint: Constraint | None = None
    draws: tuple[int, str] | None = None
    limit: int | None = None
    forced: Mapping[int, int] = field(default_factory=dict)


Prompter = Callable[[object, Mapping[str, object]], TokenPrompt]
"""Makes an item's prompt; the second argument holds the edits that are not `Decode`'s own."""


def plain_prompt(encode: Callable[[str], Sequence[int]]) -> Prompter:
    """Make a prompter for items that are texts."""

    def prompt(item: object, edits: Edits) -> TokenPrompt:
        if not isinstance(item, str):
            raise ItemError(f"A prompt must be a text, got {type(item).__name__}.")
        return TokenPrompt(encode(item))

    return prompt


SETTINGS = frozenset(spec.name for spec in fields(SamplingParams))
REDRAWS = 8  # of a token that would leave no room to end, before the known way out is taken
KNOWN = SETTINGS | {"forbid", "force", "bias"}


@dataclass(slots=True)
class _DecodeSlot:
    """A lane in its slot."""

    index: int
    lane: Lane
    prompt: TokenPrompt
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tracked: list[dict[int, float]] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)  # hidden[p] predicts tokens[p]
    spelling: Detokenizer = field(default_factory=Detokenizer)
    constraint_state: ConstrainedState | None = None
    ended: bool = False
    prompt_tokens: int = 0  # to be told
    computed: int = 0
    told: bool = False  # the row to compute next was counted before


class Decode:
    """Write texts token by token, many side by side.

    `prompt` makes an item's prompt; its edits are passed on where `prompt_edits` names them.
    `alternatives` adds to each report that many of the likeliest tokens with their probabilities
    (`alternatives`) and the entropy in nats (`entropy`). Edits: the settings of `SamplingParams` and
    `bias` (token to number) hold from their position on; `forbid` (tokens) holds at its position;
    `force` (tokens) are taken as they are, from their position on (none: no longer).

    `constraint` is what every text must be as a whole, where its prompt names no other: tokens that
    cannot lead there are not drawn, and neither forced. `limit` is the most tokens that a draft may
    have, its end token included: what ends drafts there (`Steps`) is to be given the same. A
    constraint keeps room to end within it, `SamplingParams.end_bias` counts toward it.

    `proposer` names tokens that may come, which are computed ahead (`ostinato.decode.speculative`):
    the reports are the same with and without.

    Reports: `token`, `text` (the characters it completes), `logprob` (natural logarithm, of the
    model's own distribution), `tokens` (1), `computed` (rows through the network for it), at a
    draft's first step `prompt` (its tokens; how many were computed depends on what the cache held),
    and `ended` at an end token.
    """

    deterministic: bool

    def __init__(
        self,
        model: LanguageModel,
        prompt: Prompter,
        *,
        sampling: SamplingParams | None = None,
        slots: int = 16,
        block: int = 16,
        alternatives: int = 0,
        prompt_edits: frozenset[str] = frozenset(),
        constraint: Constraint | None = None,
        limit: int | None = None,
        proposer: DraftProposer | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise InputError(f"The limit of a draft must be 1 token or more, got {limit}.")
        self.slots = slots
        self.constraint = constraint
        self.limit = limit
        self.sampling = sampling or SamplingParams()
        self.tokenizer = model.tokenizer
        self._inference = open_backend(model, slots, block=block)
        self.deterministic = self._inference.self_test().batch_invariant
        self.compute_mode = self._inference.compute_mode
        if proposer is not None:
            proposer.prepare(self.tokenizer, slots)
        self._ahead = Speculator(self._inference, proposer, block)
        self._prompt = prompt
        self._prompt_edits = prompt_edits
        self._alternatives = alternatives
        self._limit = model.config.max_position_embeddings
        self._allocator = SlotAllocator(self._inference, slots)
        self._slots: dict[str, _DecodeSlot] = {}

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a slot; its prompt is computed, or taken from a slot that holds it."""
        prompt = self._prompt(item, self._for_prompt(lane))
        if not prompt.tokens:
            raise ItemError("The prompt must hold at least one token, got none.")
        if len(prompt.tokens) >= self._limit:
            raise ItemError(
                f"The prompt has {len(prompt.tokens)} tokens; the model reads fewer than "
                f"{self._limit}. Shorten the item."
            )
        constraint = prompt.constraint or self.constraint
        guided = None
        if constraint is not None:
            guided = ConstrainedState(constraint, self.tokenizer, self._room(prompt))
        index = self._allocator.take(prompt.tokens[:-1])
        slot = _DecodeSlot(
            index, lane, prompt, prompt_tokens=len(prompt.tokens), constraint_state=guided
        )
        for report in lane.past:
            self._append(slot, cast(int, report["token"]), cast(float, report["logprob"]))
            if prompt.track_logprobs:
                values = cast(list[float], report["tracked_logprobs"])
                slot.tracked.append(dict(zip(prompt.track_logprobs, values, strict=True)))
        if lane.past or lane.again:  # what these rows cost was told when they were computed
            slot.prompt_tokens = 0
            slot.told = lane.again
        self._slots[lane.key] = slot

    def fork(self, source: str, lane: Lane) -> None:
        """Give a slot to a lane that stands where another one does; nothing is computed again."""
        self._for_prompt(lane)
        parent = self._slots[source]
        length = len(parent.prompt.tokens) - 1 + len(parent.hidden)
        slot = _DecodeSlot(self._allocator.fork(parent.index, length), lane, parent.prompt)
        slot.tokens, slot.logprobs = list(parent.tokens), list(parent.logprobs)
        slot.tracked, slot.hidden = list(parent.tracked), list(parent.hidden)
        slot.spelling, slot.ended = parent.spelling.copy(), parent.ended
        slot.constraint_state = (
            None if parent.constraint_state is None else parent.constraint_state.copy()
        )
        self._slots[lane.key] = slot

    def rewind(self, lane: Lane, to: int) -> None:
        """Crop the lane's draft to `to` tokens; the cache beyond is written over later."""
        self._for_prompt(lane)
        slot = self._slots[lane.key]
        self._ahead.forget(lane.key)
        slot.lane = lane
        slot.spelling.crop(to)
        if slot.constraint_state is not None:
            slot.constraint_state.crop(to)
        del slot.tokens[to:], slot.logprobs[to:], slot.tracked[to:], slot.hidden[to + 1 :]
        slot.ended = False

    def drop(self, key: str) -> None:
        """Free the lane's slot; the prompt stays in the cache for who can use it."""
        self._ahead.drop(key)
        self._allocator.free(self._slots.pop(key).index)

    def output(self, key: str) -> Text:
        """Return the draft as it stands."""
        slot = self._slots[key]
        return Text(
            slot.spelling.text,
            tuple(slot.tokens),
            slot.spelling.starts,
            tuple(slot.logprobs),
            slot.ended,
            tuple(slot.tracked),
        )

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Draw the next token of every lane that has not ended."""
        slots = [slot for slot in self._slots.values() if not slot.ended]
        if not slots:
            return {}
        self._catch_up(slots)
        hidden = [slot.hidden[len(slot.tokens)] for slot in slots]
        logits = self._ahead.logits([slot.lane.key for slot in slots], hidden)  # (N, V)
        rows = [self._row(slot) for slot in slots]
        adjusted = adjust(logits, rows)
        drawn = draw(adjusted, rows)
        for n, slot in enumerate(slots):
            if slot.constraint_state is not None and not slot.constraint_state.leaves_room(
                drawn[n], len(slot.tokens)
            ):
                drawn[n] = self._draw_with_room(
                    slot, slot.constraint_state, adjusted[n], rows[n], drawn[n]
                )
        logprobs = torch.log_softmax(logits, dim=-1)
        return {
            slot.lane.key: self._report(slot, token, logprobs[n])
            for n, (slot, token) in enumerate(zip(slots, drawn, strict=True))
        }

    def _catch_up(self, slots: Sequence[_DecodeSlot]) -> None:
        """Run the tokens through the network that were drawn but not computed, one a lane at once.

        More than one a lane is only missing where a lane was brought back after a pause.
        """
        while behind := [slot for slot in slots if len(slot.hidden) <= len(slot.tokens)]:
            rows, asked = [], []
            for slot in behind:
                done, start = len(slot.hidden), len(slot.prompt.tokens) - 1
                token = slot.tokens[done - 1] if done else slot.prompt.tokens[-1]
                rows.append((slot.index, token, start + done))
                asked.append(self._asked(slot, done))
                if done == len(slot.tokens):
                    slot.computed, slot.told = int(done > 0 and not slot.told), False
            for slot, row in zip(behind, self._ahead.feed(rows, asked), strict=True):
                slot.hidden.append(row)

    def _asked(self, slot: _DecodeSlot, done: int) -> DraftRequest:
        """Return what a proposer is asked: what comes after the first `done` tokens."""
        tokens = [*slot.prompt.tokens, *slot.tokens[:done]]
        known = slot.tokens[done:]
        return DraftRequest(slot.lane.key, tokens, lambda guessed: self._row(slot, guessed), known)

    def _row(self, slot: _DecodeSlot, guessed: Sequence[int] = ()) -> SamplingRow:
        """Return what the next token is drawn with, once some guessed ones stand there too."""
        position, lane = len(slot.tokens) + len(guessed), slot.lane
        settings: dict[str, object] = {}
        bias: dict[int, float] = {}
        forbidden: list[int] = []
        for at, edits in lane.edits:
            if at > position:  # changed from outside, further on
                continue
            for name, value in edits.items():
                if name in OF_SHIFTS:
                    shift_by = shifts(cast(Mapping[object, float], value))
                    if name == "bias":
                        bias |= shift_by
                    else:
                        settings[name] = shift_by
                elif name in SETTINGS:
                    settings[name] = value
                elif name == "forbid" and at == position:
                    forbidden += cast(list[int], value)
        sampling = slot.prompt.sampling or self.sampling
        if settings:
            sampling = replace(sampling, **settings)  # type: ignore[arg-type]
        seed, key = slot.prompt.draws or (lane.seed, lane.key)
        draws = uniform(seed, key, lane.round, lane.backtracks, position)
        seen: Sequence[int] = ()
        if sampling.repetition_penalty != 1.0:
            seen = [*slot.prompt.tokens, *slot.tokens, *guessed]
        shift = sampling.end_shift(self._room(slot.prompt) - position)
        if shift:
            bias |= {end: bias.get(end, 0.0) + shift for end in self.tokenizer.eos_ids}
        allowed = None
        if slot.constraint_state and not guessed:
            allowed = slot.constraint_state.allowed(self._inference.vocab_size)
        return SamplingRow(sampling, draws, forbidden, bias, seen, allowed)

    def _room(self, prompt: TokenPrompt) -> int:
        """Return how many tokens a draft may have: by the limit, and by the model's context."""
        limits = [limit for limit in (self.limit, prompt.limit) if limit is not None]
        return min((self._limit - len(prompt.tokens), *limits))

    def _draw_with_room(
        self,
        slot: _DecodeSlot,
        guided: ConstrainedState,
        logits: Tensor,
        row: SamplingRow,
        drawn: int,
    ) -> int:
        """Draw again, with other random numbers, until the text can still be ended in its limit.

        So the token is drawn as if those that leave no room had been forbidden. After some draws
        the way out that is known is taken.
        """
        lane, position, logits = slot.lane, len(slot.tokens), logits.clone()
        seed, own = slot.prompt.draws or (lane.seed, lane.key)
        refused: list[int] = []
        for again in range(REDRAWS):
            refused.append(drawn)
            forbid(logits, row, refused)
            key = f"{own}\x1froom {again}"
            number = uniform(seed, key, lane.round, lane.backtracks, position)
            drawn = draw(logits[None], [replace(row, uniform=number)])[0]
            if drawn not in refused and guided.leaves_room(drawn, position):
                return drawn
        way = guided.completion
        return way[0] if way else min(self.tokenizer.eos_ids, default=drawn)

    def _report(self, slot: _DecodeSlot, drawn: int, logprobs: Tensor) -> Report:
        token = self._forced(slot)
        if token is None or (
            slot.constraint_state and not slot.constraint_state.allows(token, len(slot.tokens))
        ):
            token = drawn
        logprob = float(logprobs[token])
        text = self._append(slot, token, logprob)
        report: dict[str, object] = {"token": token, "text": text, "logprob": logprob, "tokens": 1}
        report["computed"], slot.computed = slot.computed, 0
        if slot.prompt_tokens:
            report["prompt"], slot.prompt_tokens = slot.prompt_tokens, 0
        if slot.prompt.track_logprobs:
            report["tracked_logprobs"] = values = logprobs[
                list(slot.prompt.track_logprobs)
            ].tolist()
            slot.tracked.append(dict(zip(slot.prompt.track_logprobs, values, strict=True)))
        if slot.prompt.top_logprobs:
            report["top_logprobs"] = top_logprobs(logprobs, slot.prompt.top_logprobs)
        if self._alternatives:
            report |= self._look(logprobs)
        if token in self.tokenizer.eos_ids:
            report["ended"] = "It wrote the end of text."
        elif len(slot.prompt.tokens) + len(slot.tokens) >= self._limit:
            slot.ended = True
            report["ended"] = f"The model's context of {self._limit} tokens is full."
        elif (
            slot.constraint_state is not None
            and not self.tokenizer.eos_ids
            and slot.constraint_state.is_whole
        ):
            slot.ended = True
            report["ended"] = "Its constraint leaves nothing to add."
        return report

    def _forced(self, slot: _DecodeSlot) -> int | None:
        position = len(slot.tokens)
        if position in slot.prompt.forced:
            return slot.prompt.forced[position]
        forbidden: set[int] = set()
        newer: set[int] = set()  # a later `force` at a position takes the place of an earlier one
        for at, edits in reversed(slot.lane.edits):
            tokens = () if at in newer else cast(Sequence[int], edits.get("force", ()))
            begun = list(tokens[: position - at])  # a value that was broken off is not gone on with
            if at <= position < at + len(tokens) and slot.tokens[at:position] == begun:
                token = tokens[position - at]
                return None if token in forbidden else token
            if "force" in edits:
                newer.add(at)
            if at == position:
                forbidden |= set(cast(Sequence[int], edits.get("forbid", ())))
        return None

    def _append(self, slot: _DecodeSlot, token: int, logprob: float) -> str:
        slot.tokens.append(token)
        slot.logprobs.append(logprob)
        slot.ended = token in self.tokenizer.eos_ids
        if slot.constraint_state is not None:
            slot.constraint_state.advance(token)
        return slot.spelling.add(b"" if slot.ended else self.tokenizer.token_bytes(token))

    def _look(self, logprobs: Tensor) -> dict[str, object]:
        entropy, best = spread(logprobs, self._alternatives)
        told = [[self.tokenizer.decode([token]), round(prob, 6)] for token, prob in best]
        return {"entropy": entropy, "prob": best[0][1], "alternatives": told}

    # Edits ------------------------------------------------------------------------------------

    def _for_prompt(self, lane: Lane) -> dict[str, object]:
        """Return the edits that the prompt wants; raise `EditError` for one that nobody knows."""
        wanted: dict[str, object] = {}
        for at, edits in lane.edits:
            for name, value in edits.items():
                if name in self._prompt_edits and at == 0:
                    wanted[name] = value
                elif name not in KNOWN:
                    names = ", ".join(sorted(KNOWN | self._prompt_edits))
                    raise EditError(f"Unknown edit {name!r} of a lane of Decode. Known: {names}.")
                else:
                    check_edit(name, value, self.sampling, self._inference.vocab_size)
        return wanted
