"""Two runs of a job side by side: what came out, what it cost, by check, and what has changed.

Works on results alone; knows no journal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Literal, NamedTuple, get_args

from ostinato.journal import JSON
from ostinato.refine.report.summary import Summary, SummaryTally
from ostinato.refine.report.why import CheckTally, Course
from ostinato.refine.results import Result

ChangeKind = Literal["no longer accepted", "now accepted", "another reply", "another outcome"]
"""How an item came out otherwise; another outcome: the same reply after other drafts."""

_KINDS = get_args(ChangeKind)


class Piece(NamedTuple):
    """A part of a text that was kept (" "), taken out ("-") or added ("+")."""

    sign: Literal[" ", "-", "+"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An item that came out otherwise in the second run."""

    id: str
    kind: ChangeKind
    outcomes: tuple[str, str]
    replies: tuple[str, str]

    def pieces(self) -> list[Piece]:
        """Return the replies as one text, word by word."""
        return word_difference(*self.replies)

    def to_json(self) -> dict[str, JSON]:
        """Return the change as a JSON object."""
        (outcome, now), (reply, other) = self.outcomes, self.replies
        told: dict[str, JSON] = {"id": self.id, "change": self.kind}
        return told | {"outcomes": [outcome, now], "replies": [reply, other]}


class CheckChange(NamedTuple):
    """How many items did not pass a check at once, and never, in each run; None: it has none."""

    name: str
    not_at_once: tuple[int | None, int | None]
    never: tuple[int | None, int | None]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs over the items that both have; `only` counts those that one of them has."""

    names: tuple[str, str]
    summaries: tuple[Summary, Summary]
    checks: list[CheckChange]
    changes: list[Change] = field(default_factory=list)
    only: tuple[int, int] = (0, 0)

    @property
    def items(self) -> int:
        """How many items both runs have a result of."""
        return self.summaries[0].items

    def counts(self) -> dict[ChangeKind, int]:
        """Return how many items have changed in each way."""
        found: dict[ChangeKind, int] = {}
        for change in self.changes:
            found[change.kind] = found.get(change.kind, 0) + 1
        return found

    def figures(self) -> list[tuple[str, str, str]]:
        """Return what is told of both runs: a label and two values."""
        one, two = self.summaries
        told = [(label, value(one), value(two)) for label, value in _FIGURES]
        return [each for each in told if each[0] in _ALWAYS or each[1:] != ("0", "0")]

    def how(self) -> str:
        """Return how many items have changed in each way; empty where none has."""
        return ", ".join(f"{count:,} {kind}" for kind, count in self.counts().items())

    def to_json(self) -> dict[str, JSON]:
        """Return the comparison as a JSON object."""
        return {
            "runs": list(self.names),
            "items": self.items,
            "only": list(self.only),
            "summaries": [summary.to_json() for summary in self.summaries],
            "checks": [
                {
                    "check": each.name,
                    "not_at_once": list(each.not_at_once),
                    "never": list(each.never),
                }
                for each in self.checks
            ],
            "changes": [change.to_json() for change in self.changes],
        }


def compare(
    names: tuple[str, str],
    checks: tuple[Sequence[str], Sequence[str]],
    pairs: Iterable[tuple[Result, Result]],
) -> Comparison:
    """Compare the results of the items that two runs have; changes are in the order of their kinds.

    `checks` are the names of each run's checks; results are read once, and not kept.
    """
    summaries = SummaryTally(), SummaryTally()
    tallies = CheckTally(checks[0]), CheckTally(checks[1])
    changes = []
    for pair in pairs:
        for summary, tally, result in zip(summaries, tallies, pair, strict=True):
            summary.add(result)
            tally.add(result)
        if (change := _change(*pair)) is not None:
            changes.append(change)
    changes.sort(key=lambda change: _KINDS.index(change.kind))
    return Comparison(
        names=names,
        summaries=(summaries[0].summary(), summaries[1].summary()),
        checks=list(_check_changes(*tallies)),
        changes=changes,
    )


def _change(before: Result, after: Result) -> Change | None:
    if (before.reply, before.outcome) == (after.reply, after.outcome):
        return None
    kind: ChangeKind = "another reply" if before.reply != after.reply else "another outcome"
    if before.accepted != after.accepted:
        kind = "now accepted" if after.accepted else "no longer accepted"
    return Change(
        id=before.id,
        kind=kind,
        outcomes=(before.outcome, after.outcome),
        replies=(before.reply, after.reply),
    )


def _check_changes(before: CheckTally, after: CheckTally) -> Iterator[CheckChange]:
    """Yield what each check did in both runs, those of the first one first."""
    records = [{each.name: each for each in tally.records} for tally in (before, after)]
    for name in {**records[0], **records[1]}:
        not_at_once: list[int | None] = []
        never: list[int | None] = []
        for one in records:
            record = one.get(name)
            late = (Course.REVISED, Course.FLAKY, Course.NEVER)
            not_at_once.append(None if record is None else sum(map(record.count, late)))
            never.append(None if record is None else record.count(Course.NEVER))
        yield CheckChange(name, (not_at_once[0], not_at_once[1]), (never[0], never[1]))


def _share(count: int, summary: Summary) -> str:
    return f"{count:,} ({count / summary.items:.1%})" if summary.items else "0"


def _per_accepted(summary: Summary) -> str:
    return "–" if summary.per_accepted is None else f"{summary.per_accepted:.2f}"


_FIGURES = (
    ("accepted", lambda summary: _share(summary.accepted, summary)),
    ("accepted at once", lambda summary: _share(summary.first, summary)),
    ("given up", lambda summary: f"{summary.given_up:,}"),
    ("errors", lambda summary: f"{summary.errors:,}"),
    ("tokens computed", lambda summary: f"{summary.tokens_computed:,}"),
    ("tokens computed per accepted token", _per_accepted),
    ("tokens read and written to judge", lambda summary: f"{summary.tokens_judged:,}"),
)


_ALWAYS = ("accepted", "accepted at once", "tokens computed")


_WORD = re.compile(r"\s*\S+|\s+")


def word_difference(before: str, after: str) -> list[Piece]:
    """Return two texts as one, word by word: what was kept, taken out and added, in order."""
    words, others = _WORD.findall(before), _WORD.findall(after)
    pieces: list[Piece] = []
    matcher = SequenceMatcher(None, words, others, autojunk=False)
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            pieces.append(Piece(" ", "".join(words[a:b])))
            continue
        if b > a:
            pieces.append(Piece("-", "".join(words[a:b])))
        if d > c:
            pieces.append(Piece("+", "".join(others[c:d])))
    return pieces
