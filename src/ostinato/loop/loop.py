"""The only driver: steps a process until a condition fires, records it, saves it, goes back.

Knows no family of processes. What `Lanes` does for many lanes, this does for one process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal

from ostinato.arguments import require_arguments
from ostinato.errors import RunError, Unanswered
from ostinato.journal import (
    JSON,
    Fields,
    Journal,
    Run,
    RunSession,
    RunSource,
    StopKind,
    Stopped,
    first,
)
from ostinato.loop.actions import (
    Accept,
    Action,
    Attempt,
    GiveUp,
    GoBack,
    History,
    OnStop,
    StartOver,
    accept,
    answered,
)
from ostinato.loop.adapters import GeneratorProcess, as_process
from ostinato.loop.checkpoint_schedule import CheckpointSchedule, SavePoint, SavePoints
from ostinato.loop.conditions.base import Never, as_condition
from ostinato.loop.conditions.missing_metrics import MissingMetrics
from ostinato.loop.conditions.parser import transfer_state, up_to_date
from ostinato.loop.control import Control, StopRequest
from ostinato.loop.edit_log import EditLog
from ostinato.loop.lanes import Lanes
from ostinato.loop.process import Exhausted, ExternalSource, Process
from ostinato.loop.replay import recorded
from ostinato.loop.run_setup import (
    begins_at,
    end_of_generator,
    find_or_create,
    keep_compute_modes,
    loop_settings,
    record_condition,
    record_known_edits,
    recorded_report,
    refuse_going_back,
    saved_state,
    use_recorded_modes,
)
from ostinato.loop.signals import LoopInterrupted, saved_at_signals
from ostinato.loop.step import Step
from ostinato.loop.timeline import Edits

FORMAT = 1
"""The version of the form in which a loop's state is saved."""


class Loop:
    """Runs a process until a condition fires; without `until`, until it ends or a person stops it.

    `process` is a `Process`, a callable (called once a step; a result that is no mapping becomes
    the report's `output`) or a generator (function). `on_stop` answers a stop; by default every
    stop is accepted. `run` is a name, a `Run` or a function that returns one: the loop is
    journaled, and resumes that run.
    `checkpoint` says how often the state is saved: in the run, or without one in memory where
    `on_stop` may go back. `keep="results"` journals results but no steps; the steps of an
    `ExternalSource`, which could not be computed again, are journaled all the same.
    `spec` is recorded with a run that this loop creates: with `factory` ("package.module:function")
    and `args` the command line can build the process again and resume the run.

    Iterate over it (`for step in loop:`; a `break` is a pause), or call `run()`. Raises
    `InputError` for what cannot work, before the first step, and `RunLocked` where another process
    drives the run. An exception of the process is journaled as an error, then raised again.
    Where it asks a person through `session` and has no answer, the loop ends, and its run waits.
    """

    def __init__(
        self,
        process: object,
        *,
        until: object = None,
        on_stop: OnStop = accept,
        run: RunSource | str | None = None,
        journal: Journal | None = None,
        checkpoint: CheckpointSchedule | None = None,
        keep: Literal["steps", "results"] = "steps",
        spec: Mapping[str, JSON] | None = None,
    ) -> None:
        require_arguments(Loop.__init__, locals())
        self.process: Process = as_process(process)
        self.until = Never() if until is None else as_condition(until)
        self.stopped: Stopped | None = None
        self.output: object = None
        self.tick = 0
        self.position = 0
        self._on_stop = on_stop
        self._state: JSON = self.until.initial_state()
        self._attempts: list[Attempt] = []
        self._control = Control()
        self._edit_log = EditLog(self.process)
        self._missing = MissingMetrics(self.process, self.until)
        self._closed = self._final = self._end_saved = False
        self._lanes = self.process if isinstance(self.process, Lanes) else None
        self._external = self._lanes is not None and isinstance(self._lanes.process, ExternalSource)
        self._mode = ""  # the lanes' compute mode, as it is recorded
        if isinstance(self.process, GeneratorProcess):
            refuse_going_back(checkpoint, on_stop)
        elif checkpoint is None and (run is not None or on_stop is not accept):
            # Otherwise nothing is ever resumed or returned to, so nothing is copied.
            checkpoint = CheckpointSchedule()
        self._save_points = SavePoints(checkpoint)
        self._initial_state = self._copy_of_process() if on_stop is not accept else None
        self._guards: list[AbstractContextManager[None]] = []
        self._session: RunSession | None = None
        if run is not None:
            self._open(run, journal, "steps" if self._external else keep, spec or {})
        self._plan_next_save()

    # What a user sees -------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Step]:
        """Take steps until the loop ends, and yield each one; a `break` is a pause.

        Requests take effect between two steps. Nobody sees a step before it has been observed,
        recorded and answered.
        """
        if not self._wake():
            return
        # Looked up once: the loop adds only a few microseconds to a step.
        advance, observe, session = self.process.step, self.until.observe, self._session
        inbox, watchers, new = self._control.inbox, self._watchers(), object.__new__
        while True:
            if inbox and self._attend():
                return
            try:
                report = advance()
                tick = self.tick = self.tick + 1
                position = self.position = self.position + 1
                step = new(Step)  # Step(tick, position, report) would take twice as long
                step.tick, step.position, step.report = tick, position, report
                step._output, step.item, step.results = None, None, ()
                self._state, fired = observe(self._state, step)
                if session is not None:
                    session.step(tick, position, report)
                if "output" in report:
                    self.output = report["output"]
                if watchers:
                    for watch in watchers:
                        watch(step)
                if fired is not None or "ended" in report:
                    self._answer(step, fired)
                if tick >= self._next_save and self.stopped is None:
                    self._save_or_replay()
            except Exhausted as end:
                self._end(Stopped(end.kind, str(end)))
                return
            except Unanswered as error:
                self._leave_waiting(error)
                return
            except LoopInterrupted:
                self._leave_interrupted()
                return
            except BaseException as error:  # Ctrl-C, too: its run is journaled as interrupted
                self._break_off(error)
                raise
            yield step
            if self.stopped is not None:
                return

    @property
    def session(self) -> RunSession | None:
        """What records this loop, for durable calls and questions; None without a journal.

        The steps, and the end, are recorded by the loop.
        """
        return self._session

    def share(self, last: Step) -> float | None:
        """Return how much of the way to the condition's limit is done, in [0, 1].

        `last` is the last step. None where the condition has no limit.
        """
        return self.until.share(self._state, last)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The stops that were answered with going back or starting over, oldest first."""
        return tuple(self._attempts)

    @property
    def recorded_as(self) -> Run | None:
        """The run that records this loop; None for a loop without a journal."""
        return None if self._session is None else self._session.run

    def run(self, watch: Callable[[Step], object] | None = None) -> Stopped:
        """Run to the end and return why it stopped; `watch` is called with every step."""
        with self:
            for step in self:
                if watch is not None:
                    watch(step)
        assert self.stopped is not None
        return self.stopped

    def pause(self, reason: str = "It was paused.") -> None:
        """End the loop at the next step boundary; it can be resumed later."""
        self._control.request_end("pause", reason)

    def stop(self, reason: str = "It was stopped by a person.") -> None:
        """End the loop at the next step boundary, for good."""
        self._control.request_end("stop", reason)

    def change(self, edits: Edits) -> None:
        """Apply edits to the process at the next step boundary; they are journaled first."""
        self._control.request_edits(edits)

    def __enter__(self) -> Loop:
        is_run = self._session is not None and not self._final
        guard = saved_at_signals(self, is_run=is_run, is_saved=lambda: self._end_saved)
        guard.__enter__()
        self._guards.append(guard)  # several: `run` within a `with` block enters once more
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        finally:
            self._guards.pop().__exit__(kind, error, traceback)

    def close(self) -> None:
        """Save the state, wait until the journal has everything, and release the run."""
        if self._session is None or self._closed:
            return
        self._closed = True
        if self.stopped is None:
            self._save(regular=False)
            self._session.finish("paused", None, self.tick, self.position)
        self._session.close()

    # Beside the steps -------------------------------------------------------------------------

    def _wake(self) -> bool:
        """Prepare to take steps; False where the loop has ended for good."""
        if self._final:
            return False
        if self._closed:
            raise RunError(
                "A loop that was closed must not be iterated again. Build another Loop with the "
                "same run to resume it."
            )
        self.stopped, self._end_saved = None, False
        self._state = self.until.wake(self._state)
        if self._lanes is not None:
            self._lanes.wake()
        return True

    def _attend(self) -> bool:
        """Do what was requested; True where that was to end."""
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
            watchers.append(self._record_results)
        if self._missing.names:
            watchers.append(self._look_for_names)
        return watchers

    def _keep_received(self, step: Step) -> None:
        """Wait until what came from outside is committed, before anything more is requested."""
        if self._session is not None and step.report["lanes"]:
            self._session.flush()

    def _record_results(self, step: Step) -> None:
        """Give results to the journal; they are committed before anyone sees them."""
        if self._lanes is None:
            return
        if self._session is not None and self._lanes.compute_mode != self._mode:
            # A model that is loaded only now has chosen how it computes.
            self._mode = self._lanes.compute_mode
            keep_compute_modes(self._session, self._lanes.computing)
        if not self._lanes.finished:
            return
        step.results = self._lanes.take_finished()
        if self._session is not None:
            for result in step.results:
                self._session.result(result.key, result.to_json())
            self._session.flush()

    def _look_for_names(self, step: Step) -> None:
        if self._missing.names:
            self._missing.observe(step.report)

    # Ends and actions -------------------------------------------------------------------------

    def _answer(self, step: Step, fired: Stopped | None) -> None:
        """End, or take the action that `on_stop` answers to the stop of this step."""
        ended = step.report.get("ended")
        natural = None if ended is None else Stopped(StopKind.ENDED, str(ended), "ended")
        stopped = first((fired, natural))
        assert stopped is not None
        if stopped.kind is StopKind.BUDGET:  # going back would not give back what was spent
            self._end(stopped)
            return
        history = History(
            step.position, tuple(self._attempts), step.output, marks=self._save_points.marks
        )
        action = answered(self._on_stop, stopped, history)
        if isinstance(action, Accept | GiveUp):
            reason = f"{action.reason} " if isinstance(action, GiveUp) and action.reason else ""
            self._end(replace(stopped, sentence=reason + stopped.sentence))
        elif (exhausted := self.until.exhausted(self._state)) is not None:
            self._end(exhausted)
        else:
            self._try_again(step.position, stopped, action)

    def _try_again(self, position: int, stopped: Stopped, action: Action) -> None:
        # A loop has no rounds: each attempt counts as one more going back.
        attempt = Attempt(0, len(self._attempts), position, stopped, action)
        self._attempts.append(attempt)
        if self._session is not None:
            self._session.event("answer", self.tick, attempt.to_json())
        if isinstance(action, GoBack):
            self._go_back(action)
        else:
            self._start_over(action.edits if isinstance(action, StartOver) else {})

    def _end(self, stopped: Stopped, status: str = "stopped") -> None:
        self.stopped = stopped
        self._final = status != "paused"
        if self._session is not None:
            saved = self._checkpoint()
            self._session.finish(status, stopped, self.tick, self.position, **saved)
        self._end_saved = True

    def _break_off(self, error: BaseException) -> None:
        """Journal an error, which is raised again; an interrupt leaves the run resumable.

        No checkpoint is written: the process may be in the middle of its step.
        """
        failed = isinstance(error, Exception)
        if failed:
            sentence = f"{type(error).__name__}: {error}"
            self.stopped = Stopped(StopKind.ERROR, sentence, "error", {"tick": self.tick})
        self._leave("error" if failed else "interrupted", self.stopped if failed else None)

    def _leave_waiting(self, error: Unanswered) -> None:
        """End where the process waits for a person; a resumed run takes the step again.

        A question of another run, such as the caller, is raised again.
        """
        own = self._session is not None and self._session.run.id == error.run
        end = self._control.take_end(self.tick, self._session)
        asked = Stopped(StopKind.PERSON, str(error), "ask", {"tick": self.tick, "path": error.path})
        self.stopped, status = end or StopRequest(asked, "paused")
        self._leave(status, self.stopped)
        if not own:
            raise error

    def _leave_interrupted(self) -> None:
        """End where a loop within the step was paused; a resumed run takes the step again."""
        end = self._control.take_end(self.tick, self._session)
        assert end is not None  # the signal has paused this loop, too
        self.stopped, status = end
        self._leave(status, self.stopped)

    def _leave(self, status: str, stopped: Stopped | None) -> None:
        """End in the middle of a step: without a checkpoint, and for good."""
        self._final = True
        if self._session is not None:
            self._session.finish(status, stopped, self.tick, self.position)
            self._session.close()
            self._closed = True
        self._end_saved = True

    def _go_back(self, action: GoBack) -> None:
        point = self._save_points.at_most(self.position if action.to is None else action.to)
        if point is None:
            self._start_over(action.edits)
            return
        state = point.state
        if state is None:
            assert self._session is not None
            state = saved_state(self._session.run, point.tick)
        self._return_to(point.position, state, action.edits)

    def _start_over(self, edits: Edits) -> None:
        assert self._initial_state is not None
        self._save_points.clear()
        self._return_to(0, self._initial_state, edits)

    def _return_to(self, position: int, state: Mapping[str, Any], edits: Edits) -> None:
        process = copy.deepcopy(state["process"])  # it may be returned to again
        self.process.load_state_dict(process)
        # A state saved under another condition, before a resume, has nothing that fits this one.
        same = state.get("spelling", str(self.until)) == str(self.until)
        then = state["until"] if same else self.until.initial_state()
        self._state = self.until.back(then, self._state)
        self.position = position
        if edits:
            self.process.change(edits)

    # Checkpoints ------------------------------------------------------------------------------

    def _save_or_replay(self) -> None:
        if self._save_points.is_scheduled(self.tick):
            self._save(regular=True)
        self._edit_log.replay_up_to(self.tick)
        self._plan_next_save()

    def _plan_next_save(self) -> None:
        # One tick for both, so that a step costs one comparison.
        self._next_save = min(self._save_points.next(self.tick), self._edit_log.waiting)

    def _save(self, *, regular: bool) -> None:
        """Save the state. Only a regular checkpoint, one on the schedule, can be returned to."""
        if self._session is None and self._initial_state is None:
            return
        if regular:
            state = None
            if self._session is None:  # in memory
                state = {**self._copy_of_process(), "until": copy.deepcopy(self._state)}
            point = SavePoint(self.tick, self.position, len(self._attempts), state)
            self._save_points.remember(point, self.until.last_good(self._state))
        if self._session is not None and (checkpoint := self._checkpoint()):
            self._session.checkpoint(self.tick, self.position, **checkpoint)

    def _checkpoint(self) -> dict[str, Any]:
        """Return the state to save and how many are kept; nothing where none are."""
        schedule = self._save_points.schedule
        if schedule is None:
            return {}
        # One more than can be returned to: the last one need not be on the schedule.
        keep, needed = schedule.keep + 1, self._save_points.ticks
        return {"state": self._saved_state(), "keep": keep, "needed": needed}

    def _copy_of_process(self) -> dict[str, object]:
        # Deep: `state_dict` may return the very tensors that the next step changes.
        return {"process": copy.deepcopy(self.process.state_dict()), "until": self._state}

    def _saved_state(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "process": self.process.state_dict(),
            "until": self._state,
            "spelling": str(self.until),
            "attempts": [attempt.to_json() for attempt in self._attempts],
            "marks": self._save_points.to_json(),
            "changes": self._edit_log.count,
        }

    # Runs -------------------------------------------------------------------------------------

    def _open(
        self,
        run: RunSource | str,
        journal: Journal | None,
        keep: Literal["steps", "results"],
        spec: Mapping[str, JSON],
    ) -> None:
        """Drive a run: find or create it, and resume from its last checkpoint."""
        spec = {**loop_settings(self.until, self._save_points.schedule, keep), **spec}
        if isinstance(run, str):
            run = find_or_create(run, journal, type(self.process).__name__, spec)
        made = run if isinstance(run, Run) else run()  # now that everything else is right
        session = self._session = RunSession(made, keep)
        if made is not run and made.status == "new":
            session.amend(spec)
        self._control.connect(session)
        try:
            self._resume(session)
        except BaseException:
            session.close()
            raise
        if self._final:  # nothing is left to drive
            session.close()
            self._closed = True

    def _resume(self, session: RunSession) -> None:
        run, found = session.run, session.run.load()
        if isinstance(self.process, GeneratorProcess) and run.tick:
            self._stay_ended(run)
            return
        spelling = None if found is None else up_to_date(str(found[1]["spelling"]))
        record_condition(session, self.until, spelling)
        use_recorded_modes(session, self._computing)  # before a saved lane is computed again
        if found is not None:
            row, state = found
            self.tick, self.position = row.tick, row.position
            self._load(run, state)
            if run.status == "stopped" and run.stopped is not None and spelling == str(self.until):
                # Its own conditions ended it: it stays stopped until it is given others.
                self.stopped, self._final = run.stopped, True
        record_known_edits(session, self.process)
        self._resume_edits(session)
        keep_compute_modes(session, self._computing)
        if self._lanes is not None:
            self._mode = self._lanes.compute_mode
            if run.count_results():
                self._lanes.adopt_results(run.result)
            if self._external:
                self._lanes.replay(recorded(run, self.tick))
        other = spelling not in (None, str(self.until))
        if self.stopped is None and (other or begins_at(run, self.tick)):
            self._end_where_reached(run)

    @property
    def _computing(self) -> Mapping[str, object]:
        """What may choose how it computes, by the name that a run records its mode under."""
        return {"compute_mode": self.process} if self._lanes is None else self._lanes.computing

    def _stay_ended(self, run: Run) -> None:
        """Show a generator's run as it ended: nothing more can come."""
        self.stopped, self._final = end_of_generator(run, self.until), True
        now = run.now()
        self.tick, self.position = now.tick, now.position

    def _end_where_reached(self, run: Run) -> None:
        """End without another step where the conditions of a branch, or new ones, hold already."""
        last = Step(self.tick, self.position, recorded_report(run, self.tick))
        reached = self.until.reached(self._state, last)
        if reached is not None:
            self._end(reached)

    def _load(self, run: Run, state: Mapping[str, Any]) -> None:
        saved = Fields(state)
        self.process.load_state_dict(state["process"])
        spelling, before = up_to_date(saved.text("spelling")), state["until"]
        if spelling == str(self.until):
            self._state = self.until.wake(before)
        else:  # what was spent stays spent
            self._state = transfer_state(spelling, before, self.until)
        self._attempts = [Attempt.from_json(each.value) for each in saved.objects("attempts")]
        there = {row.tick for row in run.checkpoints()}
        self._save_points.load(saved.items("marks"), there)
        self._edit_log.count = saved.integer("changes")

    def _resume_edits(self, session: RunSession) -> None:
        """Apply a branch's edits, or plan to repeat those that came after the saved state."""
        if session.edits is not None:
            self._edit_log.start_branch(session.edits, self.tick, session)
            session.edits = None
            self._save(regular=False)  # a branch that is killed now must not apply them twice
        elif self.stopped is None:
            self._edit_log.plan(session.run)
            self._edit_log.replay_up_to(self.tick)
