"""Signs that a model games its reward: copied text, and texts that the reference finds unlikely.

Knows no network and no reward.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ostinato.checks import split_words

RUN = 4
"""Words in a row that count as copied where the prompt has the same."""


def copied_share(text: str, prompt: str) -> float:
    """Return the share of a text's words that are in a run of `RUN` words of the prompt.

    Of a shorter text, those of the whole: 1 where the prompt contains it.
    """
    words, source = _words(text), _words(prompt)
    if not words:
        return 0.0
    length = min(RUN, len(words))
    known = {tuple(source[i : i + length]) for i in range(len(source) - length + 1)}
    copied = [False] * len(words)
    for start in range(len(words) - length + 1):
        if tuple(words[start : start + length]) in known:
            copied[start : start + length] = [True] * length
    return sum(copied) / len(words)


def _words(text: str) -> list[str]:
    return [word.casefold() for word in split_words(text)]


def bits_per_character(nats: Iterable[float], texts: Sequence[str]) -> float:
    """Return the cross-entropy of texts in bits per character, of their tokens' negative nats."""
    characters = sum(map(len, texts))
    return -sum(nats) / math.log(2) / max(1, characters)
