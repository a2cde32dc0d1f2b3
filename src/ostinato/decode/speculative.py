"""Speculative decoding (Leviathan et al. 2023), with bit-identical results.

A proposer names draft tokens. They go through the network in rows of the fixed block that would
otherwise be padding. Each token is still sampled in its turn, with the random number of its
position; if it equals the draft token, its hidden state is computed already (accepted). This
replaces the paper's rejection sampling: the same text as without, not just the same distribution.
Accepted tokens come out one a step, so every check sees them; going back drops the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ostinato.arguments import counted
from ostinato.decode.sampling import SamplingRow, adjust, draw
from ostinato.decode.slots import common_prefix
from ostinato.errors import InputError
from ostinato.inference import Backend, TokenRow, open_backend
from ostinato.models import LanguageModel, Tokenizer

PREFILL_ABOVE = 16
"""Missing tokens above which a draft model reads them as a prompt, not as rows of one block."""


class DraftRequest(NamedTuple):
    """A request for draft tokens of a lane.

    `tokens` are the prompt and the text so far. `row` returns how the token after some draft tokens
    is sampled. `known` are the tokens that follow for certain, in a lane that is being resumed.
    """

    key: str
    tokens: Sequence[int]
    row: Callable[[Sequence[int]], SamplingRow]
    known: Sequence[int] = ()


@dataclass
class DraftStats:
    """How many draft tokens were computed, and how many of them were accepted."""

    drafted: int = 0
    accepted: int = 0


class DraftProposer(ABC):
    """Proposes the next tokens of lanes; wrong ones cost time, never the text."""

    def __init__(self, count: int) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"The number of draft tokens must be 1 or more, got {count!r}. Use 4.")
        self.count = count
        self.stats = DraftStats()

    def prepare(self, tokenizer: Tokenizer, slots: int) -> None:  # noqa: B027
        """Get ready for the lanes of a model. Raises `InputError` if its tokenizer does not fit."""

    @abstractmethod
    def propose(self, requests: Sequence[DraftRequest], count: int) -> list[list[int]]:
        """Return at most `count` draft tokens for each of the lanes."""

    def drop(self, key: str) -> None:  # noqa: B027
        """Forget a lane."""


class PromptLookup(DraftProposer):
    """Proposes what followed the latest tokens when they last occurred (Saxena 2023).

    Looks in prompt and text for the last `longest` to `shortest` tokens, the longest first.
    """

    def __init__(self, count: int = 4, *, longest: int = 3, shortest: int = 2) -> None:
        super().__init__(count)
        if not 1 <= shortest <= longest:
            raise InputError(
                f"longest must be at least shortest, and that at least 1, got {longest} and "
                f"{shortest}."
            )
        self._sizes = range(longest, shortest - 1, -1)

    def propose(self, requests: Sequence[DraftRequest], count: int) -> list[list[int]]:
        """Look up the latest tokens of each lane in what precedes them."""
        return [self._found(list(each.tokens), min(count, self.count)) for each in requests]

    def _found(self, tokens: list[int], count: int) -> list[int]:
        for size in self._sizes:
            latest = tokens[-size:]
            for start in range(len(tokens) - size - 1, -1, -1):
                if tokens[start : start + size] == latest:
                    return tokens[start + size : start + size + count]
        return []


class DraftModel(DraftProposer):
    """Proposes what a small model of the same vocabulary samples.

    It uses the lane's own random numbers: two models that agree on the distribution then agree on
    the token, which independent samples often do not.
    """

    def __init__(self, model: LanguageModel, count: int = 4) -> None:
        super().__init__(count)
        self._model = model
        self._slots: dict[str, int] = {}  # by lane
        self._cached: dict[str, list[int]] = {}  # the tokens that each lane's slot holds
        self._free: list[int] = []

    def prepare(self, tokenizer: Tokenizer, slots: int) -> None:
        """Open a cache for the lanes. Raises `InputError` for a model of another vocabulary."""
        own = self._model.tokenizer
        if own.backend.get_vocab() != tokenizer.backend.get_vocab():
            raise InputError(
                f"The draft model must have the model's vocabulary ({tokenizer.vocab_size} "
                f"tokens), got another ({counted(own.vocab_size, 'tokens')}: {self._model.name}). "
                "Train both on the same text with the same --vocab-size."
            )
        self._inference = open_backend(self._model, slots)
        self._free = list(range(slots))
        self._slots, self._cached = {}, {}

    def propose(self, requests: Sequence[DraftRequest], count: int) -> list[list[int]]:
        """Continue each text by some tokens; none where the small model's context is full."""
        count = min(count, self.count)
        limit = self._inference.limit
        fitting = [n for n, each in enumerate(requests) if len(each.tokens) + count <= limit]
        drafts: list[list[int]] = [[] for _ in requests]
        for n in fitting:
            self._catch_up(requests[n])
        for _ in range(count if fitting else 0):
            rows = []
            for n in fitting:
                tokens = [*requests[n].tokens, *drafts[n]]
                rows.append(TokenRow(self._slots[requests[n].key], tokens[-1], len(tokens) - 1))
                self._cached[requests[n].key] = tokens
            logits = self._inference.logits(self._inference.feed(rows))
            sampling_rows = [requests[n].row(drafts[n]) for n in fitting]
            drawn = draw(adjust(logits, sampling_rows), sampling_rows)
            for n, token in zip(fitting, drawn, strict=True):
                drafts[n].append(token)
        return drafts

    def drop(self, key: str) -> None:
        """Free the lane's slot."""
        if key in self._slots:
            self._free.append(self._slots.pop(key))
            self._cached.pop(key, None)

    def _catch_up(self, request: DraftRequest) -> None:
        """Compute what the lane's slot lacks of all tokens but the last."""
        if request.key not in self._slots:
            self._slots[request.key] = self._free.pop()
        slot, tokens = self._slots[request.key], list(request.tokens[:-1])
        # Rejected drafts stay in the cache: they are overwritten from the first that differs.
        held = common_prefix(self._cached.get(request.key, []), tokens)
        if len(tokens) - held > PREFILL_ABOVE:
            start = held - held % self._inference.prefill_chunk
            self._inference.prefill(slot, tokens[start:], start)
        elif held < len(tokens):
            self._inference.feed([TokenRow(slot, tokens[n], n) for n in range(held, len(tokens))])


class _DraftToken(NamedTuple):
    """A draft token at its position, with the network's output after it."""

    position: int
    token: int
    hidden: Tensor
    logits: Tensor


class Speculator:
    """Computes rows of lanes, and draft tokens behind them; without a proposer, the rows alone."""

    def __init__(self, inference: Backend, proposer: DraftProposer | None, block: int) -> None:
        self._inference, self._proposer, self._block = inference, proposer, block
        self._drafts: dict[str, list[_DraftToken]] = {}
        # By lane, its latest hidden state with its logits: found again by identity, not by value.
        self._logits: dict[str, tuple[Tensor, Tensor]] = {}

    def feed(self, rows: Sequence[TokenRow], requests: Sequence[DraftRequest]) -> list[Tensor]:
        """Return the hidden states (C,) of rows, one for each of the lanes in `requests`.

        A request's tokens end with its row's token.
        """
        if self._proposer is None:
            return list(self._inference.feed(rows))
        found: dict[int, Tensor] = {}
        for n, (row, request) in enumerate(zip(rows, requests, strict=True)):
            if (hidden := self._accept(request.key, row)) is not None:
                found[n] = hidden
        missing = [n for n in range(len(rows)) if n not in found]
        if missing:
            computed = self._compute([rows[n] for n in missing], [requests[n] for n in missing])
            found |= dict(zip(missing, computed, strict=True))
        return [found[n] for n in range(len(rows))]

    def logits(self, keys: Sequence[str], hidden: Sequence[Tensor]) -> Tensor:
        """Return the logits (N, V) at the lanes' hidden states (C,); compute the missing ones."""
        rows = [self._known_logits(key, each) for key, each in zip(keys, hidden, strict=True)]
        missing = [n for n, row in enumerate(rows) if row is None]
        if missing:
            computed = self._inference.logits(torch.stack([hidden[n] for n in missing]))
            if len(missing) == len(rows):
                return computed
            for n, row in zip(missing, computed, strict=True):
                rows[n] = row
        return torch.stack([row for row in rows if row is not None])

    def forget(self, key: str) -> None:
        """Drop what was computed ahead for a lane, because it goes to another position."""
        self._drafts.pop(key, None)
        self._logits.pop(key, None)

    def drop(self, key: str) -> None:
        """Forget a lane that has ended."""
        self.forget(key)
        if self._proposer is not None:
            self._proposer.drop(key)

    def _known_logits(self, key: str, hidden: Tensor) -> Tensor | None:
        known = self._logits.get(key)
        return known[1] if known is not None and known[0] is hidden else None

    def _accept(self, key: str, row: TokenRow) -> Tensor | None:
        """Return the hidden state of a row that was drafted, else drop the lane's drafts."""
        drafts = self._drafts.get(key)
        if not drafts or (drafts[0].token, drafts[0].position) != (row.token, row.position):
            self.forget(key)
            return None
        assert self._proposer is not None
        self._proposer.stats.accepted += 1
        first = drafts.pop(0)
        self._logits[key] = (first.hidden, first.logits)
        return first.hidden

    def _compute(self, rows: Sequence[TokenRow], requests: Sequence[DraftRequest]) -> list[Tensor]:
        """Compute rows, and behind each as many draft tokens as fit into the block."""
        assert self._proposer is not None
        drafts = self._propose(rows, requests)
        self._proposer.stats.drafted += sum(map(len, drafts))
        fed = [
            TokenRow(row.slot, token, row.position + ahead)
            for row, draft in zip(rows, drafts, strict=True)
            for ahead, token in enumerate([row.token, *draft])
        ]
        hidden = self._inference.feed(fed)
        # Logits of all rows at once: for a draft token alone they would need a pass of their own.
        logits = self._inference.logits(hidden)
        start, states = 0, []
        for request, draft in zip(requests, drafts, strict=True):
            end = start + 1 + len(draft)
            states.append(hidden[start])
            self._logits[request.key] = (states[-1], logits[start])
            self._drafts[request.key] = [
                _DraftToken(fed[n].position, fed[n].token, hidden[n], logits[n])
                for n in range(start + 1, end)
            ]
            start = end
        return states

    def _propose(
        self, rows: Sequence[TokenRow], requests: Sequence[DraftRequest]
    ) -> list[list[int]]:
        """Return the draft tokens behind each row; tokens that are known need no proposer."""
        assert self._proposer is not None
        # Only as many as the padding of the last block holds: they cost no further block.
        count = (-len(rows) % self._block) // len(rows)
        if not count:
            return [[] for _ in rows]
        unknown = [request for request in requests if not request.known]
        proposed = iter(self._proposer.propose(unknown, count) if unknown else ())
        drafts = [list(request.known) or next(proposed) for request in requests]
        room = [self._inference.limit - 1 - row.position for row in rows]
        return [draft[: min(count, most)] for draft, most in zip(drafts, room, strict=True)]
