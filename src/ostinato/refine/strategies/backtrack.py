"""Backtracking: take back no more of a draft than its failure needs, and continue from there.

After antislop-sampler, which goes back to the start of a listed phrase, and ROCODE (arXiv
2411.07112), which goes back while a program can still compile. The candidates, cheapest first:

1. another token where a check became impossible;
2. the end of text after a sentence, if everything before it passes;
3. the start of the offending part, then of its sentence;
4. another round.

Required text that is missing is inserted where the model found it most likely.
"""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ostinato.arguments import require_at_least
from ostinato.checks import (
    ends_with_sentence,
    is_unspaced,
    judge_all,
    required_by,
    sentence_ends,
)
from ostinato.journal import Stopped
from ostinato.loop import Action, GoBack, History, OnStop, RequiredText, Text
from ostinato.refine.strategies.base import SteeringContext, Strategy


@dataclass(frozen=True, kw_only=True)
class Backtrack(Strategy):
    """Go back to the last token from which the checks can be met, and forbid the offending one.

    `token_retries`: how often the last token, which has cost nothing yet, is replaced at one
    position before more is taken back. `patience`: the same for an earlier token.
    `max_backtracks`: the limit for a round, not counting replacements of the last token.

    `min_insert_logprob`: required text is inserted only where its first token had at least this
    log-probability; in the second half of the rounds, anywhere.
    """

    kind: ClassVar[str] = "backtrack"
    checks_prefixes: ClassVar[bool] = True

    # In computed tokens per accepted one (docs/log.md): eight retries cost 2.10 on 60 messages, two
    # 2.40. At most 24 backtracks cost 5.68 on 40 harder messages, 8 cost 5.65.
    token_retries: int = 8
    patience: int = 2
    max_backtracks: int = 24
    # A limit of -2.5 cost 1.39, none 1.25: a new round costs more than an unlikely insertion.
    min_insert_logprob: float = -3.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(
            1,
            "Set it to 1 or more.",
            token_retries=self.token_retries,
            patience=self.patience,
            max_backtracks=self.max_backtracks,
        )

    def on_stop(self, context: SteeringContext) -> OnStop:
        """Return the function that answers with the cheapest candidate that was not exhausted."""

        def answer(stopped: Stopped, history: History) -> Action:
            output = history.output
            if not isinstance(output, Text) or not output.tokens:
                return self.another_round(history, {}, stopped.sentence)
            if _costly_backtracks(history) >= self.max_backtracks:
                return self.another_round(history, {}, stopped.sentence)
            inserted_at = _insertion_around(history, history.position - 1)
            if inserted_at is not None and not history.verdicts:
                # A check refused the inserted text midway. Continue here without it: to forbid its
                # first token as well cost 1.21 instead of 1.05 computed tokens per accepted one.
                return GoBack(inserted_at, {"force": []}, stopped.sentence)
            for candidate in _candidates(self, output, stopped, history, context):
                # A server that cannot continue a prefix can still end one: that needs no request.
                if context.can_continue or candidate.edits.get("force") == [context.end]:
                    return GoBack(candidate.to, candidate.edits, stopped.sentence)
            return self.another_round(history, {}, stopped.sentence)

        return answer


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A position to go back to, and the edits that hold from there."""

    to: int
    edits: Mapping[str, object]


def _candidates(
    options: Backtrack,
    output: Text,
    stopped: Stopped,
    history: History,
    context: SteeringContext,
) -> Iterator[_Candidate]:
    """Yield the candidates that were not tried too often, the cheapest first."""
    last = history.position - 1
    start = _failure_start(stopped, history)
    whole = bool(history.verdicts)
    required = _required_text(output, history, context)
    # First: a whole draft that lacks a text can pass in no other way.
    if whole and required is not None:
        yield from _insertions(options, output, required, history, context)
    retries = options.patience if context.pays_per_token else options.token_retries
    if _last_token_to_blame(output, start, whole, context) and _retries_at(history, last) < retries:
        yield _Candidate(last, {"forbid": [output.tokens[last]]})
    yield from _early_ends(output, history, context)
    if required is not None and not whole:
        yield from _insertions(options, output, required, history, context)
    for at in _restart_positions(output, start, last):
        if _retries_at(history, at) < options.patience:
            yield _Candidate(at, {"forbid": [output.tokens[at]]})


def _last_token_to_blame(
    output: Text, start: int | None, whole: bool, context: SteeringContext
) -> bool:
    """Return whether another last token may help.

    In a whole draft it may if no check names an offending part and the text has ended: then the end
    came too soon.
    """
    if whole and not (start is None and output.ended):
        return False
    # A server cannot forbid a token. After a full stop it ended again in 12 of 12 requests.
    return not context.pays_per_token or (start is None and not _ends_with_sentence(output))


def _ends_with_sentence(output: Text) -> bool:
    return output.ended and ends_with_sentence(output)


def _costly_backtracks(history: History) -> int:
    """Count the backtracks of this round that took back more than the last token."""
    return sum(
        isinstance(attempt.action, GoBack)
        and attempt.round == history.lane.round
        and attempt.action.to is not None
        and attempt.action.to < attempt.position - 1
        for attempt in history.attempts
    )


def _retries_at(history: History, at: int) -> int:
    """Count how often this round went back to a position."""
    return history.backtracks(to=at, round=history.lane.round)


def _failure_start(stopped: Stopped, history: History) -> int | None:
    """Return the character index at which the offending part starts, None if no check names one."""
    start = stopped.numbers.get("start")
    if isinstance(start, int):
        return start
    starts = [v.span.start for v in history.verdicts if not v.passed and v.span is not None]
    return min(starts, default=None)


def _restart_positions(output: Text, start: int | None, last: int) -> Iterator[int]:
    """Yield the first token of the offending part, of its sentence, and of the sentences before."""
    at = last if start is None else _token_at(output, start)
    if start is not None:
        yield min(at, last)
    limit = output.starts[at]
    ends = [end for end in sentence_ends(str(output)) if end <= limit]
    # The nearest sentence first: it takes back the least.
    for end in reversed([0, *ends]):
        first = _token_from(output, end)
        if first < at:
            yield first


def _token_at(output: Text, character: int) -> int:
    """Return the index of the token that contains a character."""
    return max(0, bisect_right(output.starts, character) - 1)


def _token_from(output: Text, character: int) -> int:
    """Return the index of the first token that starts at or after a character."""
    return bisect_left(output.starts, character)


def _columns(history: History) -> Mapping[str, object]:
    return history.item if isinstance(history.item, Mapping) else {}


def _early_ends(output: Text, history: History, context: SteeringContext) -> Iterator[_Candidate]:
    """Yield the end of text after the longest prefix of whole sentences that passes every check."""
    if context.end is None:
        return
    text = str(output)
    for end in reversed(sentence_ends(text)):
        at = _token_from(output, end)
        # A sentence that ends within a token cannot be cut there.
        if at >= len(output.tokens) or output.starts[at] != end or _retries_at(history, at):
            continue
        prefix = Text(
            text[:end],
            output.tokens[:at],
            output.starts[:at],
            output.logprobs[:at],
            ended=True,
        )
        # Judged here, before any token is computed for it.
        verdicts = judge_all(context.checks, prefix, _columns(history), context.time_limit)
        if all(verdict.passed for verdict in verdicts):
            yield _Candidate(at, {"force": [context.end]})


# Required text ------------------------------------------------------------------------------------


def _required_text(output: Text, history: History, context: SteeringContext) -> RequiredText | None:
    """Return the first text that a check requires and the output lacks."""
    required = required_by(
        context.checks, output, _columns(history), context.time_limit, context.late
    )
    return next(iter(required), None)


def _insertion_around(history: History, at: int) -> int | None:
    """Return the start of the inserted text that contains a position, None if there is none."""
    return next((start for start, _ in history.lane.edits.covering(at, "force")), None)


def _insertions(
    options: Backtrack,
    output: Text,
    required: RequiredText,
    history: History,
    context: SteeringContext,
) -> Iterator[_Candidate]:
    """Yield the positions for the required text, the most likely first."""
    # Three refusals in a round end its insertions: that cost 2.04 instead of 2.10 (docs/log.md).
    if _refused_insertions(history) > options.patience:
        return
    value = required.texts[0]
    anywhere = history.lane.round >= options.rounds // 2
    positions = [at for at in range(len(output.tokens)) if _between_words(output, at)]
    texts = {at: _spaced(output, at, value) for at in positions}
    logprob = {
        at: _tracked_logprob(output, at, context.tracking_id_of(texts[at])) for at in positions
    }
    # Of equal positions the later one: it keeps more of the draft.
    for at in sorted(positions, key=lambda at: (-logprob[at], -at)):
        likely = anywhere or logprob[at] >= options.min_insert_logprob
        if _retries_at(history, at) or not likely:
            continue
        if required.room is None or _room_left(output, at, value, required.room) >= 0:
            yield _Candidate(at, {"force": list(context.encode(texts[at]))})


def _refused_insertions(history: History) -> int:
    """Count the insertions of this round that a check refused midway."""
    return sum(
        isinstance(attempt.action, GoBack)
        and attempt.round == history.lane.round
        and attempt.action.edits.get("force") == []
        for attempt in history.attempts
    )


def _spaced(output: Text, at: int, value: str) -> str:
    before = str(output)[: output.starts[at]]
    spaced = not before or before[-1].isspace() or is_unspaced(before[-1]) or is_unspaced(value[0])
    return value if spaced else f" {value}"


def _tracked_logprob(output: Text, at: int, tracking_id: int) -> float:
    """Return the log-probability that a text began at a position; -inf if it was not recorded."""
    if at >= len(output.tracked_logprobs):
        return -math.inf
    return output.tracked_logprobs[at].get(tracking_id, -math.inf)


def _room_left(output: Text, at: int, value: str, room: int) -> int:
    """Return how many characters are left after an insertion, with a space before the value."""
    freed = len(output) - output.starts[at]
    # 1 for the space.
    return room + freed - len(value) - 1


def _between_words(output: Text, at: int) -> bool:
    """Return whether text may be inserted before a token: not in a word or after `$`, `(`, `#`."""
    text, start = str(output), output.starts[at]
    if start == 0 or text[start - 1].isspace():
        return True
    before, after = text[start - 1], text[start : start + 1]
    if is_unspaced(before):
        return not unicodedata.combining(after or " ")
    return (before.isalnum() or before in ".,:;!?") and not (after.isalnum() or after in "'’-")
