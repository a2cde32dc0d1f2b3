"""What `Lanes` knows of an item in work, and how that is saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ostinato.errors import RunError
from ostinato.journal import JSON, Fields, StopKind, Stopped
from ostinato.loop.actions import OUT_OF_ROUNDS, Action, Attempt, GiveUp, GoBack, History, StartOver
from ostinato.loop.check import Text, Verdict
from ostinato.loop.conditions.base import Condition
from ostinato.loop.conditions.metrics import judged
from ostinato.loop.conditions.parser import up_to_date
from ostinato.loop.lane_result import LaneResult
from ostinato.loop.policy import Policy
from ostinato.loop.process import Lane, Report
from ostinato.loop.timeline import Edits, Timeline

ENDS = {
    "error": StopKind.ERROR,
    "failed": StopKind.FAILED,
    "ended": StopKind.ENDED,
    "out_of_room": StopKind.BUDGET,
}
"""Names of report values that end a draft, each with its sentence."""


@dataclass(frozen=True, slots=True)
class BestOutput:
    """The best whole draft of an item so far; `length` is in the unit of its process."""

    output: object
    verdicts: tuple[Verdict, ...]
    length: int
    round: int
    logprob: float = 0.0

    @property
    def rank(self) -> tuple[int, float]:
        """What drafts are compared by: the number of checks passed, then the mean score."""
        passed = sum(verdict.passed for verdict in self.verdicts)
        mean = sum(verdict.score for verdict in self.verdicts) / max(1, len(self.verdicts))
        return passed, mean

    def to_json(self) -> dict[str, object]:
        """Return it as it is saved; a text that remembers its tokens becomes a plain one."""
        return {
            "output": str(self.output) if isinstance(self.output, str) else self.output,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "length": self.length,
            "round": self.round,
            "logprob": self.logprob,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> BestOutput:
        """Read back what `to_json` wrote."""
        saved = Fields(value)
        return cls(
            output=value["output"],
            verdicts=tuple(Verdict.from_json(each.value) for each in saved.objects("verdicts")),
            length=saved.integer("length"),
            round=saved.integer("round"),
            logprob=saved.number("logprob"),
        )


@dataclass(slots=True)
class LaneState:
    """What `Lanes` knows of an item in work; all of it is in the saved state."""

    index: int
    item: object
    lane: Lane
    policy: Policy
    each: Condition  # of the policy
    condition_states: list[JSON]  # at the start of the draft, and after each report
    reports: list[Mapping[str, Any]] = field(default_factory=list)  # as the process made them
    attempts: list[Attempt] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)  # by all drafts of the item
    best: BestOutput | None = None
    changed: list[tuple[int, Edits]] = field(default_factory=list)  # edits from outside
    again: bool = False  # it went back to its position

    @classmethod
    def new(cls, index: int, item: object, lane: Lane, policy: Policy) -> LaneState:
        """Return the state of an item before its first draft."""
        each = policy.condition
        return cls(index, item, lane, policy, each, [each.initial_state()])

    @property
    def position(self) -> int:
        """The number of reports of the draft."""
        return len(self.reports)

    def length(self, unit: str) -> int:
        """Return the sum of the reports' `unit`, where they have it, else their number.

        A report about several drafts, of which one is kept, has that one's `length`.
        """
        if self.reports and "length" in (last := self.reports[-1]):
            length: int = last["length"]
            return length
        counts = [report[unit] for report in self.reports if unit in report]
        return int(sum(counts)) if counts else self.position

    @property
    def logprob(self) -> float:
        """The sum of the reports' log-probabilities."""
        total: float = sum([report.get("logprob", 0.0) for report in self.reports])
        return total

    def spend(self, report: Report, costs: Iterable[str]) -> None:
        """Add what a step has spent to the item's total, by the names of costs."""
        for name in costs:
            if name in report:
                value = report[name]
                if isinstance(value, int | float):
                    self.spent[name] = self.spent.get(name, 0) + value

    def edited_item(self) -> object:
        """Return the item as edits from outside have changed it."""
        item, edited = self.item, self.policy.edited
        for _, edits in self.changed:
            item = item if edited is None else edited(item, edits)
        return item

    def wake(self) -> None:
        """Let the condition's clocks run from now on: a break is not counted."""
        self.condition_states[-1] = self.each.wake(self.condition_states[-1])

    def exhausted(self) -> Stopped | None:
        """Return the stop of the item's budget, where that is used up."""
        return self.each.exhausted(self.condition_states[-1])

    @property
    def by_clock(self) -> bool:
        """Whether a time limit has run out: computing again could then end elsewhere."""
        return self.each.by_clock(self.condition_states[-1])

    def charge(self, taken: Mapping[str, float]) -> None:
        """Charge the item for what was spent beside its steps, as by a judge."""
        self.spend(taken, taken)
        self.condition_states[-1] = self.each.charge(self.condition_states[-1], taken)

    def compare(self, output: object, verdicts: tuple[Verdict, ...], length: int) -> None:
        """Keep a whole draft as the best one where it is better than those before."""
        best = BestOutput(output, verdicts, length, self.lane.round, self.logprob)
        if self.best is None or best.rank > self.best.rank:
            self.best = best

    def go_back(self, action: GoBack) -> int:
        """Go to the position of the action, and return it.

        What was spent stays spent. A strategy's edits after that position are dropped.
        """
        last = self.position - is_end(self.reports[-1])  # nothing follows an end: it is taken back
        to = last if action.to is None else max(0, min(action.to, last))
        # A strategy's later edits belong to the draft that is thrown away; a person's do not.
        later = [edit for edit in self.changed if edit[0] > to]
        edits = Timeline((*self.lane.edits.up_to(to), *later, (to, action.edits)))
        self.lane = replace(self.lane, backtracks=self.lane.backtracks + 1, edits=edits)
        state = self.each.back(self.condition_states[to], self.condition_states[-1])
        self.again = to < self.position
        # The state of each position is kept, so that every condition can go back to any of them.
        del self.condition_states[to:], self.reports[to:]
        self.condition_states.append(state)
        return to

    def start_over(self, action: StartOver) -> None:
        """Go to the start of another round; edits from outside stay."""
        edits = Timeline(((0, action.edits), *self.changed))
        self.lane = replace(self.lane, round=self.lane.round + 1, backtracks=0, edits=edits)
        self.condition_states = [
            self.each.back(self.condition_states[0], self.condition_states[-1])
        ]
        self.reports = []

    def history(self, output: object, verdicts: tuple[Verdict, ...]) -> History:
        """Return what a strategy sees of a draft that stopped."""
        return History(
            position=self.position,
            attempts=tuple(self.attempts),
            output=output,
            item=self.edited_item(),
            lane=self.lane,
            verdicts=verdicts,
            spent=self.spent,
        )

    def remember(
        self, stopped: Stopped, output: object, verdicts: tuple[Verdict, ...], action: Action
    ) -> None:
        """Add this draft to the attempts, before the action changes it."""
        attempt = Attempt(
            self.lane.round,
            self.lane.backtracks,
            self.position,
            stopped,
            action,
            str(output) if isinstance(output, str) else "",
            verdicts,
            kept_characters(output, action),
        )
        self.attempts.append(attempt)

    def to_json(self) -> dict[str, object]:
        """Return all of it but the item, which the items hold."""
        return {
            "index": self.index,
            "key": self.lane.key,
            "each": str(self.each),
            "seed": self.lane.seed,
            "round": self.lane.round,
            "backtracks": self.lane.backtracks,
            "edits": self.lane.edits.to_json(),
            "changed": [[position, dict(edits)] for position, edits in self.changed],
            "states": list(self.condition_states),
            "reports": [dict(report) for report in self.reports],
            "attempts": [attempt.to_json() for attempt in self.attempts],
            "spent": dict(self.spent),
            "again": self.again,
            "best": None if self.best is None else self.best.to_json(),
        }

    @classmethod
    def from_json(cls, saved: Fields, item: object, policy: Policy) -> LaneState:
        """Read back what `to_json` wrote, which holds neither the item nor its policy."""
        lane = Lane(
            key=saved.text("key"),
            seed=saved.integer("seed"),
            round=saved.integer("round"),
            backtracks=saved.integer("backtracks" if "backtracks" in saved else "tries"),  # older
            edits=Timeline.from_json(saved.items("edits")),
        )
        best = None if saved.value["best"] is None else saved.mapping("best")
        return cls(
            index=saved.integer("index"),
            item=item,
            lane=lane,
            policy=policy,
            each=policy.condition,
            condition_states=saved.items("states"),
            reports=saved.items("reports"),
            attempts=[Attempt.from_json(each.value) for each in saved.objects("attempts")],
            spent=saved.mapping("spent"),
            best=None if best is None else BestOutput.from_json(best),
            changed=[(position, names) for position, names in saved.items("changed", [])],
            again=saved.flag("again"),
        )

    def result(
        self,
        stopped: Stopped,
        output: object,
        verdicts: tuple[Verdict, ...],
        length: int,
        *,
        accepted: bool,
    ) -> LaneResult:
        """Return the item's result: this draft, or the best one where this was not accepted."""
        logprob = self.logprob
        if not accepted and self.best is not None:
            best = self.best
            output, verdicts, length = best.output, best.verdicts, best.length
            logprob = best.logprob
        return LaneResult(
            key=self.lane.key,
            index=self.index,
            output=output,
            accepted=accepted,
            stopped=stopped,
            verdicts=verdicts,
            rounds=self.lane.round + 1,
            backtracks=sum(isinstance(attempt.action, GoBack) for attempt in self.attempts),
            length=length,
            logprob=logprob,
            spent=dict(self.spent),
            attempts=tuple(self.attempts),
            by_clock=self.by_clock,
        )


def require_condition(saved: str, each: Condition) -> None:
    """Raise `RunError` where a saved condition of drafts, as spelled, is another one than now."""
    before = up_to_date(saved)
    if before != str(each):
        raise RunError(
            f"The lanes' condition must be the one that the run started with, {before}, got "
            f"{each}. Give the same one, or start another run."
        )


def spent(reports: Iterable[Mapping[str, Any]], costs: Iterable[str]) -> dict[str, float]:
    """Return what steps have spent together, by the names of costs."""
    names = tuple(costs)
    totals: dict[str, float] = {}
    for report in reports:
        for name in names:
            if name in report:
                totals[name] = totals.get(name, 0) + report[name]
    return {name: totals[name] for name in names if name in totals}


def add_up(amounts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the sum of amounts by name, as of what several verdicts have spent."""
    totals: dict[str, float] = {}
    for amount in amounts:
        for name, value in amount.items():
            totals[name] = totals.get(name, 0) + value
    return totals


def stop_of(verdicts: tuple[Verdict, ...], ended: Stopped) -> Stopped:
    """Return the stop of a whole draft by its verdicts; `ended` is how it came to its end."""
    whole = judged(verdicts)
    # An error: another draft would not repair a check.
    broken = any(verdict.error for verdict in verdicts)
    numbers = {**whole.numbers, "after": ended.kind.value}
    return replace(whole, kind=StopKind.ERROR if broken else whole.kind, numbers=numbers)


def end_of(report: Report) -> Stopped | None:
    """Return the stop that a lane's report announces, if it does."""
    for name in ENDS:
        if name in report:
            return Stopped(ENDS[name], str(report[name]), name)
    return None


def is_end(report: Report) -> bool:
    """Return whether a report ends its draft."""
    return any(name in report for name in ENDS)


def given_up(stopped: Stopped, action: GiveUp, spent: Stopped | None) -> Stopped:
    """Return why an item was given up: the stop of its last draft, and the strategy's reason.

    `spent` is the stop of the item's budget, where that is used up: the budget, and no check, is
    then why no other draft was tried.
    """
    if spent is not None and stopped.kind is StopKind.FAILED:
        numbers = {**stopped.numbers, **spent.numbers}
        stopped = replace(spent, sentence=stopped.sentence, numbers=numbers)
    if action.out_of_rounds:
        stopped = replace(stopped, numbers={**stopped.numbers, OUT_OF_ROUNDS: True})
    # Not twice: a strategy may give the stop's own sentence as its reason.
    if not action.reason or action.reason in stopped.sentence:
        return stopped
    return replace(stopped, sentence=f"{action.reason} {stopped.sentence}")


def kept_characters(output: object, action: Action) -> int | None:
    """Return how many characters of a text are left after going back."""
    if not isinstance(action, GoBack) or not isinstance(output, Text):
        return None
    at_end = action.to is None or action.to >= len(output.starts)
    return len(output) if at_end else output.starts[max(0, action.to or 0)]
