"""Numbers for pieces of text, used as token ids: a server sends text, not tokens.

A single character is its own code point. A longer piece has a number above all code points, by a
hash of its text, so it is the same in every session. The end of text is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

END = 0
CODE_POINTS = 0x110000


def text_id(text: str) -> int:
    """Return the number of a piece of text."""
    if len(text) == 1 and text != "\0":  # the code point of "\0" is END
        return ord(text)
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest()
    return CODE_POINTS + int.from_bytes(digest, "little")


def character_ids(text: str) -> list[int]:
    """Return a text as the numbers of its characters, from which it can be written again."""
    return [text_id(character) for character in text]


def character(number: int) -> str | None:
    """Return the character of a number, "" for the end, None for a longer piece's number."""
    if number == END:
        return ""
    return chr(number) if 0 < number < CODE_POINTS else None


def start_logprobs(
    texts: Sequence[str], top_logprobs: Mapping[str, float]
) -> list[tuple[int, float]]:
    """Return (number, log-probability) of each text that one of the most likely tokens starts.

    The longest such token counts, as a tokenizer would take that one.
    """
    found = []
    for text in texts:
        tokens = [token for token in top_logprobs if token and text.startswith(token)]
        if tokens:
            found.append((text_id(text), top_logprobs[max(tokens, key=len)]))
    return found
