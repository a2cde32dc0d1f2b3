"""How likely a text begins at a place, by the likeliest tokens that a server tells there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ostinato.servers.pieces import sign


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
