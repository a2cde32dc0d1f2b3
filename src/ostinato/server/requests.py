"""An order: one answer that was asked for, its own stop, checks and strategy. Knows no connection.

`Lanes` has one condition, one judge and one strategy for all of its lanes; those here look at the
order in each lane, so that orders of every kind share one batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

from ostinato.checks import OVER, BaseCheck, Deadline, judge_all
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

TIME_LIMIT = 2.0  # seconds for one judgment: all orders wait for it
CHECK_SECONDS = 3.0  # for all checks of a request: so long all others wait for them at most

UNTOLD = "The check could not judge. The log of the one who serves says why."

log = logging.getLogger("ostinato.server")


class TopLogprob(NamedTuple):
    """A token that could have stood at a place; a control token has no bytes."""

    text: str
    bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    """A token that stands: the text it completes, and the likeliest ones at its place."""

    text: str
    logprob: float
    top_logprobs: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that stands: it will not be taken back. `tokens` are told where they are asked for.

    `count` is how many tokens were written since the last piece.
    """

    text: str
    count: int = 0
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The end: the item's row as `Lanes` gives it, or an error."""

    row: Mapping[str, Any] = field(default_factory=dict)
    error: RequestError | None = None


Sink = Callable[[Delta | Finished], None]


@dataclass(eq=False, kw_only=True)
class GenerationRequest:
    """One answer. `tokens` is its prompt, `draws` the seed and key of its random numbers.

    Without a `strategy` nothing is taken back: a form alone is judged at the end, and kept to by
    the `constraint`.
    `clock` runs while its checks are asked. `tell` is called with its pieces and its end, in the
    thread that writes. Set `canceled` and it leaves at its next token.
    """

    key: str
    request: ApiRequest
    tokens: Sequence[int]
    sampling: SamplingParams
    draws: tuple[int, str]
    checks: tuple[BaseCheck, ...]
    strategy: Strategy | None
    words: SteeringContext
    send: Sink
    clock: Deadline
    columns: Mapping[str, object] = field(default_factory=dict)
    constraint: Constraint | None = None
    canceled: bool = False
    text: str = ""
    sent: int = 0
    told: list[Token] = field(default_factory=list)
    handed: int = 0  # how many of them were sent
    uncounted: int = 0  # tokens that no piece has counted yet

    def __post_init__(self) -> None:
        each: Condition = Steps(self.request.max_tokens)
        for phrase in self.request.stop:
            each = each | Phrase(phrase)
        if self.strategy is not None and self.strategy.checks_prefixes:
            each = each | StillPassable(self.checks, TIME_LIMIT, self.words.late)
        self.each = each
        self.on_stop: OnStop = (
            accept if self.strategy is None else self.strategy.on_stop(self.words)
        )

    def judge(self, output: object) -> Sequence[Verdict]:
        """Judge what will be given out."""
        cut = cut_at(output, self.request.stop)
        with self.clock.running():
            verdicts = judge_all(self.checks, cut, self.columns, TIME_LIMIT)
        return list(map(self._told, self.checks, verdicts))

    def _told(self, check: BaseCheck, verdict: Verdict) -> Verdict:
        """Return what a client may know: an error of the server's own check may name secrets."""
        of_request = self.request.checks is not None or check is self.request.form
        if verdict.error in ("", OVER) or of_request:
            return verdict
        log.warning("The check '%s' could not judge: %s", check.name, verdict.error)
        return replace(verdict, error=UNTOLD, message="")

    @property
    def out_of_time(self) -> str:
        """The sentence that its checks took too long; empty where they did not."""
        if not self.clock.is_over:
            return ""
        return (
            f"The checks together took longer than they may: {self.clock.seconds:g} seconds for a "
            "request. Use simpler patterns, or fewer checks."
        )

    def note(self, token: Token) -> None:
        """Take a token; tell what of the text stands: nothing that a strategy can take back."""
        if self.strategy is not None:
            return
        self.text += token.text
        self.uncounted += 1
        if self.request.logprobs:
            self.told.append(token)
        self._tell(len(self.text) - held_back(self.text, self.request.stop))

    def finish(self, row: Mapping[str, Any]) -> None:
        """Tell the rest of the text, and the end."""
        self.text = str(cut_at(str(row["output"]), self.request.stop))
        length = 0
        for number, token in enumerate(self.told):
            if length >= len(self.text):
                del self.told[number:]  # behind a stop phrase
                break
            length += len(token.text)
        self._tell(len(self.text))
        self.send(Finished(row))

    def _tell(self, upto: int) -> None:
        if upto > self.sent:
            tokens = tuple(self.told[self.handed :])
            self.send(Delta(self.text[self.sent : upto], self.uncounted, tokens))
            self.sent, self.handed, self.uncounted = upto, len(self.told), 0


def cut_at(output: object, stops: Sequence[str]) -> object:
    """Return a text up to the first of its stop phrases; itself where there is none."""
    if not isinstance(output, str):
        return output
    places = [output.find(stop) for stop in stops if stop in output]
    return output[: min(places)] if places else output


def held_back(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end could be the beginning of a stop phrase."""
    cut = cut_at(text, stops)
    assert isinstance(cut, str)
    if len(cut) < len(text):
        return len(text) - len(cut)
    begun = ((n, stop) for stop in stops for n in range(1, min(len(stop), len(text) + 1)))
    return max((n for n, stop in begun if text.endswith(stop[:n])), default=0)


class RequestCondition(Condition):
    """Each order's own condition. Its state holds that condition too, and is never saved."""

    def observe(self, state: JSON, step: Step) -> tuple[JSON, Stopped | None]:
        """Observe with the order's condition, over the order's columns."""
        order = step.item
        assert isinstance(order, GenerationRequest)
        if order.canceled:
            return state, Stopped(StopKind.PERSON, "The one who asked has gone.", "canceled")
        if order.out_of_time:
            return state, Stopped(StopKind.ERROR, order.out_of_time, "check seconds")
        inner = _inner(state, order.each)
        own = Step(step.tick, step.position, step.report, lambda: step.output, order.columns)
        with order.clock.running():
            after, stopped = order.each.observe(inner, own)
        return _held(order.each, after), stopped

    def back(self, then: JSON, now: JSON) -> JSON:
        """Go back in the order's condition."""
        each, inner = cast(tuple[Condition, JSON], now)
        return _held(each, each.back(_inner(then, each), inner))

    def charge(self, state: JSON, spent: Mapping[str, float]) -> JSON:
        """Charge the order's condition."""
        if state is None:  # it was canceled before its first step
            return None
        each, inner = cast(tuple[Condition, JSON], state)
        return _held(each, each.charge(inner, spent))

    def exhausted(self, state: JSON) -> Stopped | None:
        """Ask the order's condition."""
        if state is None:
            return None
        each, inner = cast(tuple[Condition, JSON], state)
        return each.exhausted(inner)

    def __str__(self) -> str:
        return "OwnEach()"


def _inner(state: JSON, each: Condition) -> JSON:
    return each.begin() if state is None else cast(tuple[Condition, JSON], state)[1]


def _held(each: Condition, inner: JSON) -> JSON:
    return cast(JSON, (each, inner))


def judge_request(output: object, item: object) -> Sequence[Verdict]:
    """Judge by the order's checks."""
    assert isinstance(item, GenerationRequest)
    return item.judge(output) if item.checks else ()


def answer_request(stopped: Stopped, history: History) -> Action:
    """Answer by the order's strategy."""
    order = history.item
    assert isinstance(order, GenerationRequest)
    if order.canceled:
        return Accept()
    with order.clock.running():
        answer = order.on_stop(stopped, replace(history, item=order.columns))
    return GiveUp(order.out_of_time) if order.out_of_time else answer
