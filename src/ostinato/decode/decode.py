"""Decode: a batch of sequences, one token a step (autoregressive sampling).

A lane process. It knows prompts, tokens and caches; not when to stop, nor what a good text is.
A sampled token is run through the network only in the step after it, so that a token that is
taken back at once has cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import cast

import torch
from torch import Tensor

from ostinato.decode.constraint import Constraint
from ostinato.decode.edits import OF_SHIFTS, check_edit, shifts
from ostinato.decode.guided import Guided
from ostinato.decode.places import Places
from ostinato.decode.prompt import Prompt, Prompter
from ostinato.decode.sampling import (
    Row,
    Sampling,
    adjust,
    draw,
    forbid,
    likeliest,
    spread,
)
from ostinato.decode.speculative import Ahead, Asked, Guesser
from ostinato.decode.spell import Spelling
from ostinato.errors import EditError, InputError, ItemError
from ostinato.loop import Lane, Report, Text, uniform
from ostinato.models import LanguageModel, open_backend, way_of

SETTINGS = frozenset(spec.name for spec in fields(Sampling))
REDRAWS = 8  # of a token that would leave no room to end, before the known way out is taken
KNOWN = SETTINGS | {"forbid", "force", "bias"}


@dataclass(slots=True)
class _Seat:
    """A lane at its place."""

    place: int
    lane: Lane
    prompt: Prompt
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    watched: list[dict[int, float]] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)  # hidden[p] predicts tokens[p]
    spelling: Spelling = field(default_factory=Spelling)
    guided: Guided | None = None
    ended: bool = False
    prompt_tokens: int = 0  # to be told
    computed: int = 0
    told: bool = False  # the row to compute next was counted before


class Decode:
    """Write texts token by token, many side by side.

    `prompt` makes an item's prompt; its edits are passed on where `prompt_edits` names them.
    `alternatives` adds to each report that many of the likeliest tokens with their probabilities
    (`alternatives`) and the entropy in nats (`entropy`). Edits: the settings of `Sampling` and
    `bias` (token to number) hold from their position on; `forbid` (tokens) holds at its position;
    `force` (tokens) are taken as they are, from their position on (none: no longer).

    `constraint` is what every text must be as a whole, where its prompt names no other: tokens that
    cannot lead there are not drawn, and neither forced. `limit` is the most tokens that a draft may
    have, its end token included: what ends drafts there (`Steps`) is to be given the same. A
    constraint keeps room to end within it, `Sampling.end_bias` counts towards it.

    `guesser` names tokens that may come, which are computed ahead (`ostinato.decode.speculative`):
    the reports are the same with and without.

    Reports: `token`, `text` (the characters it completes), `logprob` (natural logarithm, of the
    model's own distribution), `tokens` (1), `computed` (rows through the network for it), at a
    draft's first step `prompt` (its tokens; how many were computed depends on what the cache held),
    and `ended` at an end token.
    """

    repeats: bool

    def __init__(
        self,
        model: LanguageModel,
        prompt: Prompter,
        *,
        sampling: Sampling | None = None,
        places: int = 16,
        block: int = 16,
        alternatives: int = 0,
        prompt_edits: frozenset[str] = frozenset(),
        constraint: Constraint | None = None,
        limit: int | None = None,
        guesser: Guesser | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise InputError(f"The limit of a draft must be 1 token or more, got {limit}.")
        self.capacity = places
        self.constraint = constraint
        self.limit = limit
        self.sampling = sampling or Sampling()
        self.tokenizer = model.tokenizer
        self._inference = open_backend(model, places, block=block)
        self.repeats = self._inference.self_test().repeats
        self.way = way_of(model, self._inference)
        if guesser is not None:
            guesser.prepare(self.tokenizer, places)
        self._ahead = Ahead(self._inference, guesser, block)
        self._prompt = prompt
        self._prompt_edits = prompt_edits
        self._alternatives = alternatives
        self._limit = model.config.max_position_embeddings
        self._places = Places(self._inference, places)
        self._seats: dict[str, _Seat] = {}

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Give the lane a place; its prompt is computed, or taken from a place that holds it."""
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
            guided = Guided(constraint, self.tokenizer, self._room(prompt))
        place = self._places.take(prompt.tokens[:-1])
        seat = _Seat(place, lane, prompt, prompt_tokens=len(prompt.tokens), guided=guided)
        for report in lane.past:
            self._append(seat, cast(int, report["token"]), cast(float, report["logprob"]))
            if prompt.watch:
                values = cast(list[float], report["watched"])
                seat.watched.append(dict(zip(prompt.watch, values, strict=True)))
        if lane.past or lane.again:  # what these rows cost was told when they were computed
            seat.prompt_tokens = 0
            seat.told = lane.again
        self._seats[lane.key] = seat

    def fork(self, source: str, lane: Lane) -> None:
        """Give a place to a lane that stands where another one does; nothing is computed again."""
        self._for_prompt(lane)
        parent = self._seats[source]
        length = len(parent.prompt.tokens) - 1 + len(parent.hidden)
        seat = _Seat(self._places.fork(parent.place, length), lane, parent.prompt)
        seat.tokens, seat.logprobs = list(parent.tokens), list(parent.logprobs)
        seat.watched, seat.hidden = list(parent.watched), list(parent.hidden)
        seat.spelling, seat.ended = parent.spelling.copy(), parent.ended
        seat.guided = None if parent.guided is None else parent.guided.copy()
        self._seats[lane.key] = seat

    def rewind(self, lane: Lane, to: int) -> None:
        """Crop the lane's draft to `to` tokens; the cache beyond is written over later."""
        self._for_prompt(lane)
        seat = self._seats[lane.key]
        self._ahead.forget(lane.key)
        seat.lane = lane
        seat.spelling.crop(to)
        if seat.guided is not None:
            seat.guided.crop(to)
        del seat.tokens[to:], seat.logprobs[to:], seat.watched[to:], seat.hidden[to + 1 :]
        seat.ended = False

    def drop(self, key: str) -> None:
        """Free the lane's place; the prompt stays in the cache for who can use it."""
        self._ahead.drop(key)
        self._places.free(self._seats.pop(key).place)

    def output(self, key: str) -> Text:
        """Return the draft as it stands."""
        seat = self._seats[key]
        return Text(
            seat.spelling.text,
            tuple(seat.tokens),
            seat.spelling.starts,
            tuple(seat.logprobs),
            seat.ended,
            tuple(seat.watched),
        )

    # A step -----------------------------------------------------------------------------------

    def step(self) -> Mapping[str, Report]:
        """Draw the next token of every lane that has not ended."""
        seats = [seat for seat in self._seats.values() if not seat.ended]
        if not seats:
            return {}
        self._catch_up(seats)
        hidden = [seat.hidden[len(seat.tokens)] for seat in seats]
        logits = self._ahead.logits([seat.lane.key for seat in seats], hidden)  # (N, V)
        rows = [self._row(seat) for seat in seats]
        adjusted = adjust(logits, rows)
        drawn = draw(adjusted, rows)
        for n, seat in enumerate(seats):
            if seat.guided is not None and not seat.guided.leaves_room(drawn[n], len(seat.tokens)):
                drawn[n] = self._draw_with_room(seat, seat.guided, adjusted[n], rows[n], drawn[n])
        logprobs = torch.log_softmax(logits, dim=-1)
        return {
            seat.lane.key: self._report(seat, token, logprobs[n])
            for n, (seat, token) in enumerate(zip(seats, drawn, strict=True))
        }

    def _catch_up(self, seats: Sequence[_Seat]) -> None:
        """Run the tokens through the network that were drawn but not computed, one a lane at once.

        More than one a lane is only missing where a lane was brought back after a pause.
        """
        while behind := [seat for seat in seats if len(seat.hidden) <= len(seat.tokens)]:
            rows, asked = [], []
            for seat in behind:
                done, start = len(seat.hidden), len(seat.prompt.tokens) - 1
                token = seat.tokens[done - 1] if done else seat.prompt.tokens[-1]
                rows.append((seat.place, token, start + done))
                asked.append(self._asked(seat, done))
                if done == len(seat.tokens):
                    seat.computed, seat.told = int(done > 0 and not seat.told), False
            for seat, row in zip(behind, self._ahead.feed(rows, asked), strict=True):
                seat.hidden.append(row)

    def _asked(self, seat: _Seat, done: int) -> Asked:
        """Return what a guesser is asked: what comes after the first `done` tokens."""
        tokens = [*seat.prompt.tokens, *seat.tokens[:done]]
        known = seat.tokens[done:]
        return Asked(seat.lane.key, tokens, lambda guessed: self._row(seat, guessed), known)

    def _row(self, seat: _Seat, guessed: Sequence[int] = ()) -> Row:
        """Return what the next token is drawn with, once some guessed ones stand there too."""
        position, lane = len(seat.tokens) + len(guessed), seat.lane
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
        sampling = seat.prompt.sampling or self.sampling
        if settings:
            sampling = replace(sampling, **settings)  # type: ignore[arg-type]
        seed, key = seat.prompt.draws or (lane.seed, lane.key)
        draws = uniform(seed, key, lane.round, lane.tries, position)
        seen: Sequence[int] = ()
        if sampling.repetition_penalty != 1.0:
            seen = [*seat.prompt.tokens, *seat.tokens, *guessed]
        shift = sampling.end_shift(self._room(seat.prompt) - position)
        if shift:
            bias |= {end: bias.get(end, 0.0) + shift for end in self.tokenizer.eos_ids}
        allowed = None
        if seat.guided and not guessed:
            allowed = seat.guided.allowed(self._inference.vocab_size)
        return Row(sampling, draws, forbidden, bias, seen, allowed)

    def _room(self, prompt: Prompt) -> int:
        """Return how many tokens a draft may have: by the limit, and by the model's context."""
        limits = [limit for limit in (self.limit, prompt.limit) if limit is not None]
        return min((self._limit - len(prompt.tokens), *limits))

    def _draw_with_room(
        self, seat: _Seat, guided: Guided, logits: Tensor, row: Row, drawn: int
    ) -> int:
        """Draw again, with other random numbers, until the text can still be ended in its limit.

        So the token is drawn as if those that leave no room had been forbidden. After some draws
        the way out that is known is taken.
        """
        lane, position, logits = seat.lane, len(seat.tokens), logits.clone()
        seed, own = seat.prompt.draws or (lane.seed, lane.key)
        refused: list[int] = []
        for again in range(REDRAWS):
            refused.append(drawn)
            forbid(logits, row, refused)
            key = f"{own}\x1froom {again}"
            number = uniform(seed, key, lane.round, lane.tries, position)
            drawn = draw(logits[None], [replace(row, uniform=number)])[0]
            if drawn not in refused and guided.leaves_room(drawn, position):
                return drawn
        way = guided.way
        return way[0] if way else min(self.tokenizer.eos_ids, default=drawn)

    def _report(self, seat: _Seat, drawn: int, logprobs: Tensor) -> Report:
        token = self._forced(seat)
        if token is None or (seat.guided and not seat.guided.allows(token, len(seat.tokens))):
            token = drawn
        logprob = float(logprobs[token])
        text = self._append(seat, token, logprob)
        report: dict[str, object] = {"token": token, "text": text, "logprob": logprob, "tokens": 1}
        report["computed"], seat.computed = seat.computed, 0
        if seat.prompt_tokens:
            report["prompt"], seat.prompt_tokens = seat.prompt_tokens, 0
        if seat.prompt.watch:
            report["watched"] = values = logprobs[list(seat.prompt.watch)].tolist()
            seat.watched.append(dict(zip(seat.prompt.watch, values, strict=True)))
        if seat.prompt.likeliest:
            report["likeliest"] = likeliest(logprobs, seat.prompt.likeliest)
        if self._alternatives:
            report |= self._look(logprobs)
        if token in self.tokenizer.eos_ids:
            report["ended"] = "It wrote the end of text."
        elif len(seat.prompt.tokens) + len(seat.tokens) >= self._limit:
            seat.ended = True
            report["ended"] = f"The model's context of {self._limit} tokens is full."
        elif seat.guided is not None and not self.tokenizer.eos_ids and seat.guided.is_whole:
            seat.ended = True
            report["ended"] = "Its constraint leaves nothing to add."
        return report

    def _forced(self, seat: _Seat) -> int | None:
        position = len(seat.tokens)
        if position in seat.prompt.forced:
            return seat.prompt.forced[position]
        forbidden: set[int] = set()
        newer: set[int] = set()  # a later `force` at a position takes the place of an earlier one
        for at, edits in reversed(seat.lane.edits):
            tokens = () if at in newer else cast(Sequence[int], edits.get("force", ()))
            begun = list(tokens[: position - at])  # a value that was broken off is not gone on with
            if at <= position < at + len(tokens) and seat.tokens[at:position] == begun:
                token = tokens[position - at]
                return None if token in forbidden else token
            if "force" in edits:
                newer.add(at)
            if at == position:
                forbidden |= set(cast(Sequence[int], edits.get("forbid", ())))
        return None

    def _append(self, seat: _Seat, token: int, logprob: float) -> str:
        seat.tokens.append(token)
        seat.logprobs.append(logprob)
        seat.ended = token in self.tokenizer.eos_ids
        if seat.guided is not None:
            seat.guided.advance(token)
        return seat.spelling.add(b"" if seat.ended else self.tokenizer.token_bytes(token))

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
