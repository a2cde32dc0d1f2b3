"""Groups of lanes: a lane process each of whose lanes is several lanes of a `Decode`.

Knows how the lanes of a group are named, stepped and brought back; not what becomes of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar, cast

from ostinato.checks import TIME_LIMIT, check_prefix_all, judge_all
from ostinato.decode import Decode
from ostinato.errors import InputError
from ostinato.loop import Check, Item, Lane, Report, Text, Verdict, spent_judging, uniform


@dataclass(slots=True)
class LaneGroup:
    """The lane and item of a group, and its reports so far."""

    lane: Lane
    item: object
    past: list[Report] = field(default_factory=list)
    judging: dict[str, float] = field(default_factory=dict, kw_only=True)  # spent in this step

    @property
    def columns(self) -> Item:
        """The item's columns, for the checks."""
        return self.item if isinstance(self.item, Mapping) else {}

    def number(self, use: str) -> float:
        """Return the uniform number that belongs to a use at this position."""
        lane = self.lane
        key = f"{lane.key}\x1f{use}"
        return uniform(lane.seed, key, lane.round, lane.backtracks, len(self.past))

    def inner(self, number: int, past: Sequence[Report] = ()) -> Lane:
        """Return a lane of the group, with its own past."""
        key = f"{self.lane.key}\x1f{number}"
        return replace(self.lane, key=key, past=tuple(past), again=self.lane.again)


M = TypeVar("M", bound=LaneGroup)


class GroupedLanes(ABC, Generic[M]):
    """Advances groups of lanes of `decode`, `size` lanes for each item.

    What a group decides is in its reports; from these alone it is brought back. `checks` are asked
    about beginnings and whole texts; a judgment has `time_limit` seconds.
    """

    def __init__(
        self,
        decode: Decode,
        size: int,
        checks: Sequence[Check],
        *,
        time_limit: float = TIME_LIMIT,
        late: set[str] | None = None,
    ) -> None:
        if decode.slots < size:
            raise InputError(
                f"A group of {size} lanes must fit in Decode's slots, got {decode.slots}. "
                "Give it more slots."
            )
        self.decode = decode
        self.slots = decode.slots // size
        self.deterministic, self.compute_mode = decode.deterministic, decode.compute_mode
        self.size = size
        self._checks = tuple(checks)
        self._time_limit = time_limit
        self._late = set[str]() if late is None else late
        self._members: dict[str, M] = {}

    # The lane process -------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Begin a group, or bring one back from its reports."""
        member = self._begin(lane, item)
        for report in lane.past:
            self._replay(member, report)
            member.past.append(report)
        self._enter(member)
        member.lane = replace(lane, again=False)  # lanes that it begins later tell their prompt
        self._members[lane.key] = member

    def step(self) -> Mapping[str, Report]:
        """Advance every group by one token of each of its lanes."""
        for member in self._members.values():
            self._prepare(member)
        told = self.decode.step()
        reports = {}
        for key, member in self._members.items():
            inner = self._lanes(member)
            moved = {number: told[name] for number, name in inner.items() if name in told}
            report = {**self._advance(member, moved), **_spent(moved.values())}
            for name, amount in member.judging.items():
                report[name] = cast(float, report.get(name, 0)) + amount
            member.judging = {}
            member.past.append(report)
            reports[key] = report
        return reports

    def rewind(self, lane: Lane, to: int) -> None:
        """Bring a group back to where it stood after `to` reports."""
        member = self._members[lane.key]
        past = tuple(member.past[:to])
        self.drop(lane.key)
        self.start(replace(lane, past=past, again=True), member.item)

    def drop(self, key: str) -> None:
        """Free the group's slots."""
        for name in self._lanes(self._members.pop(key)).values():
            self.decode.drop(name)

    def output(self, key: str) -> Text:
        """Return the text that the group stands for so far."""
        return self._output(self._members[key])

    # What a group decides ---------------------------------------------------------------------

    @abstractmethod
    def _begin(self, lane: Lane, item: object) -> M:
        """Return a group that has done nothing yet."""

    @abstractmethod
    def _replay(self, member: M, report: Report) -> None:
        """Do again what a report tells, without stepping."""

    @abstractmethod
    def _enter(self, member: M) -> None:
        """Give slots to the lanes of a group that was begun or brought back."""

    @abstractmethod
    def _lanes(self, member: M) -> Mapping[int, str]:
        """Return the names of the lanes that have a place, by their number."""

    def _prepare(self, member: M) -> None:
        """Make ready for a step."""

    @abstractmethod
    def _advance(self, member: M, moved: Mapping[int, Report]) -> dict[str, object]:
        """Take the lanes' reports and return the group's."""

    @abstractmethod
    def _output(self, member: M) -> Text: ...

    # Checks -----------------------------------------------------------------------------------

    def _impossible(self, member: LaneGroup, output: Text) -> str | None:
        """Return why a beginning can no longer pass, or None."""
        found = check_prefix_all(self._checks, output, member.columns, self._time_limit, self._late)
        return None if found is None else f"{found[0].name}: {found[1].message}"

    def _verdicts(self, member: LaneGroup, output: Text) -> list[Verdict]:
        verdicts = judge_all(self._checks, output, member.columns, self._time_limit)
        for name, amount in spent_judging(verdicts).items():
            member.judging[name] = member.judging.get(name, 0) + amount
        return verdicts


def _spent(reports: Collection[Report]) -> dict[str, int]:
    """Add up what the lanes of a group have spent; the prompt is computed once for all."""
    spent = {
        name: sum(cast(int, one.get(name, 0)) for one in reports) for name in ("tokens", "computed")
    }
    prompt = max((cast(int, one.get("prompt", 0)) for one in reports), default=0)
    return spent | ({"prompt": prompt} if prompt else {})
