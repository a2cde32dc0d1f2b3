"""Decode: autoregressive sampling for a batch of sequences, one token per step.

A lane process. It knows prompts, tokens and caches, but not when to stop or what a good text is.
A sampled token goes through the network only in the next step, so a token that is taken back at
once has cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ostinato.arguments import counted, require_at_least
from ostinato.decode.constrained_state import ConstrainedState
from ostinato.decode.constraint import Constraint
from ostinato.decode.detokenizer import Detokenizer
from ostinato.decode.edits import (
    EDIT_KINDS,
    LOGIT_SHIFTS,
    check_edits,
    forbidden_at,
    forced_at,
    logit_shifts,
)
from ostinato.decode.sampling import (
    SamplingParams,
    SamplingRow,
    adjust,
    draw,
    drawn_probs,
    entropy,
    forbid,
    top_logprobs,
)
from ostinato.decode.slots import SlotAllocator
from ostinato.decode.speculative import DraftProposer, DraftRequest, Speculator
from ostinato.errors import ItemError
from ostinato.inference import TokenRow, in_compute_mode, open_backend
from ostinato.journal import EditKind, Fields
from ostinato.loop import Edits, Lane, Report, Text, uniform
from ostinato.models import LanguageModel


@dataclass(frozen=True)
class TokenPrompt:
    """What a lane starts from: the prompt's tokens, and how its continuation is sampled.

    `track_logprobs` names tokens whose log-probabilities are recorded at every position (in the
    text's `tracked_logprobs`). `top_logprobs` is how many of the most likely tokens each report
    shows with their log-probabilities. `constraint` is what the whole continuation must be.
    `draws` is the (seed, key) of its random numbers, instead of the lane's. `limit` is the maximum
    number of tokens, the end token included, if lower than `Decode`'s. `forced` maps positions of
    the continuation to tokens that are taken there even if they are forbidden.
    """

    tokens: Sequence[int]
    sampling: SamplingParams | None = None
    track_logprobs: Sequence[int] = ()
    top_logprobs: int = 0
    constraint: Constraint | None = None
    draws: tuple[int, str] | None = None
    limit: int | None = None
    forced: Mapping[int, int] = field(default_factory=dict)


Prompter = Callable[[Any, Mapping[str, object]], TokenPrompt]
"""Makes an item's prompt. The second argument has the lane's edits that `prompt_edits` names."""


def plain_prompt(encode: Callable[[str], Sequence[int]]) -> Prompter:
    """Make a prompter for items that are texts."""

    def prompt(item: object, edits: Edits) -> TokenPrompt:
        if not isinstance(item, str):
            raise ItemError(f"A prompt must be a text, got {type(item).__name__}.")
        return TokenPrompt(encode(item))

    return prompt


SETTINGS = frozenset(spec.name for spec in fields(SamplingParams))
KNOWN_EDITS = frozenset(EDIT_KINDS)
ROOM_REDRAWS = 8  # of a token that leaves no room to end, before the known completion is taken


@dataclass(slots=True)
class _DecodeSlot:
    """A lane in its slot of the cache."""

    index: int
    lane: Lane
    prompt: TokenPrompt
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tracked: list[dict[int, float]] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)  # hidden[p] (C,) predicts tokens[p]
    detokenizer: Detokenizer = field(default_factory=Detokenizer)
    constraint_state: ConstrainedState | None = None
    ended: bool = False  # by an end token
    done: bool = False  # no token follows, whatever the reason
    prompt_tokens: int = 0  # still to be reported
    computed: int = 0  # rows since the last report
    row_counted: bool = False  # the row to compute next was reported before the lane was resumed

    def fork(self, index: int, lane: Lane) -> _DecodeSlot:
        """Return a copy for another lane in another slot."""
        state = self.constraint_state
        return _DecodeSlot(
            index,
            lane,
            self.prompt,
            list(self.tokens),
            list(self.logprobs),
            list(self.tracked),
            list(self.hidden),
            self.detokenizer.copy(),
            None if state is None else state.copy(),
            self.ended,
            self.done,
        )

    def crop(self, to: int) -> None:
        """Keep the first `to` tokens."""
        self.detokenizer.crop(to)
        if self.constraint_state is not None:
            self.constraint_state.crop(to)
        # The hidden state that predicts token `to` stays: the token can be sampled again at once.
        del self.tokens[to:], self.logprobs[to:], self.tracked[to:], self.hidden[to + 1 :]
        self.ended = self.done = False

    def text(self) -> Text:
        """Return the draft so far."""
        return Text(
            self.detokenizer.text,
            tuple(self.tokens),
            self.detokenizer.starts,
            tuple(self.logprobs),
            self.ended,
            tuple(self.tracked),
        )


class Decode:
    """Write texts token by token, many side by side.

    `prompt` makes an item's prompt; edits named in `prompt_edits` are passed on to it.
    `alternatives` adds that many of the most likely tokens that may come to each report
    (`alternatives`: text, the model's probability, and the one that it is drawn with, after
    temperature, cuts and masks), and the entropy of the model's in nats (`entropy`).

    Edits: the settings of `SamplingParams` and `bias` (token to number) hold from their position
    on; `forbid` (tokens) holds at its position; `force` (tokens) are taken from its position on (a
    later list for the same position replaces it, an empty one ends it).

    A report's `ended` is a natural end, its `out_of_room` a model's context that is full. `length`
    is for outputs of a fixed number of tokens, such as an image's codes: they end with the last.
    """

    deterministic: bool
    costs = ("tokens", "computed", "prompt")
    unit = "tokens"

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
        length: int | None = None,
        proposer: DraftProposer | None = None,
    ) -> None:
        if limit is not None:
            require_at_least(1, limit=limit)
        self.slots = slots
        self.constraint = constraint
        self.limit = limit
        self._length = length
        self.sampling = sampling or SamplingParams()
        self.tokenizer = model.tokenizer
        if proposer is not None:
            proposer.prepare(self.tokenizer, slots)
        self._proposer, self._block = proposer, block
        self._prompt = prompt
        self._prompt_edits = prompt_edits
        self._alternatives = alternatives
        self._context = model.config.max_position_embeddings
        self._open(model)

    def _open(self, model: LanguageModel) -> None:
        self._model = model
        self._inference = open_backend(model, self.slots, block=self._block)
        self.deterministic = self._inference.self_test().batch_invariant
        self.compute_mode = self._inference.compute_mode
        self.sampling.require_vocab(self._inference.vocab_size)
        self._speculator = Speculator(self._inference, self._proposer, self._block)
        self._allocator = SlotAllocator(self._inference, self.slots)
        self._slots: dict[str, _DecodeSlot] = {}

    def use_compute_mode(self, mode: str) -> None:
        """Compute in this mode, if the model leaves it open. Call it before any lane starts."""
        if mode != self.compute_mode:
            model = in_compute_mode(self._model, mode)
            if model is not self._model:
                self._open(model)

    def update(self, network: nn.Module | None = None) -> bool:
        """Take over the network's weights as they are now; return whether any changed.

        See `Backend.update`. What the old weights computed is forgotten, also of prompts. Lanes in
        work keep their tokens; the next step computes all of them again, by the new weights.
        """
        changed = self._inference.update(network)
        if network is not None:
            self._model = replace(self._model, network=network)
        if not changed:
            return False
        self.compute_mode = self._inference.compute_mode
        self._allocator.forget()
        for slot in self._slots.values():
            self._speculator.forget(slot.lane.key)
            # The row after the last token was reported if it was computed: it counts once.
            slot.row_counted |= len(slot.hidden) > len(slot.tokens)
            slot.hidden.clear()
            self._allocator.refill(slot.index, slot.prompt.tokens[:-1])
        return True

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a slot; its prompt is computed, or copied from a slot that holds it."""
        prompt = self._prompt(item, self._check_edits(lane))
        if prompt.sampling is not None:
            prompt.sampling.require_vocab(self._inference.vocab_size)
        if not prompt.tokens:
            raise ItemError("The prompt must hold at least one token, got none.")
        if len(prompt.tokens) >= self._context:
            raise ItemError(
                f"The prompt has {counted(len(prompt.tokens), 'tokens')}; the model reads fewer "
                "than "
                f"{self._context}. Shorten the item."
            )
        constraint = prompt.constraint or self.constraint
        state = None
        if constraint is not None:
            state = ConstrainedState(constraint, self.tokenizer, self._room(prompt))
        # The last token is fed by the first step, whose hidden state the cache cannot give.
        slot = _DecodeSlot(self._allocator.take(prompt.tokens[:-1]), lane, prompt)
        slot.constraint_state, slot.prompt_tokens = state, len(prompt.tokens)
        for report in lane.past:
            past = Fields(report)
            self._append(slot, past.integer("token"), past.number("logprob"))
            if prompt.track_logprobs:
                values = past.items("tracked_logprobs")
                slot.tracked.append(dict(zip(prompt.track_logprobs, values, strict=True)))
        if lane.past or lane.again:  # these rows were reported when they were first computed
            slot.prompt_tokens = 0
            slot.row_counted = lane.again
        self._slots[lane.key] = slot

    def fork(self, source: str, lane: Lane) -> None:
        """Start a lane as a copy of another one at its position; nothing is computed again."""
        self._check_edits(lane)
        parent = self._slots[source]
        length = len(parent.prompt.tokens) - 1 + len(parent.hidden)
        self._slots[lane.key] = parent.fork(self._allocator.fork(parent.index, length), lane)

    def rewind(self, lane: Lane, to: int) -> None:
        """Crop the lane's draft to `to` tokens; the cache beyond is overwritten later."""
        self._check_edits(lane)
        slot = self._slots[lane.key]
        self._speculator.forget(lane.key)
        slot.lane = lane
        slot.crop(to)

    def drop(self, key: str) -> None:
        """Free the lane's slot; its prompt stays in the cache for later lanes."""
        self._speculator.drop(key)
        self._allocator.free(self._slots.pop(key).index)

    def output(self, key: str) -> Text:
        """Return the draft so far."""
        return self._slots[key].text()

    @property
    def known_edits(self) -> Mapping[str, EditKind]:
        """The names of a lane's edits, with the type of their values."""
        return EDIT_KINDS | dict.fromkeys(self._prompt_edits, "any")

    def _check_edits(self, lane: Lane) -> dict[str, object]:
        """Check the lane's edits; return those that its prompt is made with."""
        vocab_size = self._inference.vocab_size
        return check_edits(
            lane, "Decode", KNOWN_EDITS, self.sampling, vocab_size, self._prompt_edits
        )

    def _room(self, prompt: TokenPrompt) -> int:
        """Return the maximum length of a draft: by its limits, and by the model's context."""
        limits = [limit for limit in (self.limit, prompt.limit) if limit is not None]
        return min((self._context - len(prompt.tokens), *limits))

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Sample the next token of every lane that has not ended."""
        slots = [slot for slot in self._slots.values() if not slot.done]
        if not slots:
            return {}
        self._catch_up(slots)
        hidden = [slot.hidden[len(slot.tokens)] for slot in slots]
        logits = self._speculator.logits([slot.lane.key for slot in slots], hidden)  # (N, V)
        rows = [self._row(slot) for slot in slots]
        adjusted = adjust(logits, rows)
        tokens = draw(adjusted, rows)
        for n, slot in enumerate(slots):
            tokens[n] = self._with_room(slot, adjusted[n], rows[n], tokens[n])
        # Not by `logsumexp`, which takes three times as long.
        logprobs = torch.log_softmax(logits, dim=-1)
        return {
            slot.lane.key: self._report(slot, token, logprobs[n], adjusted[n], rows[n].sampling)
            for n, (slot, token) in enumerate(zip(slots, tokens, strict=True))
        }

    def _catch_up(self, slots: Sequence[_DecodeSlot]) -> None:
        """Feed tokens that were sampled but not computed, one per lane at once.

        A lane lacks more than one only after it was resumed.
        """
        while behind := [slot for slot in slots if len(slot.hidden) <= len(slot.tokens)]:
            rows, requests = [], []
            for slot in behind:
                done, start = len(slot.hidden), len(slot.prompt.tokens) - 1
                token = slot.tokens[done - 1] if done else slot.prompt.tokens[-1]
                rows.append(TokenRow(slot.index, token, start + done))
                requests.append(self._draft_request(slot, done))
                if done == len(slot.tokens):
                    # The prompt's last token counts as prompt.
                    slot.computed = int(done > 0 and not slot.row_counted)
                    slot.row_counted = False
            for slot, row in zip(behind, self._speculator.feed(rows, requests), strict=True):
                slot.hidden.append(row)

    def _draft_request(self, slot: _DecodeSlot, done: int) -> DraftRequest:
        """Return the request for draft tokens after the first `done` tokens."""
        tokens = [*slot.prompt.tokens, *slot.tokens[:done]]
        known = slot.tokens[done:]
        return DraftRequest(slot.lane.key, tokens, lambda draft: self._row(slot, draft), known)

    def _row(self, slot: _DecodeSlot, draft: Sequence[int] = ()) -> SamplingRow:
        """Return how the next token is sampled, or the one after some draft tokens."""
        position, lane = len(slot.tokens) + len(draft), slot.lane
        sampling, bias = self._settings_at(slot, position)
        seed, key = slot.prompt.draws or (lane.seed, lane.key)
        number = uniform(seed, key, lane.round, lane.backtracks, position)
        seen: Sequence[int] = ()
        if sampling.repetition_penalty != 1.0:
            seen = [*slot.prompt.tokens, *slot.tokens, *draft]
        if shift := sampling.end_shift(self._room(slot.prompt) - position):
            bias |= {end: bias.get(end, 0.0) + shift for end in self.tokenizer.eos_ids}
        allowed = None
        # Behind draft tokens the constraint is not followed: a wrong guess is merely not accepted.
        if slot.constraint_state is not None and not draft:
            allowed = slot.constraint_state.allowed(self._inference.vocab_size)
        return SamplingRow(sampling, number, forbidden_at(lane, position), bias, seen, allowed)

    def _settings_at(
        self, slot: _DecodeSlot, position: int
    ) -> tuple[SamplingParams, dict[int, float]]:
        """Return the sampling settings and the bias at a position, edits included."""
        sampling, edits = slot.prompt.sampling or self.sampling, slot.lane.edits
        bias: dict[int, float] = {}
        if not edits:
            return sampling, bias
        settings = edits.in_force(position, SETTINGS)
        for name in LOGIT_SHIFTS & settings.keys():  # their keys are texts after JSON
            settings[name] = logit_shifts(settings[name])
        for _, shifts in edits.values(position, "bias"):
            bias |= logit_shifts(shifts)
        return replace(sampling, **settings) if settings else sampling, bias

    def _with_room(self, slot: _DecodeSlot, logits: Tensor, row: SamplingRow, token: int) -> int:
        """Sample again, with other random numbers, until the text can end within its limit.

        The result is distributed as if tokens that leave no room had been forbidden; to find all
        of them first would cost a search for each token. After some draws the known completion is
        taken.
        """
        state = slot.constraint_state
        lane, position = slot.lane, len(slot.tokens)
        if state is None or state.leaves_room(token, position):
            return token
        logits = logits.clone()
        seed, lane_key = slot.prompt.draws or (lane.seed, lane.key)
        refused: list[int] = []
        for attempt in range(ROOM_REDRAWS):
            refused.append(token)
            forbid(logits, row, refused)
            key = f"{lane_key}\x1froom {attempt}"
            number = uniform(seed, key, lane.round, lane.backtracks, position)
            token = draw(logits[None], [replace(row, uniform=number)])[0]
            if token not in refused and state.leaves_room(token, position):
                return token
        completion = state.completion
        return completion[0] if completion else min(self.tokenizer.eos_ids, default=token)

    def _report(
        self,
        slot: _DecodeSlot,
        sampled: int,
        logprobs: Tensor,
        adjusted: Tensor,
        sampling: SamplingParams,
    ) -> Report:
        token, state = self._forced(slot), slot.constraint_state
        if token is None or (state is not None and not state.allows(token, len(slot.tokens))):
            token = sampled
        logprob = float(logprobs[token])
        text = self._append(slot, token, logprob)
        report: dict[str, object] = {"token": token, "text": text, "logprob": logprob, "tokens": 1}
        report["computed"], slot.computed = slot.computed, 0
        if slot.prompt_tokens:
            report["prompt"], slot.prompt_tokens = slot.prompt_tokens, 0
        if tracked := list(slot.prompt.track_logprobs):
            report["tracked_logprobs"] = values = logprobs[tracked].tolist()
            slot.tracked.append(dict(zip(tracked, values, strict=True)))
        if slot.prompt.top_logprobs:
            report["top_logprobs"] = top_logprobs(logprobs, slot.prompt.top_logprobs)
        if self._alternatives:
            report |= self._most_likely(token, logprobs, adjusted, sampling)
        end = self._end(slot, token)
        slot.done = bool(end)
        return report | end

    def _end(self, slot: _DecodeSlot, token: int) -> dict[str, str]:
        """Return what a report says of an end after this token: nothing, if there is none."""
        if token in self.tokenizer.eos_ids:
            return {"ended": "It wrote the end of text."}
        if len(slot.tokens) == self._length:
            return {"ended": f"All {self._length} tokens are written."}
        if len(slot.prompt.tokens) + len(slot.tokens) >= self._context:
            return {"out_of_room": f"The model's context of {self._context} tokens is full."}
        state = slot.constraint_state
        # With an end token, a whole text still has to be ended by it.
        if state is not None and not self.tokenizer.eos_ids and state.is_whole:
            return {"ended": "Its constraint leaves nothing to add."}
        return {}

    def _forced(self, slot: _DecodeSlot) -> int | None:
        """Return the token that the prompt or the latest edit forces here; None if none does."""
        position = len(slot.tokens)
        if position in slot.prompt.forced:
            return slot.prompt.forced[position]
        return forced_at(slot.lane, position, slot.tokens) if slot.lane.edits else None

    def _append(self, slot: _DecodeSlot, token: int, logprob: float) -> str:
        """Append a token to the draft; return the characters that it completes."""
        slot.tokens.append(token)
        slot.logprobs.append(logprob)
        slot.ended = slot.done = token in self.tokenizer.eos_ids
        if slot.constraint_state is not None:
            slot.constraint_state.advance(token)
        return slot.detokenizer.add(b"" if slot.ended else self.tokenizer.token_bytes(token))

    def _most_likely(
        self, token: int, logprobs: Tensor, adjusted: Tensor, sampling: SamplingParams
    ) -> dict[str, object]:
        """Return the likeliest tokens that may come, with the model's probability and the drawn."""
        probs, drawn = torch.softmax(logprobs, dim=-1), drawn_probs(adjusted, sampling)
        best = [id for id, logit in top_logprobs(adjusted, self._alternatives) if logit > -math.inf]
        return {
            "entropy": entropy(logprobs),
            "prob": float(probs.max()),
            "drawn_prob": float(drawn[token]),
            "alternatives": [
                [self.tokenizer.decode([id]), *(round(float(p[id]), 6) for p in (probs, drawn))]
                for id in best
            ],
        }
