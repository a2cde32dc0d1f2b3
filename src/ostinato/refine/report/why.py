"""Why items came out as they did: each check over the drafts of an item, and over a whole job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ostinato.journal import JSON
from ostinato.loop import Verdict
from ostinato.refine.results import Draft, Result

NAMED = 8
"""How many items of each course are named."""

MESSAGES = 4000
"""Different messages of a check that are counted at a time; many hold words of the item."""


class Course(StrEnum):
    """How a check went for one item; the values are keys of `CheckRecord.to_json`."""

    FIRST = "passed first time"
    REVISED = "revised"
    FLAKY = "flaky"  # it passed a whole draft, and failed a later one
    NEVER = "never passed"
    UNKNOWN = "not judged"


@dataclass
class CheckRecord:
    """How a check went over a job.

    `tokens` were taken back because of it; checks that failed together share them equally. `stops`
    counts the drafts that it stopped, `errors` the verdicts that it could not give, `hopeless` the
    items that were given up and that it did not pass in the end.
    """

    name: str
    counts: dict[Course, int] = field(default_factory=dict)
    first: dict[Course, list[str]] = field(default_factory=dict)
    tokens: float = 0.0
    stops: int = 0
    errors: int = 0
    hopeless: int = 0
    messages: dict[str, int] = field(default_factory=dict)

    def items(self, course: Course) -> list[str]:
        """Return the ids of the first `NAMED` items with this course."""
        return self.first.get(course, [])

    def count(self, course: Course) -> int:
        """Return the number of items with this course."""
        return self.counts.get(course, 0)

    def add_course(self, course: Course, result: Result) -> None:
        """Count how the check went for an item."""
        self.counts[course] = self.count(course) + 1
        if len(names := self.first.setdefault(course, [])) < NAMED:
            names.append(result.id)
        if course in (Course.NEVER, Course.FLAKY):
            self.hopeless += result.outcome == "given up"

    def add_message(self, message: str) -> None:
        """Count a message of the check; of very many different ones, the frequent ones stay."""
        self.messages[message] = self.messages.get(message, 0) + 1
        if len(self.messages) > MESSAGES:
            often = sorted(self.messages, key=lambda text: -self.messages[text])
            self.messages = {text: self.messages[text] for text in often[: MESSAGES // 2]}

    @property
    def often(self) -> str:
        """The most frequent message of the check, empty if it stopped nothing."""
        return max(self.messages, key=lambda text: self.messages[text], default="")

    @property
    def label(self) -> str:
        """One word: `error`, `not judged`, `never passed`, `flaky`, else `fine`.

        `error`: it could not judge at least one item. `not judged`: it has judged no item. `never
        passed`: no item that it judged passed. `flaky`: on one item in ten it failed after it had
        passed. The label `costly` compares all checks, so it is a function.
        """
        if self.errors:
            return "error"
        judged = sum(count for course, count in self.counts.items() if course != Course.UNKNOWN)
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
    """Return how many computed tokens a backtrack or a new round discarded.

    The last token of a draft was sampled but never ran through the network.
    """
    return max(0, draft.lost - 1)


def course_of(check: str, result: Result) -> Course:
    """Return how a check went for an item."""
    decisions = [passed for draft in result.drafts for passed in _decisions(check, draft)]
    verdict = next((v for v in result.verdicts if v.check == check), None)
    if verdict is not None and verdict.error:
        return Course.UNKNOWN
    final = None if verdict is None else verdict.passed
    if final is None and not decisions:
        return Course.UNKNOWN
    if final is None:
        # The best draft was never judged whole: the last decision on a prefix counts.
        final = decisions[-1]
    if not final:
        return Course.NEVER if True not in decisions else Course.FLAKY
    # Passed in the end, so only the order of the drafts decides.
    if all(decisions):
        return Course.FIRST
    first = decisions.index(True) if True in decisions else len(decisions)
    return Course.FLAKY if False in decisions[first:] else Course.REVISED


def _decisions(check: str, draft: Draft) -> Iterable[bool]:
    """Yield a check's decision on a draft: its verdict, or False if it had become impossible.

    Nothing for a draft that it could not judge.
    """
    verdict = next((v for v in draft.verdicts if v.check == check), None)
    if verdict is not None:
        if not verdict.error:
            yield verdict.passed
    elif check in draft.check:
        yield False


class CheckTally:
    """Follows each check over a job, result by result."""

    def __init__(self, checks: Iterable[str]) -> None:
        self._records = {name: CheckRecord(name) for name in checks}

    @property
    def records(self) -> list[CheckRecord]:
        """Each check's record, in the order of the checks."""
        return list(self._records.values())

    def add(self, result: Result) -> None:
        """Count a result."""
        for record in self._records.values():
            record.add_course(course_of(record.name, result), result)
        for draft in result.drafts:
            _blame(self._records, draft)
        for verdict in result.verdicts:
            if verdict.error and verdict.check in self._records:
                self._records[verdict.check].errors += 1


def tally(checks: Sequence[str], results: Iterable[Result]) -> list[CheckRecord]:
    """Return each check's record over a job, in the order of `checks`."""
    counted = CheckTally(checks)
    for result in results:
        counted.add(result)
    return counted.records


def _blame(records: dict[str, CheckRecord], draft: Draft) -> None:
    blamed = [records[name] for name in draft.check if name in records]
    for record in blamed:
        record.stops += 1
        # Shared evenly, so that the sum over all checks is what was taken back.
        record.tokens += lost_by(draft) / len(blamed)
        record.add_message(message_of(record.name, draft))


def message_of(check: str, draft: Draft) -> str:
    """Return the message of a check on a draft that it stopped."""
    verdict = next((v for v in draft.verdicts if v.check == check), None)
    if verdict is not None:
        return verdict.error or verdict.message
    # The sentence of a prefix verdict starts with the name of its check.
    return draft.message.removeprefix(f"{check}: ")


def costly(records: Sequence[CheckRecord], share: float = 0.4) -> list[CheckRecord]:
    """Return the checks that caused at least `share` of all tokens taken back."""
    total = sum(record.tokens for record in records)
    return [record for record in records if total and record.tokens >= share * total]


def swaps(drafts: Sequence[Draft]) -> Iterator[list[Draft]]:
    """Yield the drafts in groups: those that only tried another text at one place are together."""
    group: list[Draft] = []
    for draft in drafts:
        if group and not (
            _is_swap(group[-1]) and _is_swap(draft) and _place(draft) == _place(group[0])
        ):
            yield group
            group = []
        group.append(draft)
    if group:
        yield group


def _is_swap(draft: Draft) -> bool:
    # A whole draft has verdicts; each of them is worth a line.
    return bool(draft.check) and not draft.verdicts


def _place(draft: Draft) -> tuple[int, str]:
    return draft.round, draft.before


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLine:
    """One check on one draft of an item, as `ostinato why` shows it.

    `times` is the number of drafts that tried another text at the place, which are one line.
    """

    round: int
    backtracks: int
    check: str
    verdict: str
    place: str
    message: str
    tokens: int
    times: int = 1

    def to_json(self) -> dict[str, JSON]:
        """Return the line as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


def attempt_lines(result: Result) -> list[AttemptLine]:
    """Return, draft by draft, each check's verdict, where it failed, and its cost in tokens."""
    return [line for group in swaps(result.drafts) for line in _group_lines(group)]


def _group_lines(group: Sequence[Draft]) -> Iterable[AttemptLine]:
    if len(group) == 1:
        yield from _lines(group[0])
        return
    tried = dict.fromkeys(draft.taken_back for draft in group)
    names = dict.fromkeys(name for draft in group for name in draft.check)
    yield AttemptLine(
        round=group[0].round + 1,
        backtracks=group[0].backtracks,
        check=", ".join(names),
        verdict="impossible",
        place=_excerpt(place := " / ".join(tried), 0, len(place)),
        message=message_of(group[-1].check[0], group[-1]),
        tokens=sum(map(lost_by, group)),
        times=len(group),
    )


def _lines(draft: Draft) -> Iterable[AttemptLine]:
    text = draft.before + draft.taken_back
    cost = lost_by(draft)
    # A draft that was ended early has no verdicts: only the check that fired is known.
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
    """Return `error`, `passed` or `failed`."""
    return "error" if verdict.error else "passed" if verdict.passed else "failed"


def _excerpt(text: str, start: int, end: int, most: int = 40) -> str:
    part = text[start:end]
    return part if len(part) <= most else part[: most - 1] + "…"
