"""Backtrack: take back no more of a draft than its failure needs, and go on from there.

The order of the steps back, from free to dear: another token where a check became impossible; the
beginning of the offending part; the draft ended after a sentence that passes; the sentence begun
anew; a new round. A value that must be said and was not is offered where the model found it
likeliest. Going back to a phrase's beginning is what antislop-sampler does for word lists, going
back while a program is still possible what ROCODE (arXiv 2411.07112) does for code.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from ostinato.checks import judge_all, required_by
from ostinato.errors import InputError
from ostinato.journal import Stopped
from ostinato.loop import Action, GoBack, History, OnStop, RequiredText, Text
from ostinato.refine.strategies.base import SteeringContext, Strategy

SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")
WHOLE_SENTENCE = re.compile(r"[.!?][\"')\]]*\s*\Z")


@dataclass(frozen=True, kw_only=True)
class Backtrack(Strategy):
    """Go back to the last token from which the checks can be met, forbid the offending one there.

    `token_retries` is how often the last token, which has cost nothing yet, is exchanged at a place before
    more is taken back, `patience` how often an earlier one is; `backs` how often a round goes back
    at most before another is begun, those token_retries aside. A value that must be said is put
    where its first token's log-probability was at least `likely`; in the second half of the rounds
    wherever it was likeliest.
    """

    kind: ClassVar[str] = "backtrack"
    checks_prefixes: ClassVar[bool] = True

    token_retries: int = 8
    patience: int = 2
    max_backtracks: int = 24
    min_insert_logprob: float = -3.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("token_retries", "patience", "max_backtracks"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"backtrack's {name} must be at least 1, got {getattr(self, name)}."
                )

    def on_stop(self, words: SteeringContext) -> OnStop:
        """Return the strategy's function."""

        def answer(stopped: Stopped, history: History) -> Action:
            output = history.output
            if not isinstance(output, Text) or not output.tokens:
                return self.another_round(history, {}, stopped.sentence)
            if _taken_back(history) >= self.max_backtracks:
                return self.another_round(history, {}, stopped.sentence)
            put = _put_at(history, history.position - 1)
            if put is not None and not history.verdicts:  # that was no place for it: go on without
                return GoBack(put, {"force": []}, stopped.sentence)
            for back in _ways_back(self, output, stopped, history, words):
                if words.continues or back.edits.get("force") == [words.end]:
                    return GoBack(back.to, back.edits, stopped.sentence)
            return self.another_round(history, {}, stopped.sentence)

        return answer


def _is_whole_sentence(output: Text) -> bool:
    """Whether a text ended behind a sentence: a server that draws again there ends it again."""
    return output.ended and WHOLE_SENTENCE.search(output) is not None


@dataclass(frozen=True, slots=True)
class _Back:
    to: int
    edits: Mapping[str, object]


def _ways_back(
    options: Backtrack, output: Text, stopped: Stopped, history: History, words: SteeringContext
) -> Iterator[_Back]:
    """Yield the ways back that were not tried too often, the cheapest first."""
    last = history.position - 1
    start = _place(stopped, history)
    whole = bool(history.verdicts)
    wanted = _wanted(output, history, words)
    if whole and wanted is not None:
        yield from _offer(options, output, wanted, history, words)
    to_blame = start is None and output.ended if whole else True
    if words.costly:
        to_blame = to_blame and start is None and not _is_whole_sentence(output)
    if to_blame and _exchanged(history, last) < (
        options.patience if words.costly else options.token_retries
    ):
        # The last token was not run through the network yet: to exchange it is free.
        yield _Back(last, {"forbid": [output.tokens[last]]})
    yield from _cut(output, history, words)
    if wanted is not None and not whole:
        yield from _offer(options, output, wanted, history, words)
    for at in _beginnings(output, start, last):
        if _exchanged(history, at) < options.patience:
            yield _Back(at, {"forbid": [output.tokens[at]]})


def _taken_back(history: History) -> int:
    """Count the goings back of this round that took back more than the last token."""
    return sum(
        isinstance(attempt.answer, GoBack)
        and attempt.round == history.lane.round
        and attempt.answer.to is not None
        and attempt.answer.to < attempt.position - 1
        for attempt in history.attempts
    )


def _exchanged(history: History, at: int) -> int:
    """Count how often a token was exchanged at a position in this round."""
    return history.backtracks(to=at, round=history.lane.round)


def _place(stopped: Stopped, history: History) -> int | None:
    """Return the character at which the offending part begins, where there is one."""
    start = stopped.numbers.get("start")
    if isinstance(start, int):
        return start
    places = [v.span.start for v in history.verdicts if not v.passed and v.span is not None]
    return min(places, default=None)


def _beginnings(output: Text, start: int | None, last: int) -> Iterator[int]:
    """Yield the token that begins the offending part, then the one that begins its sentence."""
    at = last if start is None else _token_at(output, start)
    if start is not None:
        yield min(at, last)
    text = str(output)
    limit = output.starts[at]
    ends = [match.end() for match in SENTENCE_END.finditer(text) if match.end() <= limit]
    for end in reversed([0, *ends]):
        begin = _token_from(output, end)
        if begin < at:
            yield begin


def _token_at(output: Text, character: int) -> int:
    """Return the token whose text holds a character."""
    return max(0, bisect_right(output.starts, character) - 1)


def _token_from(output: Text, character: int) -> int:
    """Return the first token that begins at or after a character."""
    return next((i for i, s in enumerate(output.starts) if s >= character), len(output.tokens))


def _cut(output: Text, history: History, words: SteeringContext) -> Iterator[_Back]:
    """Yield the end of the longest beginning, of whole sentences, that passes every check."""
    if words.end is None:
        return
    item = history.item if isinstance(history.item, Mapping) else {}
    text = str(output)
    for match in reversed(list(SENTENCE_END.finditer(text))):
        at = _token_from(output, match.end())
        if at >= len(output.tokens) or output.starts[at] != match.end() or _exchanged(history, at):
            continue
        beginning = Text(
            text[: match.end()],
            output.tokens[:at],
            output.starts[:at],
            output.logprobs[:at],
            ended=True,
        )
        verdicts = judge_all(words.checks, beginning, item, words.time_limit)
        if all(verdict.passed for verdict in verdicts):
            yield _Back(at, {"force": [words.end]})


def _wanted(output: Text, history: History, words: SteeringContext) -> RequiredText | None:
    item = history.item if isinstance(history.item, Mapping) else {}
    return next(iter(required_by(words.checks, output, item, words.time_limit, words.late)), None)


def _put_at(history: History, at: int) -> int | None:
    """Return where the value begins that the token at a position was put there with."""
    newer: set[int] = set()
    for start, edits in reversed(history.lane.edits):
        tokens = () if start in newer else cast(Sequence[int], edits.get("force", ()))
        if start <= at < start + len(tokens):
            return start
        if "force" in edits:
            newer.add(start)
    return None


def _offer(
    options: Backtrack, output: Text, wanted: RequiredText, history: History, words: SteeringContext
) -> Iterator[_Back]:
    """Yield the places for the value that must be said, where the model found it likeliest."""
    if _refused(history) > options.patience:
        return
    value = wanted.texts[0]
    anywhere = history.lane.round >= options.rounds // 2
    places = [at for at in range(len(output.tokens)) if _between_words(output, at)]
    texts = {at: _spaced(output, at, value) for at in places}
    chance = {at: _chance(output, at, words.sign_of(texts[at])) for at in places}
    for at in sorted(places, key=lambda at: (-chance[at], -at)):
        if _exchanged(history, at) or not (anywhere or chance[at] >= options.min_insert_logprob):
            continue
        if wanted.room is None or _room(output, at, value, wanted) >= 0:
            yield _Back(at, {"force": list(words.encode(texts[at]))})


def _refused(history: History) -> int:
    """Count the values of this round that a check refused while they were put."""
    return sum(
        isinstance(attempt.answer, GoBack)
        and attempt.round == history.lane.round
        and attempt.answer.edits.get("force") == []
        for attempt in history.attempts
    )


def _spaced(output: Text, at: int, value: str) -> str:
    before = str(output)[: output.starts[at]]
    return value if not before or before[-1].isspace() else f" {value}"


def _chance(output: Text, at: int, sign: int) -> float:
    """Return the log-probability with which a value began at a position, if it was noted."""
    return (
        output.tracked_logprobs[at].get(sign, -math.inf)
        if at < len(output.tracked_logprobs)
        else -math.inf
    )


def _room(output: Text, at: int, value: str, wanted: RequiredText) -> int:
    freed = len(output) - output.starts[at]
    return (wanted.room or 0) + freed - len(value) - 1


def _between_words(output: Text, at: int) -> bool:
    """Whether a value may stand before a token: not within a word, nor behind a `$`, `(` or `#`."""
    text, start = str(output), output.starts[at]
    if start == 0 or text[start - 1].isspace():
        return True
    before, after = text[start - 1], text[start : start + 1]
    return (before.isalnum() or before in ".,:;!?") and not (after.isalnum() or after in "'’-")
