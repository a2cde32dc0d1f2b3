"""The text of a draft, token by token: which characters each token completes. Knows no model."""

from __future__ import annotations

import codecs
from typing import NamedTuple

_UTF8 = codecs.getincrementaldecoder("utf-8")


class DecodedToken(NamedTuple):
    """What one token adds: the characters that it completes, and the bytes left over for later."""

    text: str
    left: bytes


class Detokenizer:
    """The pieces of a draft; going back drops pieces and leaves no half character behind."""

    def __init__(self) -> None:
        self._pieces: list[DecodedToken] = []
        self._starts: list[int] = []
        self._text = ""

    def __len__(self) -> int:
        return len(self._pieces)

    @property
    def text(self) -> str:
        """All complete characters so far."""
        return self._text

    @property
    def starts(self) -> list[int]:
        """The character at which each token's text begins."""
        return list(self._starts)

    def add(self, token_bytes: bytes) -> str:
        """Append a token and return the characters that it completes."""
        decoder = _UTF8(errors="replace")
        before = self._pieces[-1].left if self._pieces else b""
        text = decoder.decode(before + token_bytes)
        self._pieces.append(DecodedToken(text, decoder.getstate()[0]))
        self._starts.append(len(self._text))
        self._text += text
        return text

    def copy(self) -> Detokenizer:
        """Return a spelling that goes its own way from here."""
        other = Detokenizer()
        other._pieces, other._starts = list(self._pieces), list(self._starts)
        other._text = self._text
        return other

    def crop(self, length: int) -> None:
        """Keep the first `length` tokens."""
        if length < len(self._pieces):
            self._text = self._text[: self._starts[length]]
            del self._pieces[length:], self._starts[length:]
