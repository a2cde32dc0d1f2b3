"""The protocol of checks, which judge an output: whole, or a prefix while it is generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from ostinato.errors import InputError
from ostinato.journal import JSON, Fields

Item = Mapping[str, object]
"""The columns of the input row that an output belongs to; empty where there is none."""


class Span(NamedTuple):
    """A part of a text, in characters: `text[start:end]`."""

    start: int
    end: int


class Text(str):
    """A generated text that remembers its tokens; everywhere else it is an ordinary string.

    `tokens` are the token ids, `starts` the character at which each token's text begins. `logprobs`
    has the natural logarithm of each token's probability under the model. `ended` is true
    where the last token ended the text (that token's own text is empty). Where the prompt names
    tokens to track, `tracked_logprobs` holds the log-probability of each, by id, at every position.
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
        tracked_logprobs: Sequence[Mapping[int, float]] = (),
    ) -> Text:
        """Make the text with what is known about its tokens."""
        self = super().__new__(cls, text)
        self.tokens, self.starts, self.logprobs = tokens, starts, logprobs
        self.ended, self.tracked_logprobs = ended, tracked_logprobs
        return self


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says of a whole output.

    `score` is in [0, 1], 1 where nothing needs fixing; `message` says what to fix, and `span`
    where in the text, if it is in one place. `error` is the sentence of a check that could not
    judge (it raised, or ran out of time): its verdict has not passed and has no score. In JSON that
    score is null; here it is 0, so that the draft gains nothing by it when drafts are compared.
    `spent` is what judging took, by the names of costs: it is added to what the item has spent.
    Raises `InputError` for a cost that is called as a field.
    `out_of_time`: it is in error since no time was left for it.
    """

    check: str
    passed: bool
    score: float = 1.0
    message: str = ""
    span: Span | None = None
    error: str = ""
    spent: Mapping[str, float] = field(default_factory=dict, hash=False)
    out_of_time: bool = False

    def __post_init__(self) -> None:
        if self.spent and (taken := _NO_COSTS & self.spent.keys()):
            raise InputError(
                f"A cost must have another name than a verdict's own fields, got {min(taken)!r}. "
                "Rename it, for example to 'calls'."
            )

    def to_json(self) -> dict[str, JSON]:
        """Return the verdict as a JSON object; each cost is a key of its own."""
        verdict: dict[str, JSON] = {
            "check": self.check,
            "passed": self.passed,
            "score": None if self.error else self.score,
            "message": self.message,
            "span": list(self.span) if self.span else None,
            "error": self.error,
        }
        verdict |= self.spent
        return verdict | {"out_of_time": True} if self.out_of_time else verdict

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Verdict:
        """Read back what `to_json` wrote."""
        saved = Fields(value)
        span = value.get("span", value.get("place"))  # "place": rows of older versions
        return cls(
            check=saved.text("check"),
            passed=saved.flag("passed"),
            score=0.0 if value["score"] is None else saved.number("score"),
            message=saved.text("message", ""),
            span=Span(*span) if isinstance(span, list | tuple) else None,
            error=saved.text("error", ""),
            # Rare, and bulk jobs read millions of verdicts.
            spent=_costs(value) if len(value) > _ALWAYS else {},
            out_of_time="out_of_time" in value and saved.flag("out_of_time"),
        )


_ALWAYS = 6  # keys, before those of costs
_NO_COSTS = {"check", "passed", "score", "message", "span", "place", "error", "out_of_time"}


def _costs(saved: Mapping[str, object]) -> dict[str, float]:
    """Return the costs among the keys of a saved verdict."""
    fields = Fields(saved)
    costs: dict[str, float] = {}
    for name in saved:
        if name not in _NO_COSTS:
            fields.number(name)  # it raises for anything else
            costs[name] = fields.value[name]  # a whole number stays one
    if "tokens" in costs:  # rows of older versions have no other name for a judge's tokens
        costs.setdefault("judged", costs["tokens"])
    return costs


class PrefixStatus(StrEnum):
    """What a prefix already decides."""

    CERTAIN = "certain"  # every continuation, the empty one too, passes
    POSSIBLE = "possible"
    IMPOSSIBLE = "impossible"  # no continuation passes


class PrefixVerdict(NamedTuple):
    """A check's verdict on a prefix of a text.

    Where the status is impossible, `message` says why, and `span` is the part that cannot stay:
    new text must start at or before `span.start`.
    """

    status: PrefixStatus = PrefixStatus.POSSIBLE
    message: str = ""
    span: Span | None = None


class RequiredText(NamedTuple):
    """What a text must still contain: any one of `texts`, within `room` characters if given."""

    texts: tuple[str, ...]
    room: int | None = None


class Check(Protocol):
    """Judges a whole output; and where it can, a prefix while it is generated.

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
        """Judge a prefix; `PrefixVerdict()`, which is possible, where nothing is known."""
        ...

    def required_text(self, output: object, item: Item) -> RequiredText | None:
        """Return what the text must still contain to pass; None for no particular text."""
        ...
