"""Calls that are made once: their answers are on the disk before anyone acts on them.

Knows no flow. Who resumes a run makes the same calls under the same paths, and gets the answers
that are recorded. Threads that wait for the disk at once share one sync.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from ostinato.arguments import require
from ostinato.errors import CallError, RunError, Unanswered
from ostinato.journal.artifacts.artifact import collecting, reader
from ostinato.journal.creation import create_run
from ostinato.journal.encoding import decode, encode_exactly
from ostinato.journal.place import runs_command
from ostinato.journal.records import Answered, Call
from ostinato.journal.run import Run
from ostinato.journal.sqlite.tables import RunTables
from ostinato.journal.stops import JSON
from ostinato.journal.writer import WriterThread

if TYPE_CHECKING:
    from concurrent.futures import Future

LOOK = 0.1
"""Seconds between two looks at a question that a person is to answer."""
LONGEST_PATH = 1000  # characters


class _InFlight(NamedTuple):
    """A call that a thread is making: its arguments as JSON, and its answer when there is one."""

    arguments: str
    answer: Future[JSON]


class DurableCalls:
    """The calls of one session. Every method may be used by many threads at once."""

    def __init__(self, run: Run, writer: WriterThread) -> None:
        self._run, self._writer = run, writer
        self._lock = Lock()
        self._in_flight: dict[str, _InFlight] = {}

    def call(
        self,
        path: str,
        function: Callable[..., object],
        arguments: Mapping[str, object],
        *,
        record_errors: bool,
    ) -> JSON:
        """Return the recorded answer, or call the function and record what it returns."""

        def make(text: str) -> JSON:
            self._require_free(path, "call")
            try:
                return self._answered(Answered(path, text), function(**arguments))
            except Exception as error:
                if not record_errors:
                    raise
                words = f"{type(error).__name__}: {error}"
                self._record(Answered(path, text, error=words))
                raise _failed(path, words) from error

        return self._once(path, arguments, make)

    def record(
        self,
        path: str,
        arguments: str,
        answer: object,
        error: str | None,
        *,
        synced: bool,
        late: bool,
    ) -> JSON:
        """Record the answer of a call that somebody else has made, see `RunSession.record_call`."""
        call = Answered(path, arguments, error=error)
        return self._answered(call, answer, synced=synced, late=late)

    def call_run(
        self,
        path: str,
        function: Callable[[Run], object],
        *,
        kind: str,
        spec: Mapping[str, JSON],
        name: str | None,
    ) -> JSON:
        """Return the recorded answer, or hand the run that this one calls to the function."""

        def make(text: str) -> JSON:
            self._require_free(path, "called run")
            child = self._child(path, kind, spec, name)
            answer = function(child)
            _require_ended(child, path)
            return self._answered(Answered(path, text, child=child.id), answer)

        return self._once(path, {"kind": kind, "spec": dict(spec)}, make)

    def ask(self, path: str, question: str, options: Sequence[str], seconds: float | None) -> JSON:
        """Return the answer of a person, or wait for it."""
        asked = {"question": question, "options": list(options)}
        return self._once(path, asked, lambda text: self._wait(path, text, seconds))

    # Once -------------------------------------------------------------------------------------

    def _once(
        self, path: str, arguments: Mapping[str, object], make: Callable[[str], JSON]
    ) -> JSON:
        """Return what is recorded of a path, else what one of the threads that call it makes."""
        from concurrent.futures import Future  # it brings logging, which most runs do without

        right = isinstance(path, str) and 0 < len(path) <= LONGEST_PATH
        require(right, "The path of a call", f"a text of 1 to {LONGEST_PATH} characters", path)
        text = encode_exactly(arguments, f"The arguments of the call {path!r}")
        with self._lock:
            other = self._in_flight.get(path)
            mine = self._in_flight[path] = other or _InFlight(text, Future())
        if other is not None:
            self._require_same(path, decode(other.arguments), decode(text))
            return copy.deepcopy(other.answer.result())
        try:
            found = self._run.call(path)
            answer = make(text) if found is None else self._recorded(found, decode(text))
            mine.answer.set_result(answer)
            return answer
        except BaseException as error:
            mine.answer.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._in_flight[path]

    def _recorded(self, call: Call, arguments: Mapping[str, object]) -> JSON:
        self._require_same(call.path, call.arguments, arguments)
        if call.error is not None:
            raise _failed(call.path, call.error)
        return call.answer

    def _require_same(
        self, path: str, recorded: Mapping[str, object], now: Mapping[str, object]
    ) -> None:
        """Raise `RunError` where a path has other arguments than it was recorded with."""
        if recorded == now:
            return
        changed = [
            f"{name} (was {_shown(recorded, name)}, is {_shown(now, name)})"
            for name in {**recorded, **now}
            if name not in recorded or name not in now or recorded[name] != now[name]
        ]
        raise RunError(
            f"The call {path!r} of the run {self._run.name!r} must have the arguments with which "
            f"it was recorded, got new values for {', '.join(changed)}. Give the call another "
            "path, or start another run."
        )

    def _require_free(self, path: str, use: str) -> None:
        """Raise `RunError` where a path without an answer is that of a question or a called run
        already, and is now used for something else."""
        rows = self._run.database.query(
            "SELECT 'question' FROM requests "
            "WHERE run = ?1 AND action = 'ask' AND path = ?2 AND done IS NULL "
            "UNION ALL SELECT 'called run' FROM runs WHERE caller = ?1 AND caller_path = ?2",
            (self._run.id, path),
        )
        for (there,) in rows:
            if there != use:
                raise RunError(
                    f"The path {path!r} of the run {self._run.name!r} must be that of one {there}, "
                    f"which has no answer yet, got a {use}. Give the {use} another path."
                )

    # One call ---------------------------------------------------------------------------------

    def _answered(
        self, call: Answered, answer: object, *, synced: bool = True, late: bool = False
    ) -> JSON:
        """Record the answer of a call; return it as a resumed run gets it."""
        tensors: list[Any] = []
        what = f"The answer of the call {call.path!r}"
        text = encode_exactly(answer, what, collecting(tensors))
        self._record(call._replace(answer=text, tensors=tensors), synced=synced, late=late)
        value: JSON = reader(self._run.database)(text)
        return value

    def _record(self, call: Answered, *, synced: bool = True, late: bool = False) -> None:
        tick = self._writer.tick
        self._writer.commit(lambda store: store.add_call(call, tick, late=late), synced=synced)

    def _child(self, path: str, kind: str, spec: Mapping[str, JSON], name: str | None) -> Run:
        """Return the run that a path calls: a new one, or the one that an earlier session made."""
        rows = self._run.database.query(
            "SELECT id FROM runs WHERE caller = ? AND caller_path = ?", (self._run.id, path)
        )
        if not rows:
            called = name or f"{self._run.name}-{path}"
            return create_run(
                self._run.database,
                called,
                kind=kind,
                spec=spec,
                caller=(self._run.id, path),
                numbered=name is None,
            )
        row = (child := Run(self._run.database, rows[0][0])).now()
        known = {name: row.spec.get(name) for name in spec}  # the run itself may have added some
        same = decode(encode_exactly(spec, "The spec of a run"))
        self._require_same(path, {"kind": row.kind, **known}, {"kind": kind, **same})
        return child

    def _wait(self, path: str, text: str, seconds: float | None) -> JSON:
        self._require_free(path, "question")
        tick = self._writer.tick
        self._writer.commit(lambda store: store.ask(path, tick, text))
        until = None if seconds is None else time.monotonic() + seconds
        while (call := self._run.call(path)) is None:
            left = LOOK if until is None else until - time.monotonic()
            if left <= 0 or any(each.action != "change" for each in self._writer.inbox):
                raise _unanswered(self._run, path)
            time.sleep(min(LOOK, left))
            self._writer.raise_error()
        self._writer.commit(RunTables.go_on)
        return call.answer


def _require_ended(child: Run, path: str) -> None:
    """Raise where a run that was called can be resumed: what it returned is no answer yet.

    `Unanswered` where it waits for a person, else `RunError`.
    """
    questions, status = child.questions(), child.status
    if status == "waiting" and questions:
        raise _unanswered(child, questions[0].path)
    if status in ("waiting", "paused"):
        raise RunError(
            f"The run {child.name!r}, called at {path!r}, must end before the call has an answer, "
            f"got {status}. Resume the run that called it."
        )


def _unanswered(run: Run, path: str) -> Unanswered:
    line = runs_command(run.database.path, "answer", run.name)
    return Unanswered(
        f"The question {path!r} of the run {run.name!r} has no answer yet. Answer it, and resume "
        f"the run: {line} …",
        run.id,
        path,
    )


def _failed(path: str, words: str) -> CallError:
    return CallError(f"The call {path!r} has failed: {words}", path)


def _shown(values: Mapping[str, object], name: str) -> str:
    text = repr(values[name]) if name in values else "missing"
    return text if len(text) <= 60 else f"{text[:57]}..."
