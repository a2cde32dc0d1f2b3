"""A job in numbers: how many items were accepted, at what cost, and why items stopped. Knows no
page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ostinato.journal import JSON, StopKind
from ostinato.loop import OUT_OF_ROUNDS
from ostinato.refine.results import Result


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of items and tokens over the results of a job; `items` includes unfinished ones."""

    items: int = 0
    first: int = 0
    revised: int = 0
    given_up: int = 0
    errors: int = 0
    ready: int = 0
    tokens_accepted: int = 0
    tokens_computed: int = 0
    tokens_discarded: int = 0
    tokens_prompt: int = 0
    tokens_judged: int = 0

    @property
    def accepted(self) -> int:
        """The number of accepted replies, including the revised ones."""
        return self.first + self.revised

    @property
    def finished(self) -> int:
        """The number of items with a result, accepted or not."""
        return self.accepted + self.given_up + self.errors

    @property
    def unfinished(self) -> int:
        """The number of items without a result."""
        return self.items - self.finished

    @property
    def per_accepted(self) -> float | None:
        """Tokens computed for each token of an accepted reply; None if there is none."""
        if not self.tokens_accepted:
            return None
        return self.tokens_computed / self.tokens_accepted

    def to_json(self) -> dict[str, JSON]:
        """Return the numbers as a flat JSON object."""
        per = self.per_accepted
        return {
            "items": self.items,
            "accepted": self.accepted,
            "accepted_first": self.first,
            "revised": self.revised,
            "given_up": self.given_up,
            "errors": self.errors,
            "unfinished": self.unfinished,
            "ready": self.ready,
            "tokens_accepted": self.tokens_accepted,
            "tokens_computed": self.tokens_computed,
            "tokens_discarded": self.tokens_discarded,
            "tokens_prompt": self.tokens_prompt,
            "tokens_judged": self.tokens_judged,
            "tokens_per_accepted": None if per is None else round(per, 4),
        }


class SummaryTally:
    """Adds up a job's numbers, result by result."""

    def __init__(self) -> None:
        self._outcomes = dict.fromkeys(("accepted", "revised", "given up", "error"), 0)
        self._ready = 0
        self._tokens = dict.fromkeys(("accepted", "computed", "discarded", "prompt", "judged"), 0)

    def add(self, result: Result) -> None:
        """Count a result."""
        self._outcomes[result.outcome] += 1
        self._ready += result.source != "model"
        for name in self._tokens:
            self._tokens[name] += getattr(result.tokens, name)

    def summary(self, items: int | None = None) -> Summary:
        """Return the numbers; `items` is the number of items, if some are unfinished."""
        outcomes = self._outcomes
        return Summary(
            items=sum(outcomes.values()) if items is None else items,
            first=outcomes["accepted"],
            revised=outcomes["revised"],
            given_up=outcomes["given up"],
            errors=outcomes["error"],
            ready=self._ready,
            **{f"tokens_{name}": count for name, count in self._tokens.items()},
        )


def summarize(results: Iterable[Result], items: int | None = None) -> Summary:
    """Return a job's numbers; `items` is the number of its items, if some are unfinished."""
    tally = SummaryTally()
    for result in results:
        tally.add(result)
    return tally.summary(items)


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why some items stopped: outcome, stop kind, cause, an example sentence, and the count."""

    outcome: str
    kind: StopKind
    cause: str
    example: str
    count: int

    def to_json(self) -> dict[str, JSON]:
        """Return the reason as a JSON object."""
        return {
            "outcome": self.outcome,
            "kind": self.kind.value,
            "why": self.cause,
            "example": self.example,
            "count": self.count,
        }


class ReasonTally:
    """Groups items by why they stopped, result by result: a number and an example of each."""

    def __init__(self) -> None:
        self._groups: dict[tuple[bool, StopKind, str], Reason] = {}
        self._counts = Counter[tuple[bool, StopKind, str]]()

    def add(self, result: Result) -> None:
        """Count a result."""
        key = (not result.accepted, result.stopped.kind, _cause_of(result))
        self._counts[key] += 1
        if key not in self._groups:
            self._groups[key] = Reason(
                outcome="accepted" if result.accepted else result.outcome,
                kind=result.stopped.kind,
                cause=key[2],
                # A sentence about passing would only repeat the cause.
                example="" if result.accepted else result.stopped.sentence,
                count=0,
            )

    def reasons(self) -> list[Reason]:
        """Return the reasons: of accepted items first, then by frequency."""
        found = [replace(one, count=self._counts[key]) for key, one in self._groups.items()]
        return sorted(found, key=lambda reason: (reason.outcome != "accepted", -reason.count))


def reasons(results: Iterable[Result]) -> list[Reason]:
    """Group items by why they stopped: accepted ones first, then by frequency."""
    tally = ReasonTally()
    for result in results:
        tally.add(result)
    return tally.reasons()


def _cause_of(result: Result) -> str:
    if result.source != "model":
        return f"answered by a {result.source}, and passed"
    if result.outcome == "error":
        broken = ", ".join(verdict.check for verdict in result.verdicts if verdict.error)
        return f"a check could not judge: {broken}" if broken else "it could not be worked on"
    if not result.accepted:
        return _why_not_accepted(result) + _failed(result)
    return "passed every check at once" if result.outcome == "accepted" else "passed after a retry"


def _failed(result: Result) -> str:
    """Return which checks the best draft fails; if none was judged, what ended the last one."""
    failed = [verdict.check for verdict in result.verdicts if not verdict.passed]
    if failed:
        return f"; its best draft fails: {', '.join(failed)}"
    ended = result.stopped.condition if result.stopped.kind is not StopKind.BUDGET else ""
    return f"; its last draft was ended by: {ended}" if ended else ""


def _why_not_accepted(result: Result) -> str:
    if result.stopped.numbers.get(OUT_OF_ROUNDS):
        return "out of rounds"
    return "its budget ended" if result.stopped.kind is StopKind.BUDGET else "given up"
