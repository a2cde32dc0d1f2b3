"""Pieces of text in the place of tokens: a server says which text comes, not which token it is.

A single character is its own code point; a longer piece has a number above all characters, by a
hash of its text; the end is 0. So a text can be spelled out as positions, and the same piece has the
same number in every session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

END = 0
CHARACTERS = 0x110000


def sign(text: str) -> int:
    """Return the number that stands for a piece of text."""
    if len(text) == 1 and text != "\0":
        return ord(text)
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest()
    return CHARACTERS + int.from_bytes(digest, "little")


def spell(text: str) -> list[int]:
    """Return a text as numbers of single characters."""
    return [sign(character) for character in text]


def character(piece: int) -> str | None:
    """Return the text of a number that stands for a single character; "" for the end."""
    if piece == END:
        return ""
    return chr(piece) if 0 < piece < CHARACTERS else None


def chances(texts: Sequence[str], likeliest: Mapping[str, float]) -> list[tuple[int, float]]:
    """Return the log-probabilities with which texts begin, each by the text's number.

    That of the longest token which begins the text, as a tokenizer takes that one; a text that none
    of them begins is left out.
    """
    found = []
    for text in texts:
        begun = [token for token in likeliest if token and text.startswith(token)]
        if begun:
            found.append((sign(text), likeliest[max(begun, key=len)]))
    return found
