"""The only driver: steps a process until a condition fires, journals it, saves it, goes back.

Knows no family of processes. What `Lanes` does for many lanes, this does for one process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, cast

from ostinato.errors import RunError
from ostinato.journal import JSON, Journal, Run, RunSession, StopKind, Stopped, first
from ostinato.loop.actions import (
    Accept,
    Attempt,
    GiveUp,
    GoBack,
    History,
    OnStop,
    StartOver,
    accept,
)
from ostinato.loop.adapters import GeneratorProcess, as_process
from ostinato.loop.checkpoint_schedule import CheckpointSchedule, SavePoint, SavePoints
from ostinato.loop.conditions.base import as_condition
from ostinato.loop.conditions.missing_metrics import MissingMetrics
from ostinato.loop.conditions.parser import transfer_state, up_to_date
from ostinato.loop.control import Control
from ostinato.loop.edit_log import EditLog
from ostinato.loop.lanes import Lanes
from ostinato.loop.process import Edits, Exhausted, ExternalSource, Process, Step
from ostinato.loop.replay import recorded
from ostinato.loop.run_setup import (
    find_or_create,
    keep_compute_mode,
    note_condition,
    refuse_generator,
    refuse_going_back,
    saved_state,
    settings,
)


class Loop:
    """Runs a process until a condition fires.

    `process` is a `Process`, a callable (called once a step; what it returns, where that is no
    mapping, is the report's `output`) or a generator (function). `on_stop` answers a stop; by
    default every stop stands. `run` is a name or a `Run`: the loop is journaled, and goes on where
    that run was. `checkpoint` tells how often the state is saved: into the run, or without one
    into memory where `on_stop` may go back. `keep="results"` journals results but not steps,
    unless these are `ExternalSource` and could not be made again.
    `spec` is recorded with a run that this loop makes: with `factory` ("package.module:function")
    and `args` the command line can make the process again and go on with the run.

    Iterate over it (`for step in loop:`; a `break` is a pause), or call `run()`. Raises
    `InputError` for what cannot work, before the first step, and `RunLocked` where another process
    drives the run. An exception of the process is journaled as an error, then raised again.
    """

    def __init__(
        self,
        process: object,
        *,
        until: object,
        on_stop: OnStop = accept,
        run: Run | str | None = None,
        journal: Journal | None = None,
        checkpoint: CheckpointSchedule | None = None,
        keep: Literal["steps", "results"] = "steps",
        spec: Mapping[str, JSON] | None = None,
    ) -> None:
        self.process: Process = as_process(process)
        self.until = as_condition(until)
        self.stopped: Stopped | None = None
        self.output: object = None
        self.tick = 0
        self.position = 0
        self._on_stop = on_stop
        self._state: JSON = self.until.begin()
        self._control = Control()
        self._attempts: list[Attempt] = []
        self._missing = MissingMetrics(self.until, self.process)
        self._edit_log = EditLog(self.process)
        self._closed = self._final = False
        if isinstance(self.process, GeneratorProcess):
            refuse_going_back(checkpoint, on_stop)
        self._lanes = self.process if isinstance(self.process, Lanes) else None
        self._external = self._lanes is not None and isinstance(self._lanes.process, ExternalSource)
        if checkpoint is None and (run is not None or on_stop is not accept):
            checkpoint = (
                None if isinstance(self.process, GeneratorProcess) else CheckpointSchedule()
            )
        self._save_points = SavePoints(checkpoint)
        self._begin = self._copy_of_process() if on_stop is not accept else None
        self._session: RunSession | None = None
        if run is not None:
            self._open(run, journal, "steps" if self._external else keep, spec or {})
        self._plan_next_save()

    # What a user sees -------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Step]:
        """Take steps until the loop ends, and yield each; a `break` is a pause.

        Between two steps the loop does what it was asked for. A step is observed, recorded and
        answered before anyone sees it.
        """
        if not self._wake():
            return
        advance, observe, session = self.process.step, self.until.observe, self._session
        inbox, watchers, new = self._control.inbox, self._watchers(), object.__new__
        while True:
            if inbox and self._attend():
                return
            try:
                report = advance()
                tick = self.tick = self.tick + 1
                position = self.position = self.position + 1
                step = new(Step)  # as Step(tick, position, report), which takes twice as long
                step.tick, step.position, step.report = tick, position, report
                step._output, step.item, step.results = None, None, ()
                self._state, fired = observe(self._state, step)
                if session is not None:
                    session.step(tick, position, report)
                if "output" in report:
                    self.output = report["output"]
                for watch in watchers:
                    watch(step)
                if fired is not None or "ended" in report:
                    self._answer(step, fired)
                if tick >= self._next_save and self.stopped is None:
                    self._save_or_replay()
            except Exhausted as end:
                self._end(Stopped(end.kind, str(end)))
                return
            except BaseException as error:
                self._break_off(error)
                raise
            yield step
            if self.stopped is not None:
                return

    def run(self, watch: Callable[[Step], object] | None = None) -> Stopped:
        """Run to the end and return why it stopped; `watch` is called with every step."""
        with self:
            for step in self:
                if watch is not None:
                    watch(step)
        assert self.stopped is not None
        return self.stopped

    def pause(self, reason: str = "It was paused.") -> None:
        """End the loop at the next step boundary; going on later is possible."""
        self._control.ask_to("pause", reason)

    def stop(self, reason: str = "It was stopped by a person.") -> None:
        """End the loop at the next step boundary, for good."""
        self._control.ask_to("stop", reason)

    def change(self, edits: Edits) -> None:
        """Apply edits to the process at the next step boundary (journaled first)."""
        self._control.ask_for(edits)

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Save where the loop stands, wait until the journal has it all, and let go of the run."""
        if self._session is None or self._closed:
            return
        self._closed = True
        if self.stopped is None:
            self._save(regular=False)
            self._session.finish("paused", None, self.tick, self.position)
        self._session.close()

    # Between and beside the steps ----------------------------------------------------------------

    def _wake(self) -> bool:
        """Go on where the loop stands; False where it has ended for good."""
        if self._final:
            return False
        if self._closed:
            raise RunError(
                "A loop that was closed must not be iterated again. Build another Loop with the "
                "same run: it goes on."
            )
        self.stopped = None
        self._state = self.until.wake(self._state)
        if self._lanes is not None:
            self._lanes.wake()
        return True

    def _attend(self) -> bool:
        """Do what was asked for; True where that was to end."""
        end = self._control.take(self._edit_log, self.tick, self._session)
        if end is not None:
            self._end(*end)
        return end is not None

    def _watchers(self) -> list[Callable[[Step], None]]:
        """Return what looks at every step of this loop; most loops have none."""
        watchers: list[Callable[[Step], None]] = []
        if self._external and self._session is not None:
            watchers.append(self._keep_received)
        if self._lanes is not None:
            watchers.append(self._hand_over)
        if self._missing.names:
            watchers.append(self._look_for_names)
        return watchers

    def _keep_received(self, step: Step) -> None:
        """Wait until what came from outside is kept, before anything further is asked for."""
        if self._session is not None and step.report["lanes"]:
            self._session.flush()

    def _hand_over(self, step: Step) -> None:
        """Give results to the journal; they are committed before anyone is told of them."""
        if self._lanes is None or not self._lanes.finished:
            return
        step.results = self._lanes.take_finished()
        if self._session is not None:
            for key, row in step.results:
                self._session.result(key, row)
            self._session.flush()

    def _look_for_names(self, step: Step) -> None:
        if self._missing.names:
            self._missing.observe(step.report)

    # Ends and answers -------------------------------------------------------------------------

    def _answer(self, step: Step, fired: Stopped | None) -> None:
        ended = step.report.get("ended")
        natural = None if ended is None else Stopped(StopKind.ENDED, str(ended), "ended")
        stopped = first((fired, natural))
        assert stopped is not None
        history = History(
            step.position, tuple(self._attempts), step.output, marked=self._save_points.attempts
        )
        if stopped.kind is StopKind.BUDGET:  # no answer can give it back
            self._end(stopped)
            return
        answer = self._on_stop(stopped, history)
        if isinstance(answer, Accept | GiveUp):
            reason = f"{answer.reason} " if isinstance(answer, GiveUp) and answer.reason else ""
            self._end(replace(stopped, sentence=reason + stopped.sentence))
            return
        if (exhausted := self.until.exhausted(self._state)) is not None:
            self._end(exhausted)
            return
        attempt = Attempt(0, len(self._attempts), step.position, stopped, answer)
        self._attempts.append(attempt)
        if self._session is not None:
            self._session.event("answer", self.tick, attempt.to_json())
        if isinstance(answer, GoBack):
            self._go_back(answer)
        else:
            self._start_over(answer)

    def _end(self, stopped: Stopped, status: str = "stopped") -> None:
        self.stopped = stopped
        self._final = status != "paused"
        if self._session is None:
            return
        self._session.finish(status, stopped, self.tick, self.position, **self._checkpoint())

    def _break_off(self, error: BaseException) -> None:
        """An error is journaled, then raised again; an interrupt leaves the run resumable."""
        self._final = True
        failed = isinstance(error, Exception)
        if failed:
            sentence = f"{type(error).__name__}: {error}"
            self.stopped = Stopped(StopKind.ERROR, sentence, "error", {"tick": self.tick})
        if self._session is not None:
            why = ("error", self.stopped) if failed else ("interrupted", None)
            self._session.finish(*why, self.tick, self.position)
            self._session.close()
            self._closed = True

    # Checkpoints ------------------------------------------------------------------------------

    def _save_or_replay(self) -> None:
        if self._save_points.due(self.tick):
            self._save(regular=True)
        self._edit_log.replay_due(self.tick)
        self._plan_next_save()

    def _plan_next_save(self) -> None:
        self._next_save = min(self._save_points.next(self.tick), self._edit_log.waiting)

    def _save(self, *, regular: bool) -> None:
        if self._session is None and self._begin is None:
            return
        if regular:
            self._remember_save_point()
        if self._session is not None and (checkpoint := self._checkpoint()):
            self._session.checkpoint(self.tick, self.position, **checkpoint)

    def _checkpoint(self) -> dict[str, Any]:
        """Return the state to save and how many are kept; nothing where none are."""
        every = self._save_points.every
        if every is None:
            return {}
        state = self._payload()
        return {"state": state, "keep": every.keep + 1, "needed": self._save_points.ticks}

    def _remember_save_point(self) -> None:
        state = None
        if self._session is None:  # in memory
            state = {**self._copy_of_process(), "until": copy.deepcopy(self._state)}
        self._save_points.remember(SavePoint(self.tick, self.position, len(self._attempts), state))

    def _copy_of_process(self) -> dict[str, object]:
        return {"process": copy.deepcopy(self.process.state_dict()), "until": self._state}

    def _payload(self) -> dict[str, object]:
        return {
            "format": 1,
            "process": self.process.state_dict(),
            "until": self._state,
            "spelling": str(self.until),
            "attempts": [attempt.to_json() for attempt in self._attempts],
            "marks": self._save_points.to_json(),
            "changes": self._edit_log.count,
        }

    def _go_back(self, answer: GoBack) -> None:
        mark = self._save_points.at_most(self.position if answer.to is None else answer.to)
        if mark is None:
            self._start_over(StartOver(answer.edits))
            return
        self._return_to(mark.position, mark.state or self._saved(mark.tick), answer.edits)

    def _start_over(self, answer: StartOver) -> None:
        assert self._begin is not None
        self._save_points.clear()
        self._return_to(0, self._begin, answer.edits)

    def _return_to(self, position: int, state: Mapping[str, object], edits: Edits) -> None:
        process = copy.deepcopy(state["process"])
        self.process.load_state_dict(cast(dict[str, object], process))
        same = state.get("spelling", str(self.until)) == str(self.until)
        then = cast(JSON, state["until"]) if same else self.until.begin()
        self._state = self.until.back(then, self._state)
        self.position = position
        if edits:
            self.process.change(edits)

    def _saved(self, tick: int) -> dict[str, object]:
        assert self._session is not None
        return saved_state(self._session.run, tick)

    # Runs -------------------------------------------------------------------------------------

    def _open(
        self,
        run: Run | str,
        journal: Journal | None,
        keep: Literal["steps", "results"],
        spec: Mapping[str, JSON],
    ) -> None:
        if isinstance(run, str):
            spec = {**settings(self.until, self._save_points.every, keep), **spec}
            run = find_or_create(run, journal, type(self.process).__name__, spec)
        self._session = RunSession(run, keep)
        self._control.connect(self._session)
        try:
            self._resume(self._session)
        except BaseException:
            self._session.close()
            raise
        if self._final:  # nothing is left to drive
            self._session.close()
            self._closed = True

    def _resume(self, session: RunSession) -> None:
        found = session.run.load()
        spelling = up_to_date(str(found[1]["spelling"])) if found else None
        note_condition(session, self.until, spelling)
        if found is None and isinstance(self.process, GeneratorProcess):
            refuse_generator(session.run)
        elif found is not None and spelling is not None:
            row, state = found
            self.tick, self.position = row.tick, row.position
            self._load(state, spelling)
            self._stay_stopped(session.run, spelling)
        if session.edits is not None:
            self._edit_log.begin(session.edits, self.tick, session)
            session.edits = None
            self._save(regular=False)
        elif self.stopped is None:
            self._edit_log.plan(session.run)
            self._edit_log.replay_due(self.tick)
        if self._lanes is not None:
            keep_compute_mode(session, self._lanes.compute_mode)
            self._lanes.adopt_results(dict(session.run.results()))
            if self._external:
                self._lanes.replay(recorded(session.run, self.tick))

    def _load(self, state: Mapping[str, object], spelling: str) -> None:
        self.process.load_state_dict(cast(dict[str, object], state["process"]))
        before = cast(JSON, state["until"])
        if spelling == str(self.until):
            self._state = self.until.wake(before)
        else:  # what was spent stays spent
            self._state = transfer_state(spelling, before, self.until)
        attempts = cast(list[dict[str, object]], state["attempts"])
        self._attempts = [Attempt.from_json(attempt) for attempt in attempts]
        assert self._session is not None
        there = {row.tick for row in self._session.run.checkpoints()}
        self._save_points.load(cast(list[tuple[int, int, int]], state["marks"]), there)
        self._edit_log.count = cast(int, state["changes"])

    def _stay_stopped(self, run: Run, spelling: str) -> None:
        """A run that its own conditions ended stays stopped until it is given others."""
        if run.status == "stopped" and run.stopped is not None and spelling == str(self.until):
            self.stopped, self._final = run.stopped, True
