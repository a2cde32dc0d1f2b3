"""Which tokens of a rendered conversation a model should learn. Knows no template."""

from __future__ import annotations

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
    learned = [False] * len(encoded.ids)
    generated = [span for span in text.spans if span.source == GENERATED and span.end > span.start]
    for span in generated:
        _mark(learned, encoded, span.start, span.end)
    if generated:
        return learned
    turns = _turns(text, messages)
    for turn in turns:
        end = _turn_end(encoded, turn, ends) or _turn_end(encoded, turn, otherwise) or turn.end
        _mark(learned, encoded, turn.start, end)
    return learned


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
    return [token for token, _ in _between(encoded, last.end, len(text)) if token in special][:1]


def _turn_end(encoded: Encoded, turn: _Turn, ends: Collection[int]) -> int | None:
    """Return the place after the token that ends a turn, None where there is none."""
    found = _between(encoded, turn.end, turn.next)
    return next((end for token, end in found if token in ends), None)


def _between(encoded: Encoded, start: int, end: int) -> list[tuple[int, int]]:
    """Return the tokens that begin between two places, each with its end."""
    pairs = zip(encoded.ids, encoded.places, strict=True)
    return [(token, place[1]) for token, place in pairs if start <= place[0] < end]


def _mark(learned: list[bool], encoded: Encoded, start: int, end: int) -> None:
    """Mark the tokens that cover any character between two places."""
    for i, (first, last) in enumerate(encoded.places):
        if first < end and last > start:
            learned[i] = True
