"""Beam search: the likeliest text found by keeping several, one token a step for all of them.

A lane process; a lane is one text, and its beams are a group of slots of the cache. What is kept,
what counts as finished and when nothing better can come are those of `transformers`' beam search
(`early_stopping=False`); a finished text's score is its log probability by its length to the power
of `length_penalty` (Wu et al. 2016, section 7, in its simpler form).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ostinato.decode.decode import Prompter
from ostinato.decode.detokenizer import Detokenizer
from ostinato.decode.edits import check_edit
from ostinato.decode.sampling import SamplingParams
from ostinato.decode.slots import common
from ostinato.errors import EditError, InputError, ItemError
from ostinato.inference import open_backend
from ostinato.loop import Lane, Report, Text
from ostinato.models import LanguageModel


class _Beam(NamedTuple):
    """A text that is kept: its tokens with their log probabilities, and its score."""

    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    score: float = 0.0

    def longer(self, token: int, total: float, score: float | None = None) -> _Beam:
        """Return it with a token more, by which its log probability is `total`."""
        logprobs = (*self.logprobs, total - self.score)
        return _Beam((*self.tokens, token), logprobs, total if score is None else score)


class _State(NamedTuple):
    """The beams that go on and those that are finished, the best first."""

    running: tuple[_Beam, ...]
    finished: tuple[_Beam, ...]


@dataclass(slots=True)
class _BeamSlot:
    """A lane and its slots; beam b stands in `order[b]`, which holds `held` of it."""

    lane: Lane
    prompt: Sequence[int]
    room: int
    order: list[int]
    held: dict[int, list[int]]
    states: list[_State] = field(default_factory=list)
    told: int = 0  # the prompt's tokens, to be told


class Beam:
    """Search the likeliest texts, `beams` of them kept, many lanes side by side.

    `limit` is the most tokens of a text. Edits: `forbid` (tokens) holds at its position, for every
    beam. Reports: `parents`, `put` and `totals` (which beam each kept one goes on from, its token,
    its log probability), `finished` (the same of those that ended, with their scores), `text` (the
    best as it stands), `score`, `tokens` (beams that went on), `computed`, at the first step
    `prompt`, and `ended` once nothing better can come, or `out_of_room` where the likeliest text is
    cut by the limit. The output is the best finished text, else the best.
    """

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
        if num_beams < 2:
            raise InputError(
                f"beams must be 2 or more, got {num_beams}. Decode follows a single one."
            )
        if limit < 1:
            raise InputError(f"The limit of a text must be 1 token or more, got {limit}.")
        self.slots, self.beams, self.limit = slots, num_beams, limit
        self.length_penalty = float(length_penalty)
        self.tokenizer = model.tokenizer
        self._inference = open_backend(model, slots * num_beams, block=block)
        self.deterministic = self._inference.self_test().batch_invariant
        self.compute_mode = self._inference.compute_mode
        self._prompt = prompt
        self._ends = sorted(self.tokenizer.eos_ids)
        self._free = [list(range(n * num_beams, (n + 1) * num_beams)) for n in range(slots)]
        self._slots: dict[str, _BeamSlot] = {}

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a group of slots; its prompt is computed once."""
        self._check_edits(lane)
        prompt = self._prompt(item, {}).tokens
        room = min(self.limit, self._inference.limit - len(prompt))
        if not prompt or room < 1:
            raise ItemError(
                f"The prompt must have 1 to {self._inference.limit - 1} tokens, got {len(prompt)}."
            )
        group = self._free.pop()
        self._inference.prefill(group[0], prompt[:-1])
        for index in group[1:]:
            self._inference.copy(group[0], index, len(prompt) - 1)
        slot = _BeamSlot(lane, prompt, room, group, {index: [] for index in group})
        slot.states.append(_State((_Beam(),), ()))
        slot.told = 0 if lane.past or lane.again else len(prompt)
        for report in lane.past:
            slot.states.append(self._after(slot.states[-1], report))
        self._slots[lane.key] = slot

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring the lane back to the beams of a position; what the cache lacks is fed again."""
        self._check_edits(lane)
        slot = self._slots[lane.key]
        slot.lane = lane
        del slot.states[to + 1 :]

    def drop(self, key: str) -> None:
        """Free the lane's slots."""
        self._free.append(sorted(self._slots.pop(key).held))

    def output(self, key: str) -> Text:
        """Return the best text."""
        best = self._best(self._slots[key].states[-1])
        spelling = self._spelled(best)
        ended = bool(best.tokens) and best.tokens[-1] in self.tokenizer.eos_ids
        return Text(spelling.text, best.tokens, spelling.starts, best.logprobs, ended)

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Let every beam of every lane that has not ended go on by a token."""
        slots = [slot for slot in self._slots.values() if self._why_ended(slot) is None]
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
        """Compute what the slots do not hold; return the hidden states of all beams' ends."""
        rows: list[tuple[int, int, int]] = []
        ends = []
        for slot in slots:
            for beam, index in zip(slot.states[-1].running, slot.order, strict=False):
                wanted = [slot.prompt[-1], *beam.tokens]
                have = min(common(slot.held[index], wanted), len(wanted) - 1)
                at = len(slot.prompt) - 1
                rows += [(index, wanted[n], at + n) for n in range(have, len(wanted))]
                ends.append(len(rows) - 1)
                slot.held[index] = wanted
        return self._inference.feed(rows)[ends]

    def _advance(self, slot: _BeamSlot, logits: Tensor) -> Report:
        state, length = slot.states[-1], len(slot.states)
        scores = torch.tensor([beam.score for beam in state.running])
        logprobs = torch.log_softmax(logits, -1)
        for at, edits in slot.lane.edits:
            if at == length - 1:
                logprobs[:, list(cast(Sequence[int], edits.get("forbid", ())))] = -torch.inf
        totals = (logprobs + scores[:, None]).flatten()  # (beams * V,)
        keep = min(max(2, 1 + len(self._ends)) * self.beams, totals.numel())
        best, index = torch.topk(totals, keep)
        found = [
            (int(i) // logits.size(1), int(i) % logits.size(1), float(total))
            for total, i in zip(best, index, strict=True)
            if total > -torch.inf
        ]
        report = self._choose(slot, found, length)
        after = self._after(state, report)
        self._settle(slot, cast(Sequence[int], report["parents"]))
        slot.states.append(after)
        top = self._best(after)
        report |= {"text": self._spelled(top).text, "score": top.score}
        report |= {"tokens": len(state.running), "computed": len(state.running)}
        if length == 1:
            report["computed"] = 0  # the prompt's last token
        if slot.told:
            report["prompt"], slot.told = slot.told, 0
        if not found:
            report["ended"] = "Every token is forbidden here."
        elif (why := self._why_ended(slot)) is not None:
            report |= why
        return report

    def _choose(
        self, slot: _BeamSlot, found: Sequence[tuple[int, int, float]], length: int
    ) -> dict[str, object]:
        """Return which continuations (beam, token, total) go on, and which are finished.

        Only the best `beams` of all can finish; the others are there so that enough go on.
        """
        full = length >= slot.room
        ended = [one for one in found[: self.beams] if full or one[1] in self._ends]
        going = [one for one in found if not full and one[1] not in self._ends][: self.beams]
        return {
            "parents": [parent for parent, _, _ in going],
            "put": [token for _, token, _ in going],
            "totals": [total for _, _, total in going],
            "finished": [list(one) for one in ended],
        }

    def _after(self, state: _State, report: Mapping[str, object]) -> _State:
        """Return the beams after a step, out of its report."""
        names = ("parents", "put", "totals")
        columns = (cast(Sequence[float], report[name]) for name in names)
        running = tuple(
            state.running[int(parent)].longer(int(token), total)
            for parent, token, total in zip(*columns, strict=True)
        )
        finished = list(state.finished)
        for parent, token, total in cast(Sequence[tuple[int, int, float]], report["finished"]):
            beam = state.running[parent]
            score = total / (len(beam.tokens) + 1) ** self.length_penalty
            finished.append(beam.longer(token, total, score))
        if not running and not finished:
            return _State((), state.running)  # nothing may follow: what stands is kept
        finished.sort(key=lambda beam: -beam.score)
        return _State(running, tuple(finished[: self.beams]))

    def _settle(self, slot: _BeamSlot, parents: Sequence[int]) -> None:
        """Give each new beam a slot that holds its parent: the first child takes it over."""
        before, first = list(slot.order), dict[int, int]()
        for child, parent in enumerate(parents):
            first.setdefault(parent, child)
        kept = {before[parent] for parent in first}
        spare = [index for index in slot.held if index not in kept]
        order = []
        for child, parent in enumerate(parents):
            index = before[parent]
            if first[parent] != child:
                source, index = index, spare.pop()
                self._inference.copy(source, index, len(slot.prompt) + len(slot.states) - 1)
                slot.held[index] = list(slot.held[source])
            order.append(index)
        slot.order = [*order, *spare]

    # What stands ------------------------------------------------------------------------------

    def _why_ended(self, slot: _BeamSlot) -> dict[str, str] | None:
        """Tell why nothing better can come, if that is so."""
        state, length = slot.states[-1], len(slot.states) - 1
        if not state.running:
            best = self._best(state).tokens
            if best and best[-1] in self._ends:
                return {"ended": f"All {len(state.finished)} texts are finished."}
            if slot.room < self.limit:
                limit = self._inference.limit
                return {"ended": f"The model's context of {limit} tokens is full."}
            return {"out_of_room": f"The likeliest text has {len(best)} tokens, the limit."}
        if len(state.finished) < self.beams:
            return None
        possible = state.running[0].score / length**self.length_penalty
        worst = state.finished[-1].score
        if possible > worst:
            return None
        told = f"Nothing that goes on ({possible:.3f}) beats the {self.beams} finished texts."
        return {"ended": told}

    def _check_edits(self, lane: Lane) -> None:
        for _, edits in lane.edits:
            for name, value in edits.items():
                if name != "forbid":
                    raise EditError(f"Unknown edit {name!r} of a lane of Beam. Known: forbid.")
                check_edit(name, value, SamplingParams(), self._inference.vocab_size)

    def _best(self, state: _State) -> _Beam:
        return (*state.finished, *state.running)[0]

    def _spelled(self, beam: _Beam) -> Detokenizer:
        spelling = Detokenizer()
        for token in beam.tokens:
            ends = token in self.tokenizer.eos_ids
            spelling.add(b"" if ends else self.tokenizer.token_bytes(token))
        return spelling
