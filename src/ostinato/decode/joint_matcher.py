"""Several constraints at once, each followed by its own matcher. Knows no model and no sampling.

The automaton of an intersection has up to the product of its parts' states, and llguidance fails
for good once it grows too large; separate parts have the sum. In return, masks alone cannot show
whether tokens that each part allows lead to a text in all languages. That is what the search in
`ostinato.decode.completion_search` is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llguidance import LLMatcher


class JointMatcher:
    """Has the methods of one `LLMatcher`, for the intersection of its parts' languages."""

    def __init__(self, parts: Sequence[LLMatcher], single_bytes: Sequence[int]) -> None:
        self.parts = tuple(parts)
        self._single_bytes = single_bytes

    def compute_bitmask(self) -> bytes:
        """Return a bit for each token: set if every part allows it next."""
        masks = [np.frombuffer(part.compute_bitmask(), np.uint8) for part in self.parts]
        joint = np.bitwise_and.reduce(masks)
        return bytes(joint if joint.any() else self._validated_mask(masks))

    def _validated_mask(self, masks: Sequence[np.ndarray[tuple[int], np.dtype[np.uint8]]]) -> bytes:
        """Return a joint mask by asking every part about a few tokens, one by one."""
        # Where only one text can follow, llguidance allows just its longest token, and the longest
        # tokens of two parts differ although their texts agree. Single bytes are common to both.
        in_any = np.unpackbits(np.bitwise_or.reduce(masks), bitorder="little")
        joint = np.zeros_like(in_any)
        allowed = np.flatnonzero(in_any)
        longest = allowed.tolist() if len(allowed) <= len(masks) else []
        for token in {*self._single_bytes, *longest}:
            joint[token] = self.validate_tokens([token])
        return bytes(np.packbits(joint, bitorder="little"))

    def state(self) -> bytes:
        """Return a key of the state: equal where every part allows the same tokens."""
        return b"".join(part.compute_bitmask() for part in self.parts)

    def accepting_parts(self) -> int:
        """Return how many parts accept the text as it is."""
        return sum(part.is_accepting() for part in self.parts)

    def consume_token(self, token: int) -> bool:
        """Append a token that every part allows."""
        # A list, not a generator: every part must be advanced, also after one has failed.
        return all([part.consume_token(token) for part in self.parts])

    def consume_tokens(self, tokens: Sequence[int]) -> bool:
        """Append tokens that every part allows."""
        return all([part.consume_tokens(list(tokens)) for part in self.parts])

    def try_consume_tokens(self, tokens: Sequence[int]) -> int:
        """Append the leading tokens that every part accepts; return their number."""
        tokens, consumed = list(tokens), []
        for part in self.parts:
            consumed.append(part.try_consume_tokens(tokens))
            tokens = tokens[: consumed[-1]]
        for part, count in zip(self.parts, consumed, strict=True):
            part.rollback(count - len(tokens))
        return len(tokens)

    def validate_tokens(self, tokens: Sequence[int]) -> int:
        """Return how many leading tokens every part accepts; nothing is appended."""
        return min(part.validate_tokens(list(tokens)) for part in self.parts)

    def rollback(self, count: int) -> bool:
        """Remove the last `count` tokens."""
        return all([part.rollback(count) for part in self.parts])

    def is_accepting(self) -> bool:
        """Return whether every part accepts the text as it is."""
        return all(part.is_accepting() for part in self.parts)

    def is_stopped(self) -> bool:
        """Return whether some part lets nothing follow."""
        return any(part.is_stopped() for part in self.parts)

    def is_error(self) -> bool:
        """Return whether the automaton of some part grew too large."""
        return any(part.is_error() for part in self.parts)

    def get_error(self) -> str:
        """Return the error of the first broken part; empty without one."""
        return next((part.get_error() for part in self.parts if part.is_error()), "")

    def deep_copy(self) -> JointMatcher:
        """Return an independent copy."""
        return JointMatcher([part.deep_copy() for part in self.parts], self._single_bytes)
