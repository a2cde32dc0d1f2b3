"""Finding a completion: tokens with which a text is whole under a constraint.

A matcher says which tokens may come next, and nothing about where they lead. So the search is a
walk: it tries each next piece, steps to the state it has visited least, and never goes back (node
counting, a real-time search: Koenig and Szymanski 1999). Visit counts take it out of loops such as
`[a-z]*m`. They also take it through counters such as `.{40}`, whose states all allow the same
tokens: a search that prunes known states would stop at the first. Knows no model, no draft.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from ostinato.decode.constraint import llguidance_tokenizer
from ostinato.decode.joint_matcher import JointMatcher
from ostinato.models import Tokenizer

if TYPE_CHECKING:
    from ostinato.decode.constraint import Matcher

MAX_STATES = 20_000
"""States that a search examines at most: some 20 microseconds each, per part of a constraint."""

BYTES_PER_TOKEN = 16
"""The longest completion searched for, per token left; few tokens are longer on average."""

NON_ASCII_PENALTY, SPACE_PENALTY = 1000, 4
"""Visits that such pieces start with. The walk takes equal pieces in turn, and would otherwise fill
`.{40}` with spaces and rare characters."""

SINGLE_TEXT_TOKENS = 64  # tokens tried where the mask allows no single byte

_FIRST_BYTES = b"}])>" + b"0123456789" + b"\"',:;.-"
"""Bytes that are tried first: those that tend to end things."""

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]

Piece = tuple[int, ...]
"""Tokens that a search takes at once: those of a byte, a character, a short word, or a hint."""


def shortest_completion(
    matcher: Matcher,
    tokenizer: Tokenizer,
    limit: int,
    hints: Sequence[Piece] = (),
    max_states: int = MAX_STATES,
) -> list[int] | None:
    """Return few tokens, the end token aside, that make the text whole; None if none were found.

    `limit` bounds the search to what that many tokens can write; the result may still be longer.
    `hints` are pieces to try first. Depends on nothing but the arguments and the matcher's state,
    which is left as it was.
    """
    search = _Search(matcher, tokenizer, limit, hints, max_states)
    try:
        found = search.run()
    finally:
        matcher.rollback(len(search.path))
    if found is None:
        return None
    # The walk writes bytes. Tokenized again they are fewer tokens, unless the constraint allows
    # these bytes only in smaller tokens.
    written = b"".join(map(tokenizer.token_bytes, found))
    retokenized = list(llguidance_tokenizer(tokenizer).tokenize_bytes(written))
    if len(retokenized) <= len(found) and completes(matcher, retokenized):
        return retokenized
    return found


def completes(matcher: Matcher, tokens: Sequence[int]) -> bool:
    """Return whether the tokens make the text whole; the matcher is left as it was."""
    consumed = matcher.try_consume_tokens(list(tokens))
    accepted = consumed == len(tokens) and matcher.is_accepting()
    matcher.rollback(consumed)
    return bool(accepted)


def unpack_mask(packed: bytes) -> Mask:
    """Return a matcher's bitmask as booleans, one for each token."""
    return np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").astype(np.bool_)


def hint_pieces(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[Piece, ...]:
    """Return each text as tokens, as it is and after a space."""
    variants = [variant for text in texts if text.strip() for variant in (text, f" {text}")]
    pieces = (tuple(tokenizer.continuation(variant)) for variant in variants)
    return tuple(piece for piece in pieces if piece)


class _Search:
    """One walk from a matcher's state; `path` holds the tokens that it has consumed."""

    def __init__(
        self,
        matcher: Matcher,
        tokenizer: Tokenizer,
        limit: int,
        hints: Sequence[Piece],
        max_states: int,
    ) -> None:
        self.path: list[int] = []
        self._matcher, self._tokenizer = matcher, tokenizer
        words = _short_words(tokenizer) if isinstance(matcher, JointMatcher) else ()
        self._pieces = [*hints, *words, *_characters(tokenizer)]
        self._hints = frozenset(hints)
        self._penalties = _penalties(tokenizer)
        self._longest = limit * BYTES_PER_TOKEN
        self._states_left = max_states
        self._visits: dict[bytes, int] = {}
        self._uses: dict[tuple[bytes, Piece], int] = {}
        # At a state's second visit, only one piece of each sort to each next state is tried again.
        self._distinct: dict[bytes, list[Piece]] = {}

    def run(self) -> list[int] | None:
        """Walk until the text is whole; None where the walk is stuck or too long."""
        while not self._matcher.is_accepting():
            state = self._state()
            self._visits[state] = self._visits.get(state, 0) + 1
            pieces = self._candidates(state)
            # Without the first rule, joined patterns gave ends of 110 tokens for a text of two
            # words: states that allow the same tokens hide that a part is already whole.
            best = self._most_accepting(state, pieces) or self._least_visited(state, pieces)
            if best is None or len(self.path) >= self._longest or self._states_left < 0:
                return None
            self._uses[state, best] = self._uses.get((state, best), 0) + 1
            self._matcher.consume_tokens(list(best))
            self.path += best
        return list(self.path)

    def _most_accepting(self, state: bytes, pieces: Sequence[Piece]) -> Piece | None:
        """Return the piece after which the most parts accept, if more than now.

        Not one that was used in this state before: it may undo another part's progress forever.
        """
        best, most = None, self._accepting_parts()
        for piece in pieces:
            consumed = self._matcher.try_consume_tokens(list(piece))
            accepting = self._accepting_parts() if consumed == len(piece) else 0
            self._matcher.rollback(consumed)
            if accepting > most and (state, piece) not in self._uses:
                best, most = piece, accepting
        return best

    def _least_visited(self, state: bytes, pieces: Sequence[Piece]) -> Piece | None:
        """Return the piece to the least visited state, least used from here, with penalties."""
        best, fewest = None, -1
        distinct: dict[tuple[bytes, object], Piece] = {}
        for piece in pieces:
            consumed = self._matcher.try_consume_tokens(list(piece))
            next_state = self._state() if consumed == len(piece) else None
            self._matcher.rollback(consumed)
            self._states_left -= 1
            if next_state is None:
                continue
            distinct.setdefault((next_state, self._sort(piece)), piece)
            count = self._visits.get(next_state, 0) + self._uses.get((state, piece), 0)
            count += self._penalties.get(piece, 0)
            if best is None or count < fewest:
                best, fewest = piece, count
        self._distinct.setdefault(state, list(distinct.values()))
        return best

    def _sort(self, piece: Piece) -> object:
        """Return what a piece is like; states of one mask may still treat the sorts differently."""
        if piece in self._hints:
            return piece
        text = self._tokenizer.token_bytes(piece[0])
        return "space" if text.isspace() else "word" if text.isalnum() else "other"

    def _candidates(self, state: bytes) -> Sequence[Piece]:
        """Return the pieces whose first token is allowed."""
        pieces, mask = self._distinct.get(state, self._pieces), self._matcher.compute_bitmask()
        allowed = [piece for piece in pieces if mask[piece[0] >> 3] >> (piece[0] & 7) & 1]
        # Where only one text can follow, llguidance allows just its longest token, no single byte.
        forced = np.flatnonzero(unpack_mask(mask))[:SINGLE_TEXT_TOKENS].tolist()
        return allowed or [(token,) for token in forced]

    def _state(self) -> bytes:
        """Return a hash of the state: equal where each part allows the same tokens."""
        at = self._matcher
        masks = at.state() if isinstance(at, JointMatcher) else at.compute_bitmask()
        return blake2b(masks, digest_size=16).digest()

    def _accepting_parts(self) -> int:
        if isinstance(self._matcher, JointMatcher):
            return self._matcher.accepting_parts()
        return int(self._matcher.is_accepting())


# Pieces of a tokenizer --------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _characters(tokenizer: Tokenizer) -> tuple[Piece, ...]:
    """Return the tokens of one byte, then those of a character whose bytes are no tokens."""
    rank = {byte: n for n, byte in enumerate(_FIRST_BYTES)} | {ord(" "): 98}
    tokens: dict[bytes, int] = {}
    for token in range(tokenizer.vocab_size):
        text = tokenizer.token_bytes(token)
        if len(text) == 1 or (len(text) <= 4 and _is_character(text)):
            tokens.setdefault(text, token)
    ordered = sorted(tokens, key=lambda t: (len(t), rank.get(t[0], 99), t.isspace(), t))
    single_bytes = {text for text in tokens if len(text) == 1}
    return tuple(
        (tokens[text],)
        for text in ordered
        if len(text) == 1 or not all(bytes([byte]) in single_bytes for byte in text)
    )


@lru_cache(maxsize=8)
def _short_words(tokenizer: Tokenizer) -> tuple[Piece, ...]:
    """Return short words after a space: one piece, and one step on, where words are counted."""
    return tuple(tuple(tokenizer.continuation(f" {word}")) for word in "0A")


@lru_cache(maxsize=8)
def _penalties(tokenizer: Tokenizer) -> dict[Piece, int]:
    """Return the pieces that a completion should avoid, with the visits they count for."""
    texts = {piece: tokenizer.token_bytes(piece[0]) for piece in _characters(tokenizer)}
    spaces = {piece: SPACE_PENALTY for piece, text in texts.items() if text.isspace()}
    return spaces | {p: NON_ASCII_PENALTY for p, text in texts.items() if not text.isascii()}


def _is_character(text: bytes) -> bool:
    try:
        return len(text.decode()) == 1
    except UnicodeDecodeError:
        return False
