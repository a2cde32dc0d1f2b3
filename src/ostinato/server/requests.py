"""A generation request: one answer, with its own limits, checks and strategy. Knows no connection.

`Lanes` has one condition, one judge and one strategy for all of its lanes. Those in this module
delegate to the request in each lane, so that requests of every kind share one batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

from ostinato.checks import BaseCheck, Deadline, judge_all
from ostinato.decode import Constraint, SamplingParams
from ostinato.journal import JSON, StopKind, Stopped
from ostinato.loop import (
    Accept,
    Action,
    Condition,
    GiveUp,
    History,
    OnStop,
    Phrase,
    Step,
    Steps,
    Verdict,
    accept,
)
from ostinato.refine import SteeringContext, StillPassable, Strategy
from ostinato.server.body_fields import RequestError
from ostinato.server.protocol import ApiRequest

TIME_LIMIT = 2.0  # seconds for one judgment: all other requests wait for it
CHECK_SECONDS = 3.0  # for all judgments of a request together

HIDDEN_ERROR = "The check could not judge. The server's log has the error."

log = logging.getLogger("ostinato.server")


class TopLogprob(NamedTuple):
    """One of the most likely tokens at a position; a control token has no bytes."""

    text: str
    bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    """A generated token: the text it completes, its own bytes, and what else was likely there.

    A token of half a character completes no text. An end of text has no bytes.
    """

    text: str
    bytes: bytes
    logprob: float
    top_logprobs: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that is final: it will not be taken back.

    `count` is the number of tokens since the last delta, `tokens` those with log-probabilities, if
    the request asks for these.
    """

    text: str
    count: int = 0
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer: its row from `Lanes`, or an error."""

    row: Mapping[str, Any] = field(default_factory=dict)
    error: RequestError | None = None


Sink = Callable[[Delta | Finished], None]


@dataclass(eq=False, kw_only=True)
class GenerationRequest:
    """One answer to generate; a request's body asks for `n` of them.

    `tokens` is the prompt, `draws` the seed and the key of its random numbers. Without a `strategy`
    nothing is taken back: a schema alone is enforced by `constraint`, and judged at the end.

    `clock` runs while the checks judge. `send` is called with each delta and the end, in the
    generating thread. After `canceled` is set, the request leaves its slot at its next token.
    """

    key: str
    body: ApiRequest
    tokens: Sequence[int]
    sampling: SamplingParams
    draws: tuple[int, str]
    checks: tuple[BaseCheck, ...]
    strategy: Strategy | None
    context: SteeringContext
    send: Sink
    clock: Deadline
    columns: Mapping[str, object] = field(default_factory=dict)
    constraint: Constraint | None = None
    canceled: bool = False
    text: str = ""
    logprobs: list[Token] = field(default_factory=list)
    _sent_characters: int = field(default=0, init=False)
    _sent_logprobs: int = field(default=0, init=False)
    _uncounted_tokens: int = field(default=0, init=False)  # generated since the last delta

    def __post_init__(self) -> None:
        each: Condition = Steps(self.body.max_tokens)
        for phrase in self.body.stop:
            each = each | Phrase(phrase)
        if self.strategy is not None and self.strategy.checks_prefixes:
            each = each | StillPassable(self.checks, TIME_LIMIT, self.context.late)
        self.each = each
        self.on_stop: OnStop = (
            accept if self.strategy is None else self.strategy.on_stop(self.context)
        )

    def judge(self, output: object) -> Sequence[Verdict]:
        """Judge the text that the client will get, cut at a stop phrase."""
        # Checks judge what the client sees: the text without its stop phrase.
        cut = cut_at(output, self.body.stop)
        with self.clock.running():
            verdicts = judge_all(self.checks, cut, self.columns, TIME_LIMIT)
        return list(map(self._without_secrets, self.checks, verdicts))

    def _without_secrets(self, check: BaseCheck, verdict: Verdict) -> Verdict:
        """Hide the error of the operator's check: it may contain paths, keys or addresses."""
        of_client = self.body.checks is not None or check is self.body.response_format
        if not verdict.error or verdict.out_of_time or of_client:
            return verdict
        log.warning("The check '%s' could not judge: %s", check.name, verdict.error)
        return replace(verdict, error=HIDDEN_ERROR, message="")

    @property
    def out_of_time(self) -> str:
        """The sentence that the checks took too long; empty if they did not."""
        if not self.clock.is_over:
            return ""
        return (
            f"The checks of a request must take at most {self.clock.seconds:g} seconds together, "
            "and took longer. Use simpler patterns, or fewer checks."
        )

    def add_token(self, token: Token) -> None:
        """Add a token, and send the text that is final: nothing that a strategy can take back."""
        if self.strategy is not None:
            return
        self.text += token.text
        self._uncounted_tokens += 1
        if self.body.logprobs:
            self.logprobs.append(token)
        self._send_text(len(self.text) - held_back(self.text, self.body.stop))

    def finish(self, row: Mapping[str, Any]) -> None:
        """Send the rest of the text, and the end."""
        self.text = str(cut_at(str(row["output"]), self.body.stop))
        length = 0
        for number, token in enumerate(self.logprobs):
            if length >= len(self.text):
                del self.logprobs[number:]  # beyond a stop phrase
                break
            length += len(token.text)
        self._send_text(len(self.text))
        self.send(Finished(row))

    def _send_text(self, end: int) -> None:
        """Send the text up to a character index, if that is new."""
        if end > self._sent_characters:
            tokens = tuple(self.logprobs[self._sent_logprobs :])
            text = self.text[self._sent_characters : end]
            self.send(Delta(text, self._uncounted_tokens, tokens))
            self._sent_characters, self._sent_logprobs = end, len(self.logprobs)
            self._uncounted_tokens = 0


def cut_at(output: object, stops: Sequence[str]) -> object:
    """Return a text up to its first stop phrase, whole if it has none."""
    if not isinstance(output, str):
        return output
    starts = [output.find(stop) for stop in stops if stop in output]
    return output[: min(starts)] if starts else output


def held_back(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end may belong to a stop phrase: they are not final."""
    cut = cut_at(text, stops)
    assert isinstance(cut, str)
    if len(cut) < len(text):
        return len(text) - len(cut)
    starts = ((n, stop) for stop in stops for n in range(1, min(len(stop), len(text) + 1)))
    # The longest match: a shorter one may be part of it.
    return max((n for n, stop in starts if text.endswith(stop[:n])), default=0)


# One condition, one judge, one strategy for all lanes ---------------------------------------------


class RequestCondition(Condition):
    """Delegates to the condition of the request in each lane.

    Its state holds that condition, too, which is not JSON: a server's loop has no journal.
    """

    def observe(self, state: JSON, step: Step) -> tuple[JSON, Stopped | None]:
        """Observe a step with the request's condition; its checks read the request's columns."""
        request = step.item
        assert isinstance(request, GenerationRequest)
        if request.canceled:
            return state, Stopped(StopKind.PERSON, "The client has disconnected.", "canceled")
        if request.out_of_time:
            return state, Stopped(StopKind.ERROR, request.out_of_time, "check seconds")
        inner = _inner(state, request.each)
        # Lazily: most conditions never look at the output.
        own = Step(step.tick, step.position, step.report, lambda: step.output, request.columns)
        with request.clock.running():
            after, stopped = request.each.observe(inner, own)
        return _with_condition(request.each, after), stopped

    def back(self, then: JSON, now: JSON) -> JSON:
        """Go back in the request's condition."""
        each, inner = _unpack(now)
        return _with_condition(each, each.back(_inner(then, each), inner))

    def charge(self, state: JSON, spent: Mapping[str, float]) -> JSON:
        """Charge the request's condition with what was spent."""
        if state is None:  # canceled before its first step
            return None
        each, inner = _unpack(state)
        return _with_condition(each, each.charge(inner, spent))

    def exhausted(self, state: JSON) -> Stopped | None:
        """Return why the request's condition allows no further step, or None."""
        if state is None:
            return None
        each, inner = _unpack(state)
        return each.exhausted(inner)

    def __str__(self) -> str:
        return "RequestCondition()"


def _inner(state: JSON, each: Condition) -> JSON:
    return each.initial_state() if state is None else _unpack(state)[1]


def _unpack(state: JSON) -> tuple[Condition, JSON]:
    return cast(tuple[Condition, JSON], state)


def _with_condition(each: Condition, inner: JSON) -> JSON:
    return cast(JSON, (each, inner))


def judge_request(output: object, item: object) -> Sequence[Verdict]:
    """Judge an output by the checks of its request."""
    assert isinstance(item, GenerationRequest)
    return item.judge(output) if item.checks else ()


def answer_request(stopped: Stopped, history: History) -> Action:
    """Answer a stop by the strategy of its request."""
    request = history.item
    assert isinstance(request, GenerationRequest)
    if request.canceled:
        return Accept()  # another round would be for nobody
    with request.clock.running():
        answer = request.on_stop(stopped, replace(history, item=request.columns))
    return GiveUp(request.out_of_time) if request.out_of_time else answer
