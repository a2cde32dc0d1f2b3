"""Why items came out as they did: each check over all drafts of an item, and over a whole job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ostinato.journal import JSON
from ostinato.loop import Verdict
from ostinato.refine.results import Draft, Result


class Course(StrEnum):
    """How a check went for one item."""

    FIRST = "passed first time"
    MENDED = "mended"
    FLAKY = "flaky"  # it had passed on a whole draft, and failed on a later one
    NEVER = "never passed"
    UNKNOWN = "not judged"


@dataclass
class CheckRecord:
    """How a check went over a job. `tokens` are those taken back because of it, shared evenly
    where several checks failed at once; `errors` counts verdicts that could not be given."""

    name: str
    courses: dict[Course, list[str]] = field(default_factory=dict)
    tokens: float = 0.0
    stops: int = 0
    errors: int = 0
    messages: dict[str, int] = field(default_factory=dict)

    def items(self, course: Course) -> list[str]:
        """Return the ids of the items for which the check went this way."""
        return self.courses.get(course, [])

    def count(self, course: Course) -> int:
        """Return for how many items the check went this way."""
        return len(self.items(course))

    @property
    def often(self) -> str:
        """What the check said most often."""
        return max(self.messages, key=lambda text: self.messages[text], default="")

    @property
    def label(self) -> str:
        """The check in one word: `error`, `not judged`, `never passed`, `flaky`, else `fine`.

        Error: on one item at least it could not judge. Not judged: on no item it has. Never passed:
        on no item that it judged. Flaky: on one item in ten it failed after it had passed. `costly`
        compares all checks.
        """
        if self.errors:
            return "error"
        judged = sum(len(ids) for course, ids in self.courses.items() if course != Course.UNKNOWN)
        if not judged:
            return Course.UNKNOWN.value
        if self.count(Course.NEVER) == judged:
            return "never passed"
        return "flaky" if self.count(Course.FLAKY) * 10 >= judged else "fine"

    def to_json(self) -> dict[str, JSON]:
        """Return the record as a JSON object."""
        return {
            "check": self.name,
            **{course.value: self.count(course) for course in Course},
            "tokens": round(self.tokens, 1),
            "stops": self.stops,
            "errors": self.errors,
            "label": self.label,
        }


def lost_by(draft: Draft) -> int:
    """Return how many computed tokens going back or starting over threw away.

    The last token of a draft was drawn but never run through the network.
    """
    return max(0, draft.lost - 1)


def course_of(check: str, result: Result) -> Course:
    """Return how a check went for an item."""
    seen = [passed for draft in result.drafts for passed in _said(check, draft)]
    verdict = next((v for v in result.verdicts if v.check == check), None)
    if verdict is not None and verdict.error:
        return Course.UNKNOWN
    final = None if verdict is None else verdict.passed
    if final is None and not seen:
        return Course.UNKNOWN
    if final is None:
        final = seen[-1]
    if not final:
        return Course.NEVER if True not in seen else Course.FLAKY
    if all(seen):
        return Course.FIRST
    first = seen.index(True) if True in seen else len(seen)
    return Course.FLAKY if False in seen[first:] else Course.MENDED


def _said(check: str, draft: Draft) -> Iterable[bool]:
    """Yield what a check said of a draft: its verdict, or that it had become impossible.

    It said nothing of one that it could not judge.
    """
    verdict = next((v for v in draft.verdicts if v.check == check), None)
    if verdict is not None:
        if not verdict.error:
            yield verdict.passed
    elif check in draft.check:
        yield False


def tally(checks: Sequence[str], results: Iterable[Result]) -> list[CheckRecord]:
    """Return each check's record over a job, in the order of the checks."""
    records = {name: CheckRecord(name) for name in checks}
    for result in results:
        for record in records.values():
            course = course_of(record.name, result)
            record.courses.setdefault(course, []).append(result.id)
        for draft in result.drafts:
            _blame(records, draft)
        for verdict in result.verdicts:
            if verdict.error and verdict.check in records:
                records[verdict.check].errors += 1
    return list(records.values())


def _blame(records: dict[str, CheckRecord], draft: Draft) -> None:
    blamed = [records[name] for name in draft.check if name in records]
    for record in blamed:
        record.stops += 1
        record.tokens += lost_by(draft) / len(blamed)
        message = message_of(record.name, draft)
        record.messages[message] = record.messages.get(message, 0) + 1


def message_of(check: str, draft: Draft) -> str:
    """Return what a check said of a draft that it stopped."""
    verdict = next((v for v in draft.verdicts if v.check == check), None)
    if verdict is not None:
        return verdict.error or verdict.message
    return draft.message.removeprefix(f"{check}: ")


def costly(records: Sequence[CheckRecord], share: float = 0.4) -> list[CheckRecord]:
    """Return the checks that took back at least this share of all tokens that were taken back."""
    whole = sum(record.tokens for record in records)
    return [record for record in records if whole and record.tokens >= share * whole]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLine:
    """One check on one draft of an item, as `ostinato why` shows it."""

    round: int
    backtracks: int
    check: str
    verdict: str
    place: str
    message: str
    tokens: int

    def to_json(self) -> dict[str, JSON]:
        """Return the line as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


def attempt_lines(result: Result) -> list[AttemptLine]:
    """Return attempt by check what was said, where it first failed, and what it cost."""
    return [line for draft in result.drafts for line in _lines(draft)]


def _lines(draft: Draft) -> Iterable[AttemptLine]:
    text = draft.before + draft.taken_back
    cost = lost_by(draft)
    if not draft.verdicts:
        for name in draft.check or ("",):
            yield AttemptLine(
                round=draft.round + 1,
                backtracks=draft.backtracks,
                check=name,
                verdict="impossible" if name else draft.answer,
                place=_excerpt(text, len(draft.before), len(text)),
                message=message_of(name, draft),
                tokens=cost,
            )
    for verdict in draft.verdicts:
        yield AttemptLine(
            round=draft.round + 1,
            backtracks=draft.backtracks,
            check=verdict.check,
            verdict=verdict_word(verdict),
            place=_excerpt(text, *verdict.span) if verdict.span else "",
            message=verdict.error or verdict.message,
            tokens=0 if verdict.passed else cost,
        )


def verdict_word(verdict: Verdict) -> str:
    """Return a verdict in one word."""
    return "error" if verdict.error else "passed" if verdict.passed else "failed"


def _excerpt(text: str, start: int, end: int, most: int = 40) -> str:
    part = text[start:end]
    return part if len(part) <= most else part[: most - 1] + "…"
