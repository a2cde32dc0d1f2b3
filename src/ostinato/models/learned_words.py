"""Which tokens of a rendered conversation a model should learn. Knows no template."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ostinato.errors import InputError
from ostinato.models.traced_encoder import Encoded
from ostinato.models.traced_text import GENERATED, TracedText


class _Turn(NamedTuple):
    """The assistant's words of one turn, and where the text of another message follows."""

    start: int
    end: int
    next: int


def learned_tokens(
    text: TracedText,
    encoded: Encoded,
    messages: Sequence[Mapping[str, Any]],
    ends: Collection[int],
    otherwise: Collection[int] = (),
) -> list[bool]:
    """Return for each token of `text` whether it is learned.

    `ends` are the tokens that end a turn; `otherwise` those that end it where none of these does.
    Raises `InputError` where `text` shows no word of the assistant.
    """
    generated = [span for span in text.spans if span.source == GENERATED and span.end > span.start]
    if generated:
        return _covering(encoded, [(span.start, span.end) for span in generated], len(text))
    found, others = _EndTokens(encoded, ends), _EndTokens(encoded, otherwise)
    words = [
        (turn.start, found.after(turn) or others.after(turn) or turn.end)
        for turn in _turns(text, messages)
    ]
    return _covering(encoded, words, len(text))


def _turns(text: TracedText, messages: Sequence[Mapping[str, Any]]) -> list[_Turn]:
    """Return where the assistant's turns are in the text, by the messages its words are from."""
    theirs = {i for i, message in enumerate(messages) if message["role"] == "assistant"}
    places = sorted(span for span in text.spans if span.source != GENERATED)
    turns: list[_Turn] = []
    source = None  # of the words before
    for start, end, of in places:
        if of == source and of in theirs:
            turns[-1] = turns[-1]._replace(end=max(end, turns[-1].end))
        else:
            if turns and turns[-1].next > start:
                turns[-1] = turns[-1]._replace(next=start)
            if of in theirs:
                turns.append(_Turn(start, end, len(text)))
        source = of
    if not turns and any(messages[i]["content"].strip() for i in theirs):
        raise InputError(
            "the chat template must show the assistant's words, got a text without them. "
            "Use a template that writes each message's content as it is."
        )
    return turns


def control_after_words(
    text: TracedText,
    encoded: Encoded,
    messages: Sequence[Mapping[str, Any]],
    special: Collection[int],
) -> list[int]:
    """Return the control token behind the last words of a conversation: it ends a turn."""
    *_, last = _turns(text, messages)
    tokens = zip(encoded.ids, encoded.places, strict=True)
    return [i for i, (start, _) in tokens if start >= last.end and i in special][:1]


class _EndTokens:
    """Where the tokens are that end a turn."""

    def __init__(self, encoded: Encoded, ends: Collection[int]) -> None:
        tokens = zip(encoded.ids, encoded.places, strict=True)
        self._places = sorted(place for token, place in tokens if token in ends)

    def after(self, turn: _Turn) -> int | None:
        """Return the place after the token that ends a turn, None where there is none."""
        at = bisect_left(self._places, (turn.end, 0))
        ends = at < len(self._places) and self._places[at][0] < turn.next
        return self._places[at][1] if ends else None


def _covering(encoded: Encoded, spans: Sequence[tuple[int, int]], length: int) -> list[bool]:
    """Return for each token whether it covers a character of `spans`, in a text of `length`."""
    inside = bytearray(length)
    for start, end in spans:
        inside[start:end] = b"\1" * (end - start)
    return [1 in inside[first:last] for first, last in encoded.places]
