"""Groups of lanes: a lane process in which each lane is made of several lanes of a `Decode`.

Knows how the lanes of a group are named, stepped and restored; not what a group decides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from ostinato.checks import TIME_LIMIT, check_prefix_all, judge_all
from ostinato.decode import Decode
from ostinato.errors import InputError
from ostinato.journal import EditKind, Fields
from ostinato.loop import Check, Item, Lane, Report, Text, Verdict, add_up, uniform


@dataclass(slots=True)
class LaneGroup:
    """The lane and the item of a group, and the reports it has made so far."""

    lane: Lane
    item: object
    past: list[Report] = field(default_factory=list)
    judging: dict[str, float] = field(default_factory=dict, kw_only=True)  # costs of this step

    @property
    def columns(self) -> Item:
        """The item's columns, which the checks read."""
        return self.item if isinstance(self.item, Mapping) else {}

    def uniform(self, use: str) -> float:
        """Return the uniform number in [0, 1) of a use at this position."""
        lane = self.lane
        key = f"{lane.key}\x1f{use}"
        return uniform(lane.seed, key, lane.round, lane.backtracks, len(self.past))

    def child(self, number: int, past: Sequence[Report] = ()) -> Lane:
        """Return the lane of `Decode` with this number in the group, and its own past reports."""
        # Random numbers depend on the key, so it must not change with the batch. The separator is a
        # control character, so that no child has the key of another item.
        key = f"{self.lane.key}\x1f{number}"
        return replace(self.lane, key=key, past=tuple(past), again=self.lane.again)


G = TypeVar("G", bound=LaneGroup)


class GroupedLanes(ABC, Generic[G]):
    """A lane process that advances groups of lanes of `decode`, `size` lanes for each item.

    Every decision of a group is in its reports, which alone restore it: a resume needs no saved
    caches. `checks` judge prefixes and whole texts; one judgment takes at most `time_limit`
    seconds. `late` collects the checks that exceeded it on a prefix.
    """

    costs = (*Decode.costs, "cost", "judged")  # of the judges, too
    unit = Decode.unit

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
                f"The slots of Decode must be at least {size}, the lanes of a group, got "
                f"{decode.slots}. Give it more slots."
            )
        self.decode = decode
        self.slots = decode.slots // size
        self.deterministic, self.compute_mode = decode.deterministic, decode.compute_mode
        self.size = size
        self._checks = tuple(checks)
        self._time_limit = time_limit
        self._late = set[str]() if late is None else late
        self._groups: dict[str, G] = {}

    def use_compute_mode(self, mode: str) -> None:
        """Compute in this mode, if the model leaves it open. Call it before any lane starts."""
        self.decode.use_compute_mode(mode)
        self.deterministic, self.compute_mode = self.decode.deterministic, self.decode.compute_mode

    @property
    def known_edits(self) -> Mapping[str, EditKind]:
        """The edits of a lane, which are those of its tokens."""
        return self.decode.known_edits

    # The lane process -------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Start a group, or restore one from its reports."""
        group = self._new_group(lane, item)
        for report in lane.past:
            self._replay(group, report)
            group.past.append(report)
        self._start_lanes(group)
        # Lanes that start later are new, even in a restored group: they must report their prompt.
        group.lane = replace(lane, again=False)
        self._groups[lane.key] = group

    def step(self) -> Mapping[str, Report]:
        """Advance every group by one token in each of its lanes."""
        for group in self._groups.values():
            self._prepare(group)
        lane_reports = self.decode.step()
        reports = {}
        for key, group in self._groups.items():
            moved = {
                number: lane_reports[name]
                for number, name in self._active_lanes(group).items()
                if name in lane_reports
            }
            report = {**self._advance(group, moved), **_total_cost(moved.values())}
            for name, amount in group.judging.items():
                report[name] = Fields(report).number(name, 0) + amount
            group.judging = {}
            group.past.append(report)
            reports[key] = report
        return reports

    def rewind(self, lane: Lane, to: int) -> None:
        """Restore a group to its state after `to` reports."""
        group = self._groups[lane.key]
        # Not `decode.rewind` lane by lane: copies and drops in between have replaced lanes.
        past = tuple(group.past[:to])
        self.drop(lane.key)
        self.start(replace(lane, past=past, again=True), group.item)

    def drop(self, key: str) -> None:
        """Free the group's slots."""
        for name in self._active_lanes(self._groups.pop(key)).values():
            self.decode.drop(name)

    def output(self, key: str) -> Text:
        """Return the text that would be the item's if the group ended now."""
        return self._output(self._groups[key])

    # What a group decides ---------------------------------------------------------------------

    @abstractmethod
    def _new_group(self, lane: Lane, item: object) -> G:
        """Return a group without reports and without lanes."""

    @abstractmethod
    def _replay(self, group: G, report: Report) -> None:
        """Apply a recorded report, without stepping `decode`."""

    @abstractmethod
    def _start_lanes(self, group: G) -> None:
        """Start the lanes of a new or restored group in `decode`."""

    @abstractmethod
    def _active_lanes(self, group: G) -> Mapping[int, str]:
        """Return the keys of the lanes that have a slot, by their number in the group."""

    def _prepare(self, group: G) -> None:
        """Prepare a step, for example start or copy lanes."""

    @abstractmethod
    def _advance(self, group: G, moved: Mapping[int, Report]) -> dict[str, object]:
        """Take the reports of the lanes, by number, and return the report of the group."""

    @abstractmethod
    def _output(self, group: G) -> Text:
        """Return the text that would be the item's if the group ended now."""

    # Checks -----------------------------------------------------------------------------------

    def _why_hopeless(self, group: LaneGroup, output: Text) -> str | None:
        """Return why a prefix can no longer pass, or None."""
        found = check_prefix_all(self._checks, output, group.columns, self._time_limit, self._late)
        return None if found is None else f"{found[0].name}: {found[1].message}"

    def _verdicts(self, group: LaneGroup, output: Text) -> list[Verdict]:
        verdicts = judge_all(self._checks, output, group.columns, self._time_limit)
        group.judging = add_up((group.judging, *(verdict.spent for verdict in verdicts)))
        return verdicts


def sum_logprobs(reports: Iterable[Report]) -> float:
    """Return the log-probability of a text, from the reports of its tokens."""
    return sum(Fields(report).number("logprob") for report in reports)


def _total_cost(reports: Iterable[Report]) -> dict[str, int]:
    """Sum the tokens of a group's lanes; the prompt counts once, as the lanes share its cache."""
    each = [Fields(report) for report in reports]
    spent = {name: sum(one.integer(name, 0) for one in each) for name in ("tokens", "computed")}
    prompt = max((one.integer("prompt", 0) for one in each), default=0)
    return spent | ({"prompt": prompt} if prompt else {})
