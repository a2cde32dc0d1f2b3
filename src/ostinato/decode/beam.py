"""Beam search: the most likely text, found by extending several at once by one token per step.

A lane process. A lane is one text, and its beams are a group of slots of the cache. The rules for
keeping, finishing and stopping are those of `transformers`' beam search (`early_stopping=False`).
A finished text's score is its log-probability divided by its length to the power of
`length_penalty` (Wu et al. 2016, section 7, simplified). Knows no sampling and no constraint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ostinato.arguments import counted, require, require_at_least
from ostinato.decode.decode import Prompter
from ostinato.decode.detokenizer import Detokenizer
from ostinato.decode.edits import check_edits, forbidden_at
from ostinato.decode.sampling import SamplingParams
from ostinato.decode.slots import common_prefix
from ostinato.errors import ItemError
from ostinato.inference import TokenRow, in_compute_mode, open_backend
from ostinato.journal import Fields
from ostinato.loop import Lane, Report, Text
from ostinato.models import LanguageModel


class _Beam(NamedTuple):
    """A kept text: its tokens with their log-probabilities, and its score.

    A running beam's score is its total log-probability, a finished one's is length-normalized.
    """

    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    score: float = 0.0

    def extended(self, token: int, total: float, score: float | None = None) -> _Beam:
        """Return the running beam and a token, with a log-probability of `total` together."""
        logprobs = (*self.logprobs, total - self.score)
        return _Beam((*self.tokens, token), logprobs, total if score is None else score)


class _State(NamedTuple):
    """The running and the finished beams of a position, the best first."""

    running: tuple[_Beam, ...]
    finished: tuple[_Beam, ...]


@dataclass(slots=True)
class _BeamSlot:
    """A lane and its group of slots. Beam b is in slot `order[b]`; `cached` is what slots hold."""

    lane: Lane
    prompt: Sequence[int]
    room: int
    order: list[int]
    cached: dict[int, list[int]]
    states: list[_State] = field(default_factory=list)
    prompt_tokens: int = 0  # still to be reported


class Beam:
    """Search for the most likely texts with `num_beams` beams, many lanes side by side.

    `limit` is the maximum number of tokens of a text. The output is the best finished text, else
    the best running one. Edits: `forbid` (tokens) holds at its position, for every beam. Reports:

    - for each kept beam `parents` (the beam it extends), `put` (its token) and `totals` (its
      log-probability); `finished`: the same three of those that ended;
    - `text` (the best so far) and its `score`;
    - `tokens` (beams extended), `computed`, at the first step `prompt`;
    - `ended` once nothing better can follow; `out_of_room` if a limit cuts the most likely text.
    """

    costs = ("tokens", "computed", "prompt")
    unit = "tokens"

    def __init__(
        self,
        model: LanguageModel,
        prompt: Prompter,
        *,
        num_beams: int = 4,
        length_penalty: float = 1.0,
        limit: int = 200,
        slots: int = 4,
        block: int = 16,
    ) -> None:
        require(num_beams >= 2, "num_beams", "2 or more", num_beams, "Use Decode for a single one.")
        require_at_least(1, limit=limit)
        self.slots, self.num_beams, self.limit = slots, num_beams, limit
        self.length_penalty = float(length_penalty)
        self.tokenizer = model.tokenizer
        self._block, self._prompt = block, prompt
        self._eos_ids = self.tokenizer.eos_ids
        self._free = [list(range(n * num_beams, (n + 1) * num_beams)) for n in range(slots)]
        self._slots: dict[str, _BeamSlot] = {}
        self._open(model)

    def _open(self, model: LanguageModel) -> None:
        self._model = model
        slots = self.slots * self.num_beams
        self._inference = open_backend(model, slots, block=self._block)
        self.deterministic = self._inference.self_test().batch_invariant
        self.compute_mode = self._inference.compute_mode

    def use_compute_mode(self, mode: str) -> None:
        """Compute in this mode, if the model leaves it open. Call it before any lane starts."""
        if mode != self.compute_mode:
            model = in_compute_mode(self._model, mode)
            if model is not self._model:
                self._open(model)

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a group of slots; its prompt is computed once and copied."""
        self._check_edits(lane)
        prompt = self._prompt(item, {}).tokens
        room = min(self.limit, self._inference.limit - len(prompt))
        if not prompt or room < 1:
            raise ItemError(
                f"The prompt must have 1 to {counted(self._inference.limit - 1, 'tokens')}, got "
                f"{len(prompt)}. "
                "Shorten the item."
            )
        group = self._free.pop()
        self._inference.prefill(group[0], prompt[:-1])
        for index in group[1:]:
            self._inference.copy(group[0], index, len(prompt) - 1)
        slot = _BeamSlot(lane, prompt, room, group, {index: [] for index in group})
        slot.states.append(_State((_Beam(),), ()))
        slot.prompt_tokens = 0 if lane.past or lane.again else len(prompt)
        for report in lane.past:
            slot.states.append(self._after(slot.states[-1], report))
        self._slots[lane.key] = slot

    def rewind(self, lane: Lane, to: int) -> None:
        """Return to the beams of a position; the next step feeds what the cache lacks."""
        self._check_edits(lane)
        slot = self._slots[lane.key]
        slot.lane = lane
        del slot.states[to + 1 :]

    def drop(self, key: str) -> None:
        """Free the lane's slots."""
        self._free.append(sorted(self._slots.pop(key).cached))

    def output(self, key: str) -> Text:
        """Return the best text."""
        best = self._best(self._slots[key].states[-1])
        detokenizer = self._detokenized(best)
        ended = bool(best.tokens) and best.tokens[-1] in self._eos_ids
        return Text(detokenizer.text, best.tokens, detokenizer.starts, best.logprobs, ended)

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Extend every beam of every lane that has not ended by a token."""
        slots = [slot for slot in self._slots.values() if self._end_reason(slot) is None]
        if not slots:
            return {}
        logits = self._inference.logits(self._feed(slots))
        reports, first = {}, 0
        for slot in slots:
            count = len(slot.states[-1].running)
            reports[slot.lane.key] = self._advance(slot, logits[first : first + count])
            first += count
        return reports

    def _feed(self, slots: Sequence[_BeamSlot]) -> Tensor:
        """Compute what the slots lack; return the hidden states (N, C) at the ends of all beams."""
        rows: list[TokenRow] = []
        last_rows = []
        for slot in slots:
            for beam, index in zip(slot.states[-1].running, slot.order, strict=False):
                # The prompt's last token is fed as a row: `feed` returns the state after it.
                tokens = [slot.prompt[-1], *beam.tokens]
                held = min(common_prefix(slot.cached[index], tokens), len(tokens) - 1)
                start = len(slot.prompt) - 1
                rows += [TokenRow(index, tokens[n], start + n) for n in range(held, len(tokens))]
                last_rows.append(len(rows) - 1)
                slot.cached[index] = tokens
        return self._inference.feed(rows)[last_rows]

    def _advance(self, slot: _BeamSlot, logits: Tensor) -> Report:
        """Extend a lane's beams by their logits (beams, V); return the step's report."""
        state, length = slot.states[-1], len(slot.states)
        found = self._best_continuations(slot, logits)
        report = self._choose(slot, found, length)
        after = self._after(state, report)
        self._assign_slots(slot, Fields(report).items("parents"))
        slot.states.append(after)
        top = self._best(after)
        report |= {"text": self._detokenized(top).text, "score": top.score}
        report |= {"tokens": len(state.running), "computed": len(state.running)}
        if length == 1:
            report["computed"] = 0  # the prompt's last token counts as prompt
        if slot.prompt_tokens:
            report["prompt"], slot.prompt_tokens = slot.prompt_tokens, 0
        if not found:
            report["ended"] = "Every token is forbidden here."
        elif (reason := self._end_reason(slot)) is not None:
            report |= reason
        return report

    def _best_continuations(self, slot: _BeamSlot, logits: Tensor) -> list[tuple[int, int, float]]:
        """Return the best continuations (beam, token, total) of all beams, the best first."""
        beams = slot.states[-1].running
        scores = torch.tensor([beam.score for beam in beams])
        logprobs = torch.log_softmax(logits, -1)
        logprobs[:, forbidden_at(slot.lane, len(slot.states) - 1)] = -torch.inf
        totals = (logprobs + scores[:, None]).flatten()  # (beams * V,)
        # As in `transformers`: enough that `num_beams` continue even if each end token of each beam
        # is among the best.
        keep = min(max(2, 1 + len(self._eos_ids)) * self.num_beams, totals.numel())
        best, index = torch.topk(totals, keep)
        return [
            (int(i) // logits.size(1), int(i) % logits.size(1), float(total))
            for total, i in zip(best, index, strict=True)
            if total > -torch.inf
        ]

    def _choose(
        self, slot: _BeamSlot, found: Sequence[tuple[int, int, float]], length: int
    ) -> dict[str, object]:
        """Return which continuations (beam, token, total) continue, and which are finished.

        Only the best `num_beams` of all can finish; the others are there so that enough continue.
        """
        full = length >= slot.room
        finished = [c for c in found[: self.num_beams] if full or c[1] in self._eos_ids]
        running = [c for c in found if not full and c[1] not in self._eos_ids][: self.num_beams]
        return {
            "parents": [parent for parent, _, _ in running],
            "put": [token for _, token, _ in running],
            "totals": [total for _, _, total in running],
            "finished": [list(each) for each in finished],
        }

    def _after(self, state: _State, report: Mapping[str, object]) -> _State:
        """Return the beams after a step, from its report: a resume needs nothing else."""
        step = Fields(report)
        columns = (step.items(name) for name in ("parents", "put", "totals"))
        running = tuple(
            state.running[parent].extended(token, total)
            for parent, token, total in zip(*columns, strict=True)
        )
        finished = list(state.finished)
        for parent, token, total in step.items("finished"):
            beam = state.running[parent]
            score = total / (len(beam.tokens) + 1) ** self.length_penalty
            finished.append(beam.extended(token, total, score))
        if not running and not finished:
            return _State((), state.running)  # no token may follow: the texts stay as they are
        finished.sort(key=lambda beam: -beam.score)
        return _State(running, tuple(finished[: self.num_beams]))

    def _assign_slots(self, slot: _BeamSlot, parents: Sequence[int]) -> None:
        """Give each new beam a slot that holds its parent.

        The first child takes its parent's slot over; only the others need a copy.
        """
        before, first_child = list(slot.order), dict[int, int]()
        for child, parent in enumerate(parents):
            first_child.setdefault(parent, child)
        kept = {before[parent] for parent in first_child}
        spare = [index for index in slot.cached if index not in kept]
        order = []
        for child, parent in enumerate(parents):
            index = before[parent]
            if first_child[parent] != child:
                source, index = index, spare.pop()
                self._inference.copy(source, index, len(slot.prompt) + len(slot.states) - 1)
                slot.cached[index] = list(slot.cached[source])
            order.append(index)
        slot.order = [*order, *spare]

    # The texts --------------------------------------------------------------------------------

    def _end_reason(self, slot: _BeamSlot) -> dict[str, str] | None:
        """Return the report value that says why nothing better can follow; None while it can."""
        state, length = slot.states[-1], len(slot.states) - 1
        if not state.running:
            best = self._best(state).tokens
            if best and best[-1] in self._eos_ids:
                return {"ended": f"All {len(state.finished)} texts are finished."}
            if slot.room < self.limit:
                limit = self._inference.limit
                return {"out_of_room": f"The model's context of {limit} tokens is full."}
            told = counted(len(best), "tokens")
            return {"out_of_room": f"The most likely text has {told}, the limit."}
        if len(state.finished) < self.num_beams:
            return None
        # As `transformers` does, the best running text is judged as if it ended here.
        possible = state.running[0].score / length**self.length_penalty
        if possible > state.finished[-1].score:
            return None
        return {
            "ended": f"No running text ({possible:.3f}) beats the {self.num_beams} finished ones."
        }

    def _check_edits(self, lane: Lane) -> None:
        known = frozenset({"forbid"})
        check_edits(lane, "Beam", known, SamplingParams(), self._inference.vocab_size)

    def _best(self, state: _State) -> _Beam:
        return (*state.finished, *state.running)[0]

    def _detokenized(self, beam: _Beam) -> Detokenizer:
        detokenizer = Detokenizer()
        for token in beam.tokens:
            ends = token in self._eos_ids
            detokenizer.add(b"" if ends else self.tokenizer.token_bytes(token))
        return detokenizer
