"""From tokens to text, one at a time: which characters each token completes. Knows no model."""

from __future__ import annotations

import codecs
from typing import NamedTuple

_UTF8 = codecs.getincrementaldecoder("utf-8")


class DecodedToken(NamedTuple):
    """What one token adds: the characters it completes, and bytes of a character still open."""

    text: str
    pending: bytes


class Detokenizer:
    """The text of a draft. Cropping it never leaves half a character behind."""

    def __init__(self) -> None:
        self._decoded: list[DecodedToken] = []
        self._starts: list[int] = []
        self._text = ""

    def __len__(self) -> int:
        return len(self._decoded)

    @property
    def text(self) -> str:
        """All complete characters so far."""
        return self._text

    @property
    def starts(self) -> list[int]:
        """The index of the character at which each token's text starts."""
        return list(self._starts)

    def add(self, token_bytes: bytes) -> str:
        """Append a token and return the characters that it completes."""
        # A fresh decoder for each token: the pending bytes are the only state, so that `crop` can
        # return to any token.
        decoder = _UTF8(errors="replace")
        pending = self._decoded[-1].pending if self._decoded else b""
        text = decoder.decode(pending + token_bytes)
        self._decoded.append(DecodedToken(text, decoder.getstate()[0]))
        self._starts.append(len(self._text))
        self._text += text
        return text

    def copy(self) -> Detokenizer:
        """Return an independent copy."""
        other = Detokenizer()
        other._decoded, other._starts = list(self._decoded), list(self._starts)
        other._text = self._text
        return other

    def crop(self, length: int) -> None:
        """Keep the first `length` tokens."""
        if length < len(self._decoded):
            self._text = self._text[: self._starts[length]]
            del self._decoded[length:], self._starts[length:]
