"""A draft under a constraint: which tokens may come next, and whether it can still be completed.

For every position of the draft a *completion* is known: tokens with which the text is whole. It
depends on nothing but the tokens so far, so a draft that is resumed allows the same tokens.
Knows no model and no sampling.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from ostinato.arguments import counted
from ostinato.decode.completion_search import (
    completes,
    hint_pieces,
    shortest_completion,
    unpack_mask,
)
from ostinato.decode.constraint import Constraint, clear_compiled, matcher
from ostinato.errors import ItemError
from ostinato.models import Tokenizer

MAX_STATES_AFTER_TOKEN = 2_000
"""States that the search after a sampled token examines: a tenth of the first search, as the token
is just not taken where it finds nothing."""

T = TypeVar("T")


class ConstrainedState:
    """Follows a constraint along one draft of at most `limit` tokens, its end token included.

    Raises `ItemError` if no completion within the limit is found at the start, or if this draft
    alone makes the automaton too large; `InputError` for a constraint that cannot be compiled.
    """

    def __init__(self, constraint: Constraint, tokenizer: Tokenizer, limit: int) -> None:
        self._constraint = constraint
        self._matcher = matcher(constraint, tokenizer)
        self._hints = hint_pieces(constraint.literals, tokenizer) if constraint.room else ()
        self._tokenizer = tokenizer
        self._eos_ids = tokenizer.eos_ids
        self._end_tokens = int(bool(self._eos_ids))  # tokens that an end takes: 1, or 0 without one
        self._limit = limit
        self._tokens: list[int] = []
        # completions[p] completes the first p tokens; empty without `room`.
        self._completions: list[list[int] | None] = []
        # The latest answer by (position, token, tokens left): `advance` asks again for the token
        # that `leaves_room` has just accepted.
        self._latest: tuple[tuple[int, int, int], list[int] | None] | None = None
        if constraint.room:
            self._completions.append(self._first_completion(limit))

    def _first_completion(self, limit: int) -> list[int]:
        completion = self._query(
            lambda: shortest_completion(self._matcher, self._tokenizer, limit, self._hints)
        )
        if completion is None:
            reason = "found none"
        elif not self._fits(completion, limit):
            reason = f"the shortest found has {len(completion)}"
        else:
            return completion
        raise ItemError(
            f"A text under the constraint must fit in the limit of {counted(limit, 'tokens')}, "
            f"{reason}. "
            "Raise the limit, or ask for less."
        )

    def _fits(self, completion: Sequence[int] | None, left: int) -> bool:
        return completion is not None and len(completion) + self._end_tokens <= left

    # What may come next -----------------------------------------------------------------------

    def allowed(self, size: int) -> Tensor:
        """Return which of `size` tokens may come next, as bool (V,)."""
        # The network may have more logits than the tokenizer has tokens; those are never allowed.
        mask = torch.zeros(size, dtype=torch.bool)
        known = torch.from_numpy(unpack_mask(self._query(self._bitmask)))[:size]
        mask[: len(known)] = known
        if not bool(mask.any()):  # a dead end: end the text, which cannot be made whole any more
            if not self._eos_ids:
                raise ItemError(
                    "The text cannot be ended under its constraint, for which no room was kept, "
                    "and the model has no end token. Raise the limit, or ask for less."
                )
            mask[list(self._eos_ids)] = True
        return mask

    def _bitmask(self) -> bytes:
        return self._matcher.compute_bitmask()

    def allows(self, token: int, position: int) -> bool:
        """Return whether a token may come next, room included."""
        if token in self._eos_ids:
            return self._query(lambda: self._matcher.is_accepting())
        accepted = self._query(lambda: self._matcher.validate_tokens([token]))
        return accepted == 1 and self.leaves_room(token, position)

    def leaves_room(self, token: int, position: int) -> bool:
        """Return whether the text can be completed within the limit after an allowed token."""
        if not self._completions or token in self._eos_ids:
            return True
        left = self._limit - position - 1
        return self._fits(self._completion_after(token, left), left)

    @property
    def completion(self) -> Sequence[int] | None:
        """Tokens that would make the text whole from here; None without `room`."""
        return self._completions[-1] if self._completions else None

    @property
    def is_whole(self) -> bool:
        """Whether the text is whole and nothing can be added."""
        return bool(self._matcher.is_stopped() and self._matcher.is_accepting())

    # Along the draft --------------------------------------------------------------------------

    def advance(self, token: int) -> None:
        """Append a token."""
        if token in self._eos_ids:
            return  # nothing comes after it, and taking it back leaves the matcher as it is
        if self._completions:
            left = self._limit - len(self._tokens) - 1
            self._completions.append(self._completion_after(token, left))
        self._matcher.consume_token(token)
        self._tokens.append(token)
        self._query(lambda: None)  # consuming may break the automaton: rebuild it now

    def copy(self) -> ConstrainedState:
        """Return an independent copy."""
        other = copy.copy(self)
        other._matcher = self._matcher.deep_copy()
        other._tokens = list(self._tokens)
        other._completions = [
            None if completion is None else list(completion) for completion in self._completions
        ]
        return other

    def crop(self, to: int) -> None:
        """Keep the first `to` tokens."""
        if to < len(self._tokens):
            self._matcher.rollback(len(self._tokens) - to)
            del self._tokens[to:]
            self._latest = None
            del self._completions[to + 1 :]

    def _completion_after(self, token: int, left: int) -> list[int] | None:
        """Return a completion of the draft and a token, after which `left` tokens may come."""
        question = (len(self._tokens), token, left)
        if self._latest is None or self._latest[0] != question:
            self._latest = question, self._query(lambda: self._find_completion(token, left))
        return self._latest[1]

    def _find_completion(self, token: int, left: int) -> list[int] | None:
        # Cheapest first: the known completion often starts with the token, or still holds after it.
        known = self._completions[-1]
        if known and known[0] == token:
            return known[1:]
        self._matcher.consume_token(token)
        try:
            if known is not None and self._fits(known, left) and completes(self._matcher, known):
                return known
            return shortest_completion(
                self._matcher, self._tokenizer, left, self._hints, MAX_STATES_AFTER_TOKEN
            )
        finally:
            self._matcher.rollback(1)

    # The shared automaton ---------------------------------------------------------------------

    def _query(self, question: Callable[[], T]) -> T:
        """Return the matcher's answer; ask again in a fresh automaton if the shared one is broken.

        All drafts of a constraint share one automaton, which grows with each of them up to a limit.
        What a draft gets must not depend on the others: only one that fails alone is refused.
        """
        answer = question()
        if self._matcher.is_error():
            clear_compiled()
            self._matcher = matcher(self._constraint, self._tokenizer)
            self._matcher.consume_tokens(self._tokens)
            answer = question()
            self._refuse_broken()
        return answer

    def _refuse_broken(self) -> None:
        if not self._matcher.is_error():
            return
        reason = self._matcher.get_error().split("<state>")[0].strip()  # a parser dump follows
        clear_compiled()
        raise ItemError(
            f"The constraint must be one that can be followed, and is too large: {reason}. Make it "
            "of smaller parts, or leave it to a check."
        )
