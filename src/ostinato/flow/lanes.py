"""Flows as lanes: many in progress, whose texts are written in one batch.

A lane process. A lane is a flow, its only step that it returns.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from ostinato.errors import EditError, RunError
from ostinato.flow.hub import Hub
from ostinato.flow.recorded_error import words
from ostinato.flow.task import FlowSettings, FlowTask
from ostinato.journal import RunSession
from ostinato.loop import Lane, Report

if TYPE_CHECKING:
    from ostinato.flow.flow_function import FlowFunction
    from ostinato.flow.texts import Texts

WAIT = 0.05
"""Seconds that a step waits for a flow where no text is being written."""
SETTLE = 0.005
"""Seconds that a step waits for what flows ask next, after it has handed texts to them."""
PATIENCE = 3.0
"""Seconds that steps in progress have to end where a run pauses: then they are not made again."""
LOOK_EVERY = 0.5
"""Seconds between two looks whether a person has answered."""


class FlowsFailed(RunError):
    """Some flows have failed; all others are done. `errors` has what each raised, by key."""

    def __init__(self, message: str, errors: Mapping[str, BaseException]) -> None:
        super().__init__(message)
        self.errors = dict(errors)


class FlowLanes:
    """Runs a flow for each item, which are its arguments.

    `in_progress` is how many are in progress at once; those that wait for a person are not counted.
    `patient`: where all wait for one, steps go on until there is an answer.
    `text_slots` is how many texts are written at once. Flows that fail are left until all others
    are done; then `step` raises, so that they can go on. Without `keep_failed`, they end at once.
    """

    deterministic = True
    costs = ("tokens", "computed", "prompt", "cost", "calls")
    unit = "calls"
    known_edits: Mapping[str, Any] = {}

    def __init__(
        self,
        flow: FlowFunction[..., Any],
        *,
        settings: FlowSettings,
        text_slots: int = 16,
        in_progress: int = 256,
        single: bool = False,
        patient: bool = False,
        keep_failed: bool = True,
    ) -> None:
        self.flow = flow
        self.session: RunSession | None = None
        self._settings, self._text_slots = settings, text_slots
        self._in_progress, self._single, self._patient = in_progress, single, patient
        self._keep_failed = keep_failed
        self.slots = in_progress
        self._hub = Hub()
        self._tasks: dict[str, FlowTask] = {}
        self._new: list[FlowTask] = []
        self._texts: Texts | None = None
        self._modes: dict[str, str] = {}  # recorded ones
        self._looked = 0.0
        self._still = 0  # flows that waited or had failed at the last step

    @property
    def compute_mode(self) -> str:
        """How each model computes, those of checks too, as JSON by its name; "" before any has."""
        texts = {} if self._texts is None else self._texts.modes
        modes = {**self._modes, **texts, **self._settings.check_models.modes}
        known = {name: mode for name, mode in modes.items() if mode}
        return json.dumps(known, sort_keys=True) if known else ""

    def use_compute_mode(self, mode: str) -> None:
        """Let each model compute in its recorded mode."""
        self._modes = json.loads(mode)
        self._settings.check_models.use(self._modes)

    @property
    def tokens(self) -> int:
        """The tokens that were written in this session."""
        return 0 if self._texts is None else self._texts.tokens

    def counts(self) -> dict[str, int]:
        """Return how many flows are in progress, wait for a person, and have failed."""
        statuses = [task.status for task in self._tasks.values()]
        waiting, failed = statuses.count("waiting"), statuses.count("failed")
        working = len(statuses) - waiting - failed
        return {"in progress": working, "waiting": waiting, "failed": failed}

    def has_raised(self, error: BaseException) -> bool:
        """Whether an exception is one that a flow has ended with."""
        return any(task.error is error for task in self._tasks.values())

    # Lanes ------------------------------------------------------------------------------------

    def start(self, lane: Lane, item: object) -> None:
        """Start a flow at the next step, with what is recorded of it."""
        assert isinstance(item, Mapping)
        prefix = "" if self._single else prefix_of(lane.key)
        task = FlowTask(
            self.flow,
            item,
            key=lane.key,
            prefix=prefix,
            hub=self._hub,
            settings=self._settings,
        )
        self._tasks[lane.key] = task
        self._new.append(task)

    def rewind(self, lane: Lane, to: int) -> None:
        """Refuse edits: a flow is changed in its code."""
        raise EditError("A flow must not be edited while it runs. Change its code.")

    def output(self, key: str) -> object:
        """Return what the flow returned."""
        return self._tasks[key].value

    def drop(self, key: str) -> None:
        """Forget a flow."""
        self._tasks.pop(key)

    def step(self) -> Mapping[str, Report]:
        """Write a token of every text that flows wait for; return the flows that have ended.

        Raises `Unanswered` where all that are left wait for a person, and what a flow raised where
        those that are left have failed.
        """
        slots = self.slots
        self._start_new()
        done = self._work()
        texts = self._texts
        if texts is not None and texts.busy:
            done += texts.step()
        elif not done:
            self._hub.look(WAIT, self._has_news)
            done = self._work()
        if done:
            self._hub.settle(SETTLE)
            self._work()
        self._look_for_answers()
        # Those that wait or have failed take no room.
        self._still = self._count_still()
        self.slots = self._in_progress + self._still
        reports = self._reports()
        # With more slots, others may start before the next step.
        if not reports and not self._new and self.slots == slots:
            self._require_work()
        return reports

    def _start_new(self) -> None:
        new, self._new = self._new, []
        for task in new:
            task.start(self.session)

    def _work(self) -> int:
        """Do what flows have handed over; return how much of it is done already."""
        from ostinato.flow.texts import TextRequest

        done = 0
        for work, future in self._hub.take():
            if isinstance(work, TextRequest):
                self._with_texts().add(work, future)
            else:
                done += 1
                _do(work, future)  # type: ignore[arg-type]
        return done

    def _with_texts(self) -> Texts:
        from ostinato.flow.texts import Texts

        if self._texts is None:
            self._texts = Texts(self._text_slots, self._settings.seed)
            self._texts.use_modes(self._modes)
        return self._texts

    def _count_still(self) -> int:
        return sum(task.status in ("waiting", "failed") for task in self._tasks.values())

    def _has_news(self) -> bool:
        """Whether a flow has ended, or has begun to wait, since the last step."""
        ended = any(task.status in ("returned", "ended") for task in self._tasks.values())
        return ended or self._count_still() != self._still

    def _reports(self) -> dict[str, Report]:
        reports: dict[str, Report] = {}
        for key, task in self._tasks.items():
            if task.status == "returned":
                spent = {name: round(each, 6) for name, each in task.spent.items()}
                reports[key] = {"calls": 0, **spent, "ended": "The flow returned."}
            elif task.status == "failed" and not self._keep_failed:
                reports[key] = {"error": f"{words(task.error)} at {task.place_of_error}"}
        return reports

    # Those that cannot go on ------------------------------------------------------------------

    def _look_for_answers(self) -> None:
        """Start flows again whose question a person has answered meanwhile."""
        waiting = [task for task in self._tasks.values() if task.status == "waiting"]
        if not waiting or self.session is None or time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        for task in waiting:
            assert task.unanswered is not None
            if self.session.run.call(task.unanswered.path) is not None:
                task.status = "new"
                self._new.append(task)

    def _require_work(self) -> None:
        """Raise where no flow can go on."""
        tasks = self._tasks.values()
        if any(task.status in ("new", "running", "returned") for task in tasks):
            return
        waiting = [task.unanswered for task in tasks if task.status == "waiting"]
        if waiting and self._patient:
            return
        failed = {task.key: task.error for task in tasks if task.error is not None}
        if self.session is not None:
            for key in failed:
                self._record_failure(self._tasks[key])
        for unanswered in waiting:  # first: those can go on once they are answered
            if unanswered is not None:
                raise unanswered
        if self._single and failed:
            raise next(iter(failed.values()))
        if failed:
            raise FlowsFailed(self._why(failed), failed)

    def _record_failure(self, task: FlowTask) -> None:
        assert self.session is not None and task.error is not None
        told = {"key": task.key, "error": words(task.error), "place": task.place_of_error}
        self.session.event("failed", 0, told)

    def _why(self, failed: Mapping[str, BaseException]) -> str:
        key, error = next(iter(failed.items()))
        place = self._tasks[key].place_of_error
        count = "One flow has" if len(failed) == 1 else f"{len(failed)} flows have"
        return (
            f"{count} failed, the first with the key {key!r}: {words(error)}"
            f"{f' at {place}' if place else ''}. Mend it and run the same again: what was done is "
            "kept, and only these go on."
        )

    def close(self) -> None:
        """Unwind all flows in progress, and end all requests to servers; steps may end first."""
        self._hub.close(PATIENCE)
        if self._texts is not None:
            self._texts.close()


def prefix_of(key: str) -> str:
    """Return what the paths of the calls of a row's flow begin with."""
    return f"{key.replace('%', '%25').replace('/', '%2F')}/"


def key_of(path: str) -> str:
    """Return the key of the row in whose flow a call is, by its path."""
    return path.partition("/")[0].replace("%2F", "/").replace("%25", "%")


def _do(work: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
        if not isinstance(error, Exception):  # Ctrl-C is the computing thread's own
            raise
