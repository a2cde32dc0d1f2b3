"""The protocol of checks: what judges an output, whole or while it is still being made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from ostinato.journal import JSON

Item = Mapping[str, object]
"""The columns of the input row that an output belongs to; empty where there is none."""


class Span(NamedTuple):
    """A part of a text, in characters: `text[start:end]`."""

    start: int
    end: int


class Text(str):
    """A generated text that remembers its tokens; everywhere else it is an ordinary string.

    `tokens` are the token ids, `starts` the character at which each token's text begins, and
    `logprobs` the natural logarithm of each token's probability under the model. `ended` tells
    whether the last token ended the text (that token's own text is empty). `tracked_logprobs` holds, where
    the prompt named tokens to watch, the log-probability of each (by its id) at every position.
    """

    __slots__ = ("ended", "logprobs", "starts", "tokens", "tracked_logprobs")

    tokens: Sequence[int]
    starts: Sequence[int]
    logprobs: Sequence[float]
    ended: bool
    tracked_logprobs: Sequence[Mapping[int, float]]

    def __new__(
        cls,
        text: str,
        tokens: Sequence[int] = (),
        starts: Sequence[int] = (),
        logprobs: Sequence[float] = (),
        ended: bool = False,
        watched: Sequence[Mapping[int, float]] = (),
    ) -> Text:
        """Make the text with what is known of its tokens."""
        self = super().__new__(cls, text)
        self.tokens, self.starts, self.logprobs = tokens, starts, logprobs
        self.ended, self.tracked_logprobs = ended, watched
        return self


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says of a whole output.

    `score` is in [0, 1], 1 where nothing is to be mended; `message` says what to mend, and `span`
    where in the text, if it is at one place. `error` holds the sentence of a check that could not
    judge (it raised, or its time ran out): such a verdict is not passed and has no score. In JSON
    its score is null; here it is 0, so that where drafts are compared nothing speaks for it.
    `tokens` are those that a model read and wrote to judge, `cost` is their price.
    """

    check: str
    passed: bool
    score: float = 1.0
    message: str = ""
    span: Span | None = None
    error: str = ""
    tokens: int = 0
    cost: float = 0.0

    def to_json(self) -> dict[str, JSON]:
        """Return the verdict as a JSON object; `tokens` and `cost` where there are any."""
        told: dict[str, JSON] = {
            "check": self.check,
            "passed": self.passed,
            "score": None if self.error else self.score,
            "message": self.message,
            "span": list(self.span) if self.span else None,
            "error": self.error,
        }
        taken: dict[str, JSON] = {"tokens": self.tokens, "cost": self.cost}
        return told | {name: amount for name, amount in taken.items() if amount}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Verdict:
        """Read back what `to_json` wrote."""
        span, score = value.get("span"), value["score"]
        return cls(
            check=str(value["check"]),
            passed=bool(value["passed"]),
            score=0.0 if score is None else float(score),  # type: ignore[arg-type]
            message=str(value.get("message", "")),
            span=Span(*span) if isinstance(span, list | tuple) else None,
            error=str(value.get("error", "")),
            tokens=int(value.get("tokens", 0)),  # type: ignore[call-overload]
            cost=float(value.get("cost", 0.0)),  # type: ignore[arg-type]
        )


class PrefixStatus(StrEnum):
    """What a beginning already settles."""

    CERTAIN = "certain"  # every continuation, the empty one too, passes
    POSSIBLE = "possible"
    IMPOSSIBLE = "impossible"  # no continuation passes


class PrefixVerdict(NamedTuple):
    """A check's verdict on the beginning of a text.

    Where the status is impossible, `message` says why and `span` is the part that cannot be
    kept: what is generated anew must begin at or before `place.start`.
    """

    status: PrefixStatus = PrefixStatus.POSSIBLE
    message: str = ""
    span: Span | None = None


class RequiredText(NamedTuple):
    """What a text must still say: any one of `texts`; `room` is how many characters still fit."""

    texts: tuple[str, ...]
    room: int | None = None


class Check(Protocol):
    """Judges an output, whole; and where it can, while it is being made.

    A prefix verdict never contradicts the whole verdict: after `impossible` no continuation passes,
    after `certain` every one does.
    """

    @property
    def name(self) -> str:
        """The name that verdicts and reports show."""
        ...

    def judge(self, output: object, item: Item) -> Verdict:
        """Judge a whole output."""
        ...

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Judge a beginning; `PrefixVerdict()` where nothing can be said."""
        ...

    def wants(self, output: object, item: Item) -> RequiredText | None:
        """Return what the text must still say to pass, or None where it lacks nothing sayable."""
        ...
