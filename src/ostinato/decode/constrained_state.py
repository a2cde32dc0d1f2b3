"""A draft under a constraint: which tokens may come next, and whether it can still be ended.

For every position a *way out* is known: tokens with which the text is whole. It is found by a
search that depends on nothing but the tokens so far, so that a draft that is brought back is held
to the same tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from ostinato.decode.constraint import Constraint, forget, matcher, reader
from ostinato.decode.joint_matcher import JointMatcher
from ostinato.errors import ItemError
from ostinato.models import Tokenizer

if TYPE_CHECKING:
    from ostinato.decode.constraint import Matcher

LOOKS, FEW_LOOKS = 20_000, 2_000
"""States that a search for a way out looks at, at most (some 20 microseconds each, for each part of
a constraint): at the beginning, and behind a token, which is merely not drawn where none is found.
"""

FOREIGN, BLANK = 1000, 4  # visits that a byte outside of ASCII and white space count for
FORCED = 64  # tokens that are looked at where no single byte may follow

_FIRST = b"}])>" + b"0123456789" + b"\"',:;.-"
"""Bytes that are looked at first: those that end things."""

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]
T = TypeVar("T")


class ConstrainedState:
    """Follows a constraint along one draft of at most `limit` tokens, its end token included.

    Raises `ItemError` where no way to end a text within the limit is found at the beginning, or
    where this draft alone makes the automaton too large, and `InputError` for a constraint that
    cannot be read.
    """

    def __init__(self, constraint: Constraint, tokenizer: Tokenizer, limit: int) -> None:
        self._constraint = constraint
        self._matcher = matcher(constraint, tokenizer)
        self._said = _spelled(constraint.said, tokenizer) if constraint.room else ()
        self._tokenizer = tokenizer
        self._ends = tokenizer.eos_ids
        self._end = int(bool(self._ends))  # tokens that an end takes
        self._limit = limit
        self._tokens: list[int] = []
        self._completions: list[
            list[int] | None
        ] = []  # completions[p]: how the first p tokens can be ended
        self._looked: tuple[tuple[int, int, int], list[int] | None] | None = None
        if constraint.room:
            self._completions.append(self._at_first(limit))

    def _at_first(self, limit: int) -> list[int]:
        completion = self._asked(
            lambda: shortest_completion(self._matcher, self._tokenizer, limit, self._said)
        )
        if completion is None or len(completion) + self._end > limit:
            needed = (
                "found none" if completion is None else f"the shortest found has {len(completion)}"
            )
            raise ItemError(
                f"A text under the constraint must fit in the limit of {limit} tokens, "
                f"{needed}. Raise the limit, or ask for less."
            )
        return completion

    # What may come next -----------------------------------------------------------------------

    def allowed(self, size: int) -> Tensor:
        """Return for each of `size` tokens whether it may come next, as bool (V,)."""
        mask = torch.zeros(size, dtype=torch.bool)
        known = torch.from_numpy(_bits(self._asked(self._bitmask)))[:size]
        mask[: len(known)] = known
        if not bool(mask.any()):  # a dead end: the text cannot be made whole any more
            self._refuse_endless()
            mask[list(self._ends)] = True
        return mask

    def _bitmask(self) -> bytes:
        return self._matcher.compute_bitmask()

    def _refuse_endless(self) -> None:
        if not self._ends:
            raise ItemError(
                "The text cannot be ended under its constraint, for which no room was kept, and "
                "the model has no end token. Raise the limit, or ask for less."
            )

    def allows(self, token: int, position: int) -> bool:
        """Tell whether a token may come at the end of the draft, room included."""
        if token in self._ends:
            return self._asked(lambda: self._matcher.is_accepting())
        taken = self._asked(lambda: self._matcher.validate_tokens([token]))
        return taken == 1 and self.leaves_room(token, position)

    def leaves_room(self, token: int, position: int) -> bool:
        """Tell whether after a token that may come next the text can be ended within the limit."""
        if not self._completions or token in self._ends:
            return True
        completion = self._after(token, self._limit - position - 1)
        return completion is not None and len(completion) + self._end <= self._limit - position - 1

    @property
    def completion(self) -> Sequence[int] | None:
        """The tokens that would make the text whole from here, where that is looked after."""
        return self._completions[-1] if self._completions else None

    @property
    def is_whole(self) -> bool:
        """Whether nothing can be added, and the text is whole."""
        return bool(self._matcher.is_stopped() and self._matcher.is_accepting())

    # Along the draft --------------------------------------------------------------------------

    def advance(self, token: int) -> None:
        """Append a token."""
        if token in self._ends:
            return  # nothing comes after it, and taking it back leaves the matcher as it is
        if self._completions:
            self._completions.append(self._after(token, self._limit - len(self._tokens) - 1))
        self._matcher.consume_token(token)
        self._tokens.append(token)
        self._asked(lambda: None)

    def copy(self) -> ConstrainedState:
        """Return a copy that goes on by itself from here."""
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
            self._looked = None
            del self._completions[to + 1 :]

    def _after(self, token: int, left: int) -> list[int] | None:
        """Return how the text can be ended after a token; `left` tokens may come then."""
        asked = (len(self._tokens), token, left)
        if self._looked is None or self._looked[0] != asked:
            self._looked = asked, self._asked(lambda: self._look(token, left))
        return self._looked[1]

    def _look(self, token: int, left: int) -> list[int] | None:
        completion = self._completions[-1]
        if completion and completion[0] == token:
            return completion[1:]
        self._matcher.consume_token(token)
        try:
            if (
                completion is not None
                and len(completion) + self._end <= left
                and _ends(self._matcher, completion)
            ):
                return completion
            return shortest_completion(self._matcher, self._tokenizer, left, self._said, FEW_LOOKS)
        finally:
            self._matcher.rollback(1)

    # Company ----------------------------------------------------------------------------------

    def _asked(self, ask: Callable[[], T]) -> T:
        """Return what the matcher answers; asked again in an automaton of its own if it is broken.

        All drafts of a constraint share one that grows with each of them, up to a limit: what a
        draft gets must not depend on its company.
        """
        answer = ask()
        if self._matcher.is_error():
            forget()
            self._matcher = matcher(self._constraint, self._tokenizer)
            self._matcher.consume_tokens(self._tokens)
            answer = ask()
            self._refuse_broken()
        return answer

    def _refuse_broken(self) -> None:
        if not self._matcher.is_error():
            return
        reason = self._matcher.get_error().split("<state>")[0].strip()
        forget()
        raise ItemError(
            f"The constraint must be one that can be followed, and is too large: {reason}. Make it "
            "of smaller parts, or leave it to a check."
        )


def _ends(at: Matcher, tokens: Sequence[int]) -> bool:
    """Tell whether the tokens make the text whole."""
    taken = at.try_consume_tokens(list(tokens))
    whole = taken == len(tokens) and at.is_accepting()
    at.rollback(taken)
    return bool(whole)


# A way out --------------------------------------------------------------------------------------

Piece = tuple[int, ...]
"""Tokens that a search takes at once: a byte, a character, or a hint."""


def shortest_completion(
    at: Matcher,
    tokenizer: Tokenizer,
    most: int,
    said: Sequence[Piece] = (),
    looks: int = LOOKS,
) -> list[int] | None:
    """Return few tokens, the end token aside, with which the text is whole; None: none was found.

    Writes byte for byte, or what is `said`: first what makes more parts of the constraint whole,
    else toward states that were seen the least, where two states are held for the same that allow
    the same tokens: so it gets out of what can go on for ever, and through what must be counted. It
    looks no further than `most` tokens could write, at no more than `looks` states.
    """
    search = _Search(at, tokenizer, most, said, looks)
    try:
        found = search.run()
    finally:
        at.rollback(len(search.path))
    if found is None:
        return None
    written = b"".join(map(tokenizer.token_bytes, found))
    fewer = reader(tokenizer).tokenize_bytes(written)
    return list(fewer) if len(fewer) <= len(found) and _ends(at, fewer) else found


def _state(at: Matcher) -> bytes:
    """Return a hash that is the same for two places where each part allows the same tokens."""
    masks = at.state() if isinstance(at, JointMatcher) else at.compute_bitmask()
    return blake2b(masks, digest_size=16).digest()


def _whole(at: Matcher) -> int:
    """Return how many parts of a constraint are whole."""
    return at.whole() if isinstance(at, JointMatcher) else int(at.is_accepting())


class _Search:
    """One walk from where a matcher stands; it is left at the end of `path`."""

    def __init__(
        self,
        at: Matcher,
        tokenizer: Tokenizer,
        most: int,
        said: Sequence[Piece],
        looks: int,
    ) -> None:
        self.at, self.path = at, list[int]()
        self._tokenizer = tokenizer
        self._pieces = [
            *said,
            *(_words(tokenizer) if isinstance(at, JointMatcher) else ()),
            *_pieces(tokenizer),
        ]
        self._said = frozenset(said)
        self._worse = _worse(tokenizer)
        self._longest = most * 16  # bytes; few tokens are longer on average
        self._looks = looks
        self._seen: dict[bytes, int] = {}
        self._used: dict[tuple[bytes, Piece], int] = {}
        # For a state the first piece of each sort to each other state: the rest does the same.
        self._turns: dict[bytes, list[Piece]] = {}

    def run(self) -> list[int] | None:
        while not self.at.is_accepting():
            state = _state(self.at)
            self._seen[state] = self._seen.get(state, 0) + 1
            pieces = self._candidates(state)
            best = self._nearer(state, pieces) or self._newer(state, pieces)
            if best is None or len(self.path) >= self._longest or self._looks < 0:
                return None
            self._used[state, best] = self._used.get((state, best), 0) + 1
            self.at.consume_tokens(list(best))
            self.path += best
        return list(self.path)

    def _nearer(self, state: bytes, pieces: Sequence[Piece]) -> Piece | None:
        """Return the piece that makes the most parts whole, if more than now; each once."""
        best, most = None, _whole(self.at)
        for piece in pieces:
            taken = self.at.try_consume_tokens(list(piece))
            whole = _whole(self.at) if taken == len(piece) else 0
            self.at.rollback(taken)
            if whole > most and (state, piece) not in self._used:
                best, most = piece, whole
        return best

    def _newer(self, state: bytes, pieces: Sequence[Piece]) -> Piece | None:
        """Return the piece to the state seen the least, by the piece used the least."""
        best, fewest = None, -1
        turns: dict[tuple[bytes, object], Piece] = {}
        for piece in pieces:
            taken = self.at.try_consume_tokens(list(piece))
            after = _state(self.at) if taken == len(piece) else None
            self.at.rollback(taken)
            self._looks -= 1
            if after is None:
                continue
            turns.setdefault((after, self._sort(piece)), piece)
            count = self._seen.get(after, 0) + self._used.get((state, piece), 0)
            count += self._worse.get(piece, 0)
            if best is None or count < fewest:
                best, fewest = piece, count
        self._turns.setdefault(state, list(turns.values()))
        return best

    def _sort(self, piece: Piece) -> object:
        if piece in self._said:
            return piece
        written = self._tokenizer.token_bytes(piece[0])
        return 0 if written.isspace() else 1 if written.isalnum() else 2

    def _candidates(self, state: bytes) -> Sequence[Piece]:
        pieces, mask = self._turns.get(state, self._pieces), self.at.compute_bitmask()
        few = [piece for piece in pieces if mask[piece[0] >> 3] >> (piece[0] & 7) & 1]
        # Where only one text can follow, llguidance allows the first of its tokens alone.
        return few or [(token,) for token in np.flatnonzero(_bits(mask))[:FORCED].tolist()]


def _bits(packed: bytes) -> Mask:
    return np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").astype(np.bool_)


def _spelled(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[Piece, ...]:
    """Return each text as tokens, as it is and after a space."""
    pairs = [(text, f" {text}") for text in texts if text.strip()]
    spelled = (tuple(tokenizer.encode(text)) for pair in pairs for text in pair)
    return tuple(piece for piece in spelled if piece)


@lru_cache(maxsize=8)
def _pieces(tokenizer: Tokenizer) -> tuple[Piece, ...]:
    """Return the tokens that write one byte, then those that write a character of several."""
    order = {byte: n for n, byte in enumerate(_FIRST)} | {ord(" "): 98}
    single: dict[bytes, int] = {}
    for token in range(tokenizer.vocab_size):
        written = tokenizer.token_bytes(token)
        if len(written) == 1 or (len(written) <= 4 and _is_character(written)):
            single.setdefault(written, token)
    ranked = sorted(single, key=lambda w: (len(w), order.get(w[0], 99), w.isspace(), w))
    bytes_there = {written for written in single if len(written) == 1}
    return tuple(
        (single[written],)
        for written in ranked
        if len(written) == 1 or not all(bytes([byte]) in bytes_there for byte in written)
    )


@lru_cache(maxsize=8)
def _words(tokenizer: Tokenizer) -> tuple[Piece, ...]:
    """Return short words with a blank before them: one piece further where words are counted."""
    return tuple(tuple(tokenizer.encode(f" {word}")) for word in "0A")


@lru_cache(maxsize=8)
def _worse(tokenizer: Tokenizer) -> dict[Piece, int]:
    """Return the pieces that a way out had better not take, with how many visits they count for."""
    written = {piece: tokenizer.token_bytes(piece[0]) for piece in _pieces(tokenizer)}
    blank = {piece: BLANK for piece, text in written.items() if text.isspace()}
    return blank | {piece: FOREIGN for piece, text in written.items() if not text.isascii()}


def _is_character(written: bytes) -> bool:
    try:
        return len(written.decode()) == 1
    except UnicodeDecodeError:
        return False
