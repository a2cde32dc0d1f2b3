"""Several constraints at once, each followed by a matcher of its own.

The automaton of an intersection has up to the product of its parts' states, and llguidance ends for
good where it grows too large; the parts have the sum. What the masks alone do not tell is whether
tokens that each part allows lead to a text that is in all: `ostinato.decode.constrained_state` looks ahead.
Knows no model and no sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llguidance import LLMatcher


class JointMatcher:
    """Stands in for one `LLMatcher`, whose methods it has: in the language of all its parts."""

    def __init__(self, parts: Sequence[LLMatcher], single: Sequence[int]) -> None:
        self.parts = tuple(parts)
        self._single = single  # tokens of one byte

    def compute_bitmask(self) -> bytes:
        """Return a bit for each token: whether every part allows it next."""
        masks = [np.frombuffer(part.compute_bitmask(), np.uint8) for part in self.parts]
        both = np.bitwise_and.reduce(masks)
        return bytes(both if both.any() else self._one_by_one(masks))

    def _one_by_one(self, masks: Sequence[np.ndarray[tuple[int], np.dtype[np.uint8]]]) -> bytes:
        """Return the mask of what all parts take, where parts that can go on in one way differ.

        llguidance allows only the longest token there, which is not the same for all.
        """
        anyone = np.unpackbits(np.bitwise_or.reduce(masks), bitorder="little")
        few = np.zeros_like(anyone)
        named = np.flatnonzero(anyone)
        for token in {*self._single, *(named.tolist() if len(named) <= len(masks) else ())}:
            few[token] = self.validate_tokens([token])
        return bytes(np.packbits(few, bitorder="little"))

    def state(self) -> bytes:
        """Return what is the same for two places where every part allows the same tokens."""
        return b"".join(part.compute_bitmask() for part in self.parts)

    def whole(self) -> int:
        """Return how many parts are whole."""
        return sum(part.is_accepting() for part in self.parts)

    def consume_token(self, token: int) -> bool:
        """Append a token that every part allows."""
        return all([part.consume_token(token) for part in self.parts])

    def consume_tokens(self, tokens: Sequence[int]) -> bool:
        """Append tokens that every part allows."""
        return all([part.consume_tokens(list(tokens)) for part in self.parts])

    def try_consume_tokens(self, tokens: Sequence[int]) -> int:
        """Append the first of the tokens that every part takes; return how many they are."""
        tokens, taken = list(tokens), []
        for part in self.parts:
            taken.append(part.try_consume_tokens(tokens))
            tokens = tokens[: taken[-1]]
        for part, count in zip(self.parts, taken, strict=True):
            part.rollback(count - len(tokens))
        return len(tokens)

    def validate_tokens(self, tokens: Sequence[int]) -> int:
        """Return how many of the tokens every part takes."""
        return min(part.validate_tokens(list(tokens)) for part in self.parts)

    def rollback(self, count: int) -> bool:
        """Take back the last tokens."""
        return all([part.rollback(count) for part in self.parts])

    def is_accepting(self) -> bool:
        """Tell whether the text is whole."""
        return all(part.is_accepting() for part in self.parts)

    def is_stopped(self) -> bool:
        """Tell whether nothing can be added."""
        return any(part.is_stopped() for part in self.parts)

    def is_error(self) -> bool:
        """Tell whether a part has given up."""
        return any(part.is_error() for part in self.parts)

    def get_error(self) -> str:
        """Return why a part has given up."""
        return next((part.get_error() for part in self.parts if part.is_error()), "")

    def deep_copy(self) -> JointMatcher:
        """Return one that goes its own way from here."""
        return JointMatcher([part.deep_copy() for part in self.parts], self._single)
