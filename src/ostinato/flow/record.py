"""The calls of one flow: those that a run has recorded, and those that are made now.

A call that is recorded returns its answer; one that is not is made, and recorded before anyone acts
on it. Knows no kind of call.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ostinato.errors import InputError, RunError
from ostinato.flow import recorded_error
from ostinato.flow.frames import Frame, caller
from ostinato.flow.limits import Spent, add_to
from ostinato.flow.values import plain
from ostinato.journal import JSON, Call, RunSession, encode_exactly

FAILED = "error"
"""The entry of an answer that holds what is known of an exception."""


class FlowChanged(RunError):
    """The code of a flow makes another call than the one that was recorded at its place."""


class Made(NamedTuple):
    """What a call has returned, and what it spent."""

    value: object
    spent: Mapping[str, float] = {}
    synced: bool = False


class Places(NamedTuple):
    """The places that recorded calls lead through, without the prefix of their flow.

    `names` has the name of what was called at each: also of branches, and of flows that have not
    returned, which have no answer. `last` has the number of the last one in each frame.
    """

    names: Mapping[str, str] = {}
    last: Mapping[str, int] = {}

    @classmethod
    def of(cls, calls: Iterable[Call], prefix: str) -> Places:
        """Return the places of the calls of a flow."""
        names: dict[str, str] = {}
        last: dict[str, int] = {}
        for call in calls:
            above = ""
            for part in call.path.removeprefix(prefix).split("/"):
                number, _, name = part.partition(":")
                if number.isdecimal():  # else a version, or the run of a call
                    names[above + number] = name.partition("[")[0]
                    last[above] = max(last.get(above, 0), int(number))
                above += f"{part}/"
        return cls(names, last)

    def after(self, frame: str, calls: int) -> str | None:
        """Return the path of the first call that follows so many of a frame, None for none."""
        for number in range(calls + 1, self.last.get(frame, 0) + 1):
            name = self.names.get(f"{frame}{number}")
            if name is not None:
                return f"{frame}{number}:{name}"
        return None


class _Unrecorded(NamedTuple):
    path: str
    arguments: str
    error: Exception
    spent: Mapping[str, float]


@dataclass(slots=True)
class FlowRecord:
    """Reads and writes the calls of one flow, whose paths begin with `prefix`.

    `found` has the recorded calls by place, `places` all places that they lead through; without a
    session, calls are kept nowhere.
    """

    session: RunSession | None
    prefix: str = ""
    found: Mapping[str, Call] = field(default_factory=dict)
    places: Places = field(default_factory=Places)

    @classmethod
    def of(cls, session: RunSession | None, prefix: str) -> FlowRecord:
        """Read what is recorded of a flow."""
        if session is None:
            return cls(None, prefix)
        run = session.run
        calls = list(run.calls_under(prefix) if prefix else run.calls())
        found = {_place(call.path): call for call in calls}
        return cls(session, prefix, found, Places.of(calls, prefix))

    def next_path(self, frame: Frame, name: str) -> str:
        """Return the path of the frame's next call, without the prefix of the flow.

        Raises `FlowChanged` where a call of another name was recorded there.
        """
        place = frame.next_place()
        recorded = self.places.names.get(place, name)
        if recorded != name:
            raise FlowChanged(
                _changed(
                    f"the call '{self.prefix}{place}:{recorded}' was recorded, and "
                    f"'{self.prefix}{place}:{name}' is made now"
                )
            )
        return f"{place}:{name}"

    def call(
        self,
        frame: Frame,
        name: str,
        arguments: Mapping[str, object],
        make: Callable[[str], Made],
        within: Spent | None = None,
    ) -> Any:
        """Return the answer of the frame's next call: the recorded one, or that of `make(path)`.

        `within` is of a call that is made of calls: it gets what these spend. That is recorded with
        the call, as a replay does not come to them.

        Raises what the call raises or has raised, `LimitReached` where a limit of the flow is used
        up, and `FlowChanged` where another call was recorded at this place.
        """
        path = self.prefix + self.next_path(frame, name)
        try:
            text = encode_exactly(arguments, f"The arguments of {name}")
        except InputError:
            text = encode_exactly(plain(arguments, f"the arguments of {name}"), name)
        recorded = self.found.get(_place(path))
        if recorded is not None:
            return self._again(frame, recorded, path, text)
        frame.task.hub.require_open()
        self.settle(frame)
        try:
            for spent in frame.spent:
                spent.require_left()
            began = time.monotonic()
            made = make(path)
        except Exception as error:
            frame.task.hub.require_unclosed()
            inner = {} if within is None else dict(within.totals)
            frame.unrecorded.append(_Unrecorded(path, text, error, inner))
            raise
        frame.task.hub.require_unclosed()
        took: dict[str, float] = {"calls": 1, **made.spent}
        if within is None:  # else the seconds are those of the calls within
            took["seconds"] = round(time.monotonic() - began, 3)
        count(frame, took)
        if within is not None:
            add_to(took, within.totals)
        return self._write(path, text, made, took, frame)

    def answered(self, frame: Frame, name: str, make: Callable[[str], Made]) -> Any:
        """Return what a person answered to the frame's next call: `make` records the question."""
        path = self.prefix + self.next_path(frame, name)
        recorded = self.found.get(_place(path))
        if recorded is not None:
            return self._again(frame, recorded, path, "{}")
        self.settle(frame)
        return make(path).value

    def settle(self, frame: Frame) -> None:
        """Record the errors that the flow has handled: what follows depends on them.

        An error that ends a flow is not recorded, so that the call is made again on resume.
        """
        while frame.unrecorded:
            path, text, error, spent = frame.unrecorded.pop(0)
            if self.session is not None:
                answer = {FAILED: recorded_error.written(error), "spent": spent}
                words = recorded_error.words(error)
                self.session.record_call(path, text, answer, error=words, synced=False)

    def require_all(self, frame: Frame) -> None:
        """Raise `FlowChanged` where a frame that has ended was recorded with another call."""
        left = self.places.after(frame.path, frame.calls)
        if left is not None:
            raise FlowChanged(
                f"The flow has ended where the call {self.prefix + left!r} was recorded, which is "
                f"not made any more. {MEND}"
            )

    def leads_on(self, frame: Frame) -> bool:
        """Whether a call of the frame that comes later is recorded."""
        return self.places.after(frame.path, frame.calls) is not None

    def has_next(self, frame: Frame) -> bool:
        """Whether the frame's next call is recorded with its answer."""
        return f"{self.prefix}{frame.path}{frame.calls + 1}" in self.found

    def named(self, path: str) -> Call | None:
        """Return a recorded call whose path is not numbered."""
        return self.found.get(self.prefix + path)

    def write(self, path: str, answer: JSON) -> None:
        """Record an answer under a path that is not numbered."""
        if self.session is not None:
            self.session.record_call(self.prefix + path, "{}", answer, synced=False)

    # One call ---------------------------------------------------------------------------------

    def _again(self, frame: Frame, call: Call, path: str, text: str) -> Any:
        now = json.loads(text)
        if call.author is None and call.arguments != now:
            raise FlowChanged(_difference(call, path, now))
        if call.error is not None:
            failed: Any = call.answer if isinstance(call.answer, dict) else {}
            count(frame, failed.get("spent") or {})
            raise recorded_error.rebuilt(call.path, call.error, failed.get(FAILED))
        if call.author is not None:  # a person's answer
            return call.answer
        assert isinstance(call.answer, dict)
        spent: Any = call.answer.get("spent") or {"calls": 1}
        count(frame, spent)
        return call.answer["value"]

    def _write(
        self, path: str, text: str, made: Made, spent: Mapping[str, float], frame: Frame
    ) -> Any:
        if self.session is None:
            return json.loads(encode_exactly(made.value, f"The answer of the call {path!r}"))
        needed = made.spent or spent["calls"] > 1 or any(each.limited for each in frame.spent)
        answer = {"value": made.value, "spent": spent} if needed else {"value": made.value}
        late = frame.task.hub.closing
        written = self.session.record_call(path, text, answer, synced=made.synced, late=late)
        assert isinstance(written, dict)
        return written["value"]


MEND = (
    'The code has changed: give what is new to new runs alone, under `if version("NAME"):`, or '
    "start another run. Or it depends on chance, a clock or the order of a set: take these from "
    "uniform, now and sorted."
)


def count(frame: Frame, spent: Mapping[str, float]) -> None:
    """Count what a call spent, also against the limits of its flow and of those that called it."""
    frame.task.count(spent)
    for each in frame.spent:
        each.add(spent)


def handled_later(frame: Frame, inner: Frame) -> None:
    """Leave the errors of a frame that has ended to the one around it."""
    frame.unrecorded += inner.unrecorded
    inner.unrecorded = []


def _place(path: str) -> str:
    """Return a path without the name of its call."""
    head, slash, last = path.rpartition("/")
    return head + slash + last.partition(":")[0] if last[:1].isdigit() else path


def _difference(call: Call, path: str, arguments: Mapping[str, Any]) -> str:
    names = [
        name
        for name in {**call.arguments, **arguments}
        if call.arguments.get(name, ...) != arguments.get(name, ...)
    ]
    was, now = ({name: each.get(name) for name in names} for each in (call.arguments, arguments))
    return _changed(
        f"the call {path!r} was recorded with {was!r:.120}, and is made with {now!r:.120} now"
    )


def _changed(what: str) -> str:
    return (
        f"A flow must make the calls again that its run has recorded: at {caller()}, {what}. {MEND}"
    )
