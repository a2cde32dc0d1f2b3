"""Lanes: many items through a process with a fixed number of slots, each with its own stop.

An ordinary process. It keeps the slots full, ends each draft by its own condition, has whole drafts
judged, and applies the strategy's actions. A lane that is done leaves, and the next waiting item
takes its slot (continuous batching; Yu et al., "Orca", OSDI 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ostinato.errors import EditError, ItemError
from ostinato.journal import Fields, StopKind, Stopped, Unchanging, first
from ostinato.loop.actions import Accept, Action, GiveUp, GoBack, StartOver, answered
from ostinato.loop.check import Verdict
from ostinato.loop.conditions.metrics import judged
from ostinato.loop.conditions.missing_metrics import MissingMetrics
from ostinato.loop.finished import FinishedItems, Known, items_done, refusal
from ostinato.loop.items import Items
from ostinato.loop.lane_result import LaneResult
from ostinato.loop.lane_state import (
    LaneState,
    add_up,
    end_of,
    given_up,
    require_condition,
    spent,
    stop_of,
)
from ostinato.loop.policy import Policy, PolicyOf, per_item
from ostinato.loop.process import Lane, LaneProcess, Report
from ostinato.loop.replay import Recorded, Replay
from ostinato.loop.rng import check_seed
from ostinato.loop.run_setup import compute_mode
from ostinato.loop.step import LaneStep, Step
from ostinato.loop.timeline import Edits

AT_ONCE = 128
"""Items that need no slot and are finished in one step, at most.

So a step stays short: progress is shown, a pause is heeded, and finished items leave the memory.
They share the sync of one commit.
"""

JUDGED_BY_MODEL = 16
"""As how many of them an item counts that a model has judged, which may take seconds."""

READY_STOP = Stopped(StopKind.PASSED, "The answer was ready.", "ready")


class Lanes:
    """Advance many items side by side in a lane process.

    `items` yields pairs (key, item) in the same order each time; keys are unique. `policy` says
    what ends a draft, judges it and answers its stop: one `Policy` for all items, or a function
    that returns that of an item; it may raise `ItemError`, which ends the item. Results wait in
    `finished` until `take_finished` is called.
    Raises `InputError` for a key that occurs twice: at once where the items are a sequence, else
    when it comes up, after the items in work are finished.
    """

    def __init__(
        self,
        process: LaneProcess,
        items: Iterable[tuple[str, object]],
        policy: Policy | PolicyOf,
        *,
        seed: int = 0,
    ) -> None:
        self.process = process
        self._done = FinishedItems()
        self._items = Items(items)
        self._shared = policy if isinstance(policy, Policy) else None  # by all items
        self._policy_of = per_item(policy)
        self._seed = check_seed(seed)
        self._states: dict[str, LaneState] = {}
        self._room = AT_ONCE  # for items that need no slot, in this step
        self._replay = Replay()
        self._missing = MissingMetrics(process)
        self._costs: tuple[str, ...] = ()  # of the process's reports
        self._judging: list[Report] = []  # what judging has spent in this step, as reports
        self.spent: dict[str, float] = {}  # by all items so far

    @property
    def compute_mode(self) -> str:
        """How the process computes; "" where its bits do not depend on it."""
        return compute_mode(self.process)

    @property
    def known_edits(self) -> Mapping[str, str] | None:
        """The edits of a lane that the process knows; None where it does not say."""
        known = getattr(self.process, "known_edits", None)
        return None if known is None else {"lane": "text", **known}

    @property
    def computing(self) -> Mapping[str, object]:
        """What may choose how it computes, by the name that a run records its mode under.

        The judge is one of them where all items share a policy: those of others come up later.
        """
        judge = None if self._shared is None else self._shared.judge
        return {"compute_mode": self.process, "judge_mode": judge}

    @property
    def finished(self) -> Sequence[LaneResult]:
        """The results that wait for `take_finished`."""
        return self._done.results

    # The process ------------------------------------------------------------------------------

    def step(self) -> Report:
        """Fill free slots, advance every lane by at most one position, settle what stopped."""
        if not self._states:
            self._items.refuse_double()
        self._room = AT_ONCE
        self._fill()
        reports, unused = self._advance()
        self._costs = tuple(getattr(self.process, "costs", ()))  # of a process that is made late
        if self._missing.names:
            self._missing.observe(*reports.values())
        lanes = {key: self._settle(self._states[key], report) for key, report in reports.items()}
        # Again: a slot that has become free must not be empty in the next step.
        self._fill()
        report: dict[str, object] = {
            "lanes": lanes,
            "active": len(self._states),
            **self._done.counts,
        }
        judging, self._judging = self._judging, []
        names = dict.fromkeys((*self._costs, *(name for taken in judging for name in taken)))
        for name, total in spent((*reports.values(), *unused, *judging), names).items():
            report[name] = total
            self.spent[name] = self.spent.get(name, 0) + total
        if not self._states and self._items.done:
            report["ended"] = items_done(self._items.taken)
            self._missing.end()
        return report

    def state_dict(self) -> dict[str, object]:
        """Return the state of every item: what was decided, and no caches."""
        return {
            "each": None if self._shared is None else str(self._shared.condition),
            "taken": self._items.taken,
            "drafts": [Unchanging(state.to_json()) for state in self._states.values()],
            "counts": dict(self._done.counts),
            "spent": dict(self.spent),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore a saved state; lanes in work are brought to their positions.

        Raises `RunError` where the items, or what ends their drafts, are not those of the state.
        """
        saved = Fields(state)
        before = None if state.get("each") is None else saved.text("each")  # of all items
        if self._shared is not None and before is not None:
            require_condition(before, self._shared.condition)
        # Also a process that is in use can be loaded: its lanes leave first.
        for key in list(self._states):
            self.process.drop(key)
        self._states.clear()
        self._done.load(saved.mapping("counts"))
        self.spent = saved.mapping("spent", {})
        drafts = saved.objects("drafts")
        keys = {draft.integer("index"): draft.text("key") for draft in drafts}
        items = self._items.go_to(saved.integer("taken"), keys)
        restored = [self._restored(one, items[one.integer("index")], before) for one in drafts]
        for lane_state in restored:
            self._states[lane_state.lane.key] = lane_state
            self._start(lane_state)

    def _restored(self, saved: Fields, item: object, before: str | None) -> LaneState:
        """Return an item's saved state; `before` is its condition where it names none."""
        policy = self._policy(item)
        require_condition(saved.text("each", before), policy.condition)
        return LaneState.from_json(saved, item, policy)

    def change(self, edits: Edits) -> None:
        """Edit one lane at its position: `{"lane": key, name: value, …}`.

        A lane that is the only one in work need not be named. Unlike a strategy's edit, this one
        stays at its position when the lane goes back before it, or starts over.
        """
        names = {name: value for name, value in edits.items() if name != "lane"}
        only = next(iter(self._states)) if len(self._states) == 1 else None
        state = self._states.get(str(edits.get("lane", only)))
        if state is None:
            raise EditError(
                f"An edit of lanes must name a lane that is in work, got {edits.get('lane')!r}. "
                f"In work are: {', '.join(self._states) or 'none'}."
            )
        position = state.position
        lane = replace(state.lane, edits=state.lane.edits.added(position, names))
        self.process.rewind(lane, position)  # it may refuse: nothing has changed until then
        state.lane = lane
        state.changed.append((position, names))

    def wake(self) -> None:
        """Restart the lanes' clocks after a break, which is not counted."""
        for state in self._states.values():
            state.wake()

    # For the loop -----------------------------------------------------------------------------

    def replay(self, ticks: Iterable[Recorded]) -> None:
        """Take the reports of the next steps from these records, before the process is stepped."""
        self._replay = Replay(ticks)

    def take_finished(self) -> list[LaneResult]:
        """Return the results since the last call."""
        return self._done.take()

    def adopt_results(self, known: Known) -> None:
        """Adopt journaled rows that computing again could not reproduce.

        These are rows that a clock cut short, and those carried over from another run.
        """
        self._done.known = known
        # Their results came after the saved state, in which their lanes are still in work.
        for key in list(self._states):
            if self._done.adopt(key):
                self.process.drop(key)
                del self._states[key]

    # Slots ------------------------------------------------------------------------------------

    def _fill(self) -> None:
        while len(self._states) < self.process.slots and self._room > 0:
            following = self._items.take()
            if following is None:
                return
            key, judgings = following[1], len(self._judging)
            self._admit(*following)
            if key not in self._states:
                self._room -= JUDGED_BY_MODEL if any(self._judging[judgings:]) else 1

    def _policy(self, item: object) -> Policy:
        """Return an item's policy, whose metrics are then waited for."""
        policy = self._policy_of(item)
        self._missing.wait_for(policy.condition)
        return policy

    def _admit(self, index: int, key: str, item: object) -> None:
        """Start an item, or finish it where it needs no slot."""
        if self._done.adopt(key):
            return
        try:
            policy = self._policy(item)
        except ItemError as error:
            self._done.refuse(key, index, error)
            return
        state = LaneState.new(index, item, Lane(key, self._seed), policy)
        if not self._is_ready(state):
            self._states[key] = state
            self._start(state)

    def _is_ready(self, state: LaneState) -> bool:
        """Finish an item that has a ready output, if that passes."""
        ready = state.policy.ready
        output = ready(state.item) if ready is not None else None
        if output is None:
            return False
        verdicts = self._judged(state, output)
        if not all(verdict.passed for verdict in verdicts):
            return False
        stopped = replace(judged(verdicts), condition="ready") if verdicts else READY_STOP
        self._finish(state, stopped, output, verdicts, accepted=True)
        return True

    def _start(self, state: LaneState) -> None:
        """Start the lane at its draft's position; an item that the process refuses is finished."""
        state.wake()
        lane = replace(state.lane, past=tuple(state.reports), again=state.again)
        try:
            self.process.start(lane, state.item)
        except ItemError as error:
            del self._states[state.lane.key]
            self._finish(state, refusal(error), "", (), accepted=False)

    def _advance(self) -> tuple[Mapping[str, Report], Sequence[Report]]:
        """Step the process, or replay a recorded step.

        The second part has recorded reports that no lane can use; they were paid for all the same.
        """
        if self._replay:
            positions = {key: state.position for key, state in self._states.items()}
            reports, unused = self._replay.take(positions)
            for key, report in reports.items():
                self._bring(self._states[key], report)
            return reports, unused
        return (self.process.step() if self._states else {}), ()

    def _bring(self, state: LaneState, report: Report) -> None:
        # Start it again with a longer past, as after a crash: a process takes a report that it did
        # not compute only as a past.
        self.process.drop(state.lane.key)
        past = (*state.reports, report)
        self.process.start(replace(state.lane, past=past), state.item)

    # One lane ---------------------------------------------------------------------------------

    def _settle(self, state: LaneState, report: Report) -> LaneStep:
        """Observe a lane's step; where it stopped, judge it and take the strategy's action."""
        state.reports.append(report)
        state.again = False
        state.spend(report, self._costs)
        position, key = state.position, state.lane.key
        item = state.edited_item() if state.changed else state.item
        # The output is computed only for conditions that look at it.
        step = Step(position, position, report, lambda: self.process.output(key), item)
        folded, fired = state.each.observe(state.condition_states[-1], step)
        state.condition_states.append(folded)
        end = end_of(report)
        if fired is None and end is None:
            return LaneStep(position, report)
        stopped = first((fired, end))
        assert stopped is not None
        stopped, verdicts = self._verdict(state, stopped)
        action = self._choose_action(state, stopped, verdicts)
        self._act(state, stopped, verdicts, action)
        return LaneStep(position, report, stopped, action)

    def _verdict(self, state: LaneState, stopped: Stopped) -> tuple[Stopped, tuple[Verdict, ...]]:
        """Judge a draft that has ended; one that failed before its end is not whole."""
        if state.policy.judge is None or stopped.kind in (
            StopKind.FAILED,
            StopKind.DIVERGED,
            StopKind.ERROR,
        ):
            return stopped, ()
        output = self.process.output(state.lane.key)
        verdicts = self._judged(state, output)
        state.compare(output, verdicts, self._length(state))
        return (stop_of(verdicts, stopped) if verdicts else stopped), verdicts

    def _judged(self, state: LaneState, output: object) -> tuple[Verdict, ...]:
        """Judge an output of an item, and charge the item for it."""
        verdicts = state.policy.judged(output, state.edited_item())
        if not verdicts:
            return ()
        taken = add_up(verdict.spent for verdict in verdicts)
        state.charge(taken)
        self._judging.append(taken)
        return verdicts

    def _choose_action(
        self, state: LaneState, stopped: Stopped, verdicts: tuple[Verdict, ...]
    ) -> Action:
        if stopped.good:
            return Accept()
        if stopped.kind is StopKind.ERROR:
            return GiveUp("" if stopped.condition == "error" else "A check could not judge.")
        spent = state.exhausted()
        if spent is not None:
            return GiveUp(spent.sentence)
        history = state.history(self.process.output(state.lane.key), verdicts)
        return answered(state.policy.on_stop, stopped, history)

    def _act(
        self, state: LaneState, stopped: Stopped, verdicts: tuple[Verdict, ...], action: Action
    ) -> None:
        key = state.lane.key
        output = self.process.output(key)
        state.remember(stopped, output, verdicts, action)
        if isinstance(action, GoBack):
            to = state.go_back(action)
            self.process.rewind(state.lane, to)
        elif isinstance(action, StartOver):
            state.start_over(action)
            self.process.drop(key)  # the other round may have another prompt
            self._start(state)
        else:
            exhausted = state.exhausted()
            if state.best is None and not verdicts:  # no draft came to its end
                verdicts = self._judged(state, output)
            self.process.drop(key)
            del self._states[key]
            accepted = isinstance(action, Accept) and stopped.good
            if isinstance(action, GiveUp):
                stopped = given_up(stopped, action, exhausted)
            self._finish(state, stopped, output, verdicts, accepted=accepted)

    def _finish(
        self,
        state: LaneState,
        stopped: Stopped,
        output: object,
        verdicts: tuple[Verdict, ...],
        *,
        accepted: bool,
    ) -> None:
        length = self._length(state)
        self._done.add(state.result(stopped, output, verdicts, length, accepted=accepted))

    def _length(self, state: LaneState) -> int:
        return state.length(getattr(self.process, "unit", ""))
