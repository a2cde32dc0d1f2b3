"""A generation request: one answer, with its own policy of limits, checks, strategy and time.

Requests of every kind share one batch: `Lanes` asks each for its policy. Knows no connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from ostinato.arguments import counted
from ostinato.checks import BaseCheck, Deadline, judge_all
from ostinato.decode import Constraint, SamplingParams
from ostinato.journal import StopKind, Stopped
from ostinato.loop import (
    Accept,
    Action,
    Condition,
    GiveUp,
    History,
    LaneResult,
    OnStop,
    Phrase,
    Policy,
    Predicate,
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


Event = Delta | LaneResult | RequestError
"""A piece of an answer, or its end: the result of its lane, or an error."""

Sink = Callable[[Event], None]


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

    def policy(self) -> Policy:
        """Return what ends, judges and answers its drafts: limits, stops, checks, strategy, time.

        Its checks read the columns of the request, which is the lane's item.
        """
        each: Condition = Predicate(self._stop) | Steps(self.body.max_tokens)
        for phrase in self.body.stop:
            each = each | Phrase(phrase)
        return Policy(
            each=each,
            judge=self.judge if self.checks else None,
            on_stop=accept if self.strategy is None else self._answer(self.strategy),
        )

    @cached_property
    def _prefixes(self) -> StillPassable | None:
        if self.strategy is None or not self.strategy.checks_prefixes:
            return None
        return StillPassable(self.checks, TIME_LIMIT, self.context.late)

    def _stop(self, step: Step) -> Stopped | None:
        """Return why nobody needs another token: no client, no time, or no way to pass a check."""
        if self.canceled:
            return Stopped(StopKind.PERSON, "The client has disconnected.", "canceled")
        if self.out_of_time:
            return Stopped(StopKind.ERROR, self.out_of_time, "check seconds")
        if self._prefixes is None:
            return None
        with self.clock.running():
            return self._prefixes.stop_of(step, self.columns)

    def _answer(self, strategy: Strategy) -> OnStop:
        """Return a strategy that reads the columns, in the time of the checks."""
        choose = strategy.on_stop(self.context)

        def answer(stopped: Stopped, history: History) -> Action:
            if self.canceled:
                return Accept()  # another round would be for nobody
            with self.clock.running():
                action = choose(stopped, replace(history, item=self.columns))
            return GiveUp(self.out_of_time) if self.out_of_time else action

        return answer

    def judge(self, output: object, item: object = None) -> Sequence[Verdict]:
        """Judge the text that the client will get, cut at a stop phrase; `item` is the request."""
        cut = cut_at(output, self.body.stop) if isinstance(output, str) else output
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
            "The checks of a request must take at most "
            f"{counted(self.clock.seconds, 'seconds', 'g')} together, "
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

    def finish(self, result: LaneResult) -> None:
        """Send the rest of the text, and the end."""
        self.text = cut_at(str(result.output), self.body.stop)
        length = 0
        for number, token in enumerate(self.logprobs):
            if length >= len(self.text):
                del self.logprobs[number:]  # beyond a stop phrase
                break
            length += len(token.text)
        self._send_text(len(self.text))
        self.send(result)

    def _send_text(self, end: int) -> None:
        """Send the text up to a character index, if that is new."""
        if end > self._sent_characters:
            tokens = tuple(self.logprobs[self._sent_logprobs :])
            text = self.text[self._sent_characters : end]
            self.send(Delta(text, self._uncounted_tokens, tokens))
            self._sent_characters, self._sent_logprobs = end, len(self.logprobs)
            self._uncounted_tokens = 0


def cut_at(text: str, stops: Sequence[str]) -> str:
    """Return a text up to its first stop phrase, whole if it has none."""
    starts = [text.find(stop) for stop in stops if stop in text]
    return text[: min(starts)] if starts else text


def held_back(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end may belong to a stop phrase: they are not final."""
    cut = cut_at(text, stops)
    if len(cut) < len(text):
        return len(text) - len(cut)
    starts = ((n, stop) for stop in stops for n in range(1, min(len(stop), len(text) + 1)))
    # The longest match: a shorter one may be part of it.
    return max((n for n, stop in starts if text.endswith(stop[:n])), default=0)
