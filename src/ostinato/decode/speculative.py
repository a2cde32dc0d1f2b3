"""Tokens computed ahead of their turn (speculative decoding, Leviathan et al. 2023), same bits.

A proposer names the tokens that may come; they go through the network in rows of the block that
would else be padding. A token is drawn in its turn as always, with the random number of its slot:
where it is the guessed one, what follows it is there already. So a guess changes how long a text
takes, and nothing else. Right guesses are handed out one a step; going back drops the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ostinato.decode.sampling import SamplingRow, adjust, draw
from ostinato.decode.slots import common
from ostinato.errors import InputError
from ostinato.inference import Backend, open_backend
from ostinato.models import LanguageModel, Tokenizer

MANY = 16  # tokens: more are read as a prompt


class DraftRequest(NamedTuple):
    """A lane whose tokens to come are to be guessed.

    `tokens` are all that stand, its prompt's first. `row` returns what the next token is drawn with
    once some guessed ones stood there too. `known` are the tokens that follow for sure, where the
    lane was brought back.
    """

    key: str
    tokens: Sequence[int]
    row: Callable[[Sequence[int]], SamplingRow]
    known: Sequence[int] = ()


@dataclass
class DraftTokens:
    """How many tokens were computed ahead, and how many of them came so."""

    tried: int = 0
    right: int = 0


class DraftProposer(ABC):
    """Names the tokens that may come next in some lanes; wrong ones cost time only."""

    def __init__(self, count: int) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"The tokens to guess must be 1 or more, got {count!r}. Take 4.")
        self.count = count
        self.guesses = DraftTokens()

    def prepare(self, tokenizer: Tokenizer, slots: int) -> None:  # noqa: B027
        """Make ready for lanes of a model. Raises `InputError` where it cannot guess for it."""

    @abstractmethod
    def propose(self, asked: Sequence[DraftRequest], count: int) -> list[list[int]]:
        """Return at most `count` tokens for each of the lanes."""

    def drop(self, key: str) -> None:  # noqa: B027
        """Forget a lane."""


class PromptLookup(DraftProposer):
    """What followed the last time that the latest tokens stood in prompt or text (Saxena 2023).

    `longest` to `shortest` tokens are looked up, the longest first.
    """

    def __init__(self, count: int = 4, *, longest: int = 3, shortest: int = 2) -> None:
        super().__init__(count)
        if not 1 <= shortest <= longest:
            raise InputError(
                f"longest must be at least shortest, and that at least 1, got {longest} and "
                f"{shortest}."
            )
        self._sizes = range(longest, shortest - 1, -1)

    def propose(self, asked: Sequence[DraftRequest], count: int) -> list[list[int]]:
        """Look the latest tokens of each lane up in what stands before them."""
        return [self._found(list(one.tokens), min(count, self.count)) for one in asked]

    def _found(self, tokens: list[int], count: int) -> list[int]:
        for size in self._sizes:
            latest = tokens[-size:]
            for start in range(len(tokens) - size - 1, -1, -1):
                if tokens[start : start + size] == latest:
                    return tokens[start + size : start + size + count]
        return []


class DraftModel(DraftProposer):
    """What a small model of the same vocabulary would draw, with the same random numbers."""

    def __init__(self, model: LanguageModel, count: int = 4) -> None:
        super().__init__(count)
        self._model = model
        self._held: dict[str, list[int]] = {}  # the tokens that each lane's slot holds
        self._places: dict[str, int] = {}
        self._free: list[int] = []

    def prepare(self, tokenizer: Tokenizer, slots: int) -> None:
        """Make room for the lanes; refuse a model of another vocabulary."""
        mine = self._model.tokenizer
        if mine.backend.get_vocab() != tokenizer.backend.get_vocab():
            raise InputError(
                f"The draft model must have the model's vocabulary ({tokenizer.vocab_size} "
                f"tokens), got another ({mine.vocab_size} tokens: {self._model.name}). "
                "Train both on the same text with the same --vocab-size."
            )
        self._inference = open_backend(self._model, slots)
        self._free = list(range(slots))
        self._held, self._places = {}, {}

    def propose(self, asked: Sequence[DraftRequest], count: int) -> list[list[int]]:
        """Let the small model go on with each text for some tokens."""
        room = self._inference.limit
        count = min(count, self.count)
        able = [n for n, one in enumerate(asked) if len(one.tokens) + count <= room]
        guesses: list[list[int]] = [[] for _ in asked]
        for n in able:
            self._read(asked[n])
        for _ in range(count if able else 0):
            rows = []
            for n in able:
                tokens = [*asked[n].tokens, *guesses[n]]
                rows.append((self._places[asked[n].key], tokens[-1], len(tokens) - 1))
                self._held[asked[n].key] = tokens
            logits = self._inference.logits(self._inference.feed(rows))
            drawn_with = [asked[n].row(guesses[n]) for n in able]
            for n, token in zip(able, draw(adjust(logits, drawn_with), drawn_with), strict=True):
                guesses[n].append(token)
        return guesses

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        if key in self._places:
            self._free.append(self._places.pop(key))
            self._held.pop(key, None)

    def _read(self, one: DraftRequest) -> None:
        """Compute what the slot does not hold of all tokens but the last."""
        if one.key not in self._places:
            self._places[one.key] = self._free.pop()
        slot, wanted = self._places[one.key], list(one.tokens[:-1])
        have = common(self._held.get(one.key, []), wanted)
        if len(wanted) - have > MANY:
            start = have - have % self._inference.prefill_chunk
            self._inference.prefill(slot, wanted[start:], start)
        elif have < len(wanted):
            self._inference.feed([(slot, wanted[at], at) for at in range(have, len(wanted))])


class _Kept(NamedTuple):
    """A guessed token at its position, with what the network says after it."""

    position: int
    token: int
    hidden: Tensor
    logits: Tensor


class Speculator:
    """Computes rows of lanes and the guesses after them; without a proposer, the rows alone."""

    def __init__(self, inference: Backend, proposer: DraftProposer | None, block: int) -> None:
        self._inference, self._guesser, self._block = inference, proposer, block
        self._kept: dict[str, list[_Kept]] = {}
        self._logits: dict[str, tuple[Tensor, Tensor]] = {}  # the latest hidden state's, by lane

    def feed(
        self, rows: Sequence[tuple[int, int, int]], asked: Sequence[DraftRequest]
    ) -> list[Tensor]:
        """Return the hidden states (C,) of rows (slot, token, position), each of another lane.

        `asked` are the lanes, with all tokens up to the row's.
        """
        if self._guesser is None:
            return list(self._inference.feed(rows))
        found: dict[int, Tensor] = {}
        for n, (row, one) in enumerate(zip(rows, asked, strict=True)):
            if (hidden := self._known(one.key, row)) is not None:
                found[n] = hidden
        missing = [n for n in range(len(rows)) if n not in found]
        if missing:
            computed = self._compute([rows[n] for n in missing], [asked[n] for n in missing])
            found |= dict(zip(missing, computed, strict=True))
        return [found[n] for n in range(len(rows))]

    def logits(self, keys: Sequence[str], hidden: Sequence[Tensor]) -> Tensor:
        """Return the logits (n, V) at the lanes' hidden states, some of which are there already."""
        rows = [self._logits_at(key, at) for key, at in zip(keys, hidden, strict=True)]
        missing = [n for n, row in enumerate(rows) if row is None]
        if missing:
            computed = self._inference.logits(torch.stack([hidden[n] for n in missing]))
            if len(missing) == len(rows):
                return computed
            for n, row in zip(missing, computed, strict=True):
                rows[n] = row
        return torch.stack([row for row in rows if row is not None])

    def forget(self, key: str) -> None:
        """Drop what was computed ahead of a lane."""
        self._kept.pop(key, None)
        self._logits.pop(key, None)

    def drop(self, key: str) -> None:
        """Forget a lane for good."""
        self.forget(key)
        if self._guesser is not None:
            self._guesser.drop(key)

    def _logits_at(self, key: str, hidden: Tensor) -> Tensor | None:
        kept = self._logits.get(key)
        return kept[1] if kept is not None and kept[0] is hidden else None

    def _known(self, key: str, row: tuple[int, int, int]) -> Tensor | None:
        """Return the hidden state of a row that was guessed right."""
        kept = self._kept.get(key)
        if not kept or (kept[0].token, kept[0].position) != row[1:]:
            self.forget(key)
            return None
        assert self._guesser is not None
        self._guesser.guesses.right += 1
        first = kept.pop(0)
        self._logits[key] = (first.hidden, first.logits)
        return first.hidden

    def _compute(
        self, rows: Sequence[tuple[int, int, int]], asked: Sequence[DraftRequest]
    ) -> list[Tensor]:
        """Compute rows, and behind each as many guesses as fit into the block."""
        assert self._guesser is not None
        guesses = self._guess(rows, asked)
        self._guesser.guesses.tried += sum(map(len, guesses))
        fed = [
            (slot, token, position + ahead)
            for (slot, first, position), guessed in zip(rows, guesses, strict=True)
            for ahead, token in enumerate([first, *guessed])
        ]
        hidden = self._inference.feed(fed)
        logits = self._inference.logits(hidden)
        at, states = 0, []
        for one, guessed in zip(asked, guesses, strict=True):
            end = at + 1 + len(guessed)
            states.append(hidden[at])
            self._logits[one.key] = (states[-1], logits[at])
            self._kept[one.key] = [
                _Kept(fed[n][2], fed[n][1], hidden[n], logits[n]) for n in range(at + 1, end)
            ]
            at = end
        return states

    def _guess(
        self, rows: Sequence[tuple[int, int, int]], asked: Sequence[DraftRequest]
    ) -> list[list[int]]:
        assert self._guesser is not None
        count = (-len(rows) % self._block) // len(rows)
        if not count:
            return [[] for _ in rows]
        unknown = [one for one in asked if not one.known]
        made = iter(self._guesser.propose(unknown, count) if unknown else ())
        guessed = [list(one.known) or next(made) for one in asked]
        room = [self._inference.limit - 1 - position for _, _, position in rows]
        return [tokens[: min(count, most)] for tokens, most in zip(guessed, room, strict=True)]
