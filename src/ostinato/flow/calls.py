"""Calls for people, branches, time, chance and changed code."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any, TypeVar

from ostinato.arguments import require_at_least
from ostinato.errors import InputError, Unanswered
from ostinato.flow.frames import Frame, enter, frame_of
from ostinato.flow.hub import Suspended
from ostinato.flow.record import Made, handled_later
from ostinato.loop import uniform as uniform_number

T = TypeVar("T")


def ask(question: str, draft: str = "", options: Sequence[str] = ()) -> Any:
    """Ask a person, and return the answer, which is JSON or text.

    The run waits without a process until `ostinato runs answer` or `Journal.answer` gives it; then
    it goes on where it is resumed. `draft` is shown with the question. Raises `InputError` where
    nothing records the flow.
    """
    frame = frame_of("ask")
    record, session = frame.task.record, frame.task.session

    def make(path: str) -> Made:
        if session is None:
            raise InputError(
                "A flow that asks a person must be recorded, so that it can wait, got one without "
                "a run. Start it with .run(…, run='NAME') or ostinato flow run. It asks: "
                f"{question}"
            )
        text = f"{question}\n\n{draft}" if draft else question
        try:
            return Made(session.ask(path, text, options=options, seconds=0))
        except Unanswered as error:
            raise frame.task.suspend(error) from None

    return record.answered(frame, "ask", make)


def gather(*branches: Callable[[], T]) -> list[T]:
    """Run functions side by side, and return what each returns, in their order.

    Their calls share the batch of all models. Where some raise, the others end first; then the
    first of these is raised. `partial(f, x)` of functools makes a function of a call.
    """
    frame = frame_of("gather")
    path = frame.task.record.next_path(frame, "gather")
    inner = [frame.branch(f"{path}[{number}]/") for number, _ in enumerate(branches)]
    futures = [_branch(one, each) for one, each in zip(inner, branches, strict=True)]
    errors: list[BaseException] = []
    values: list[T] = []
    for future, each in zip(futures, inner, strict=True):
        try:
            values.append(frame.task.hub.wait(future))
        except BaseException as error:
            errors.append(error)
        handled_later(frame, each)
    if errors:
        # A branch that must wait makes the whole flow wait, once the others are done.
        raise next((one for one in errors if isinstance(one, Suspended)), errors[0])
    return values


def _branch(frame: Frame, function: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    hub, context = frame.task.hub, copy_context()

    def run() -> None:
        try:
            enter(frame)
            value = function()
            frame.task.record.require_all(frame)
        except BaseException as error:
            hub.ended()
            future.set_exception(error)
        else:
            hub.ended()
            future.set_result(value)

    hub.began()
    threading.Thread(target=context.run, args=(run,), name="flow branch", daemon=True).start()
    return future


def sleep(seconds: float) -> None:
    """Wait; the time is counted from the first try, also while no process runs."""
    require_at_least(0, seconds=seconds)
    frame = frame_of("sleep")
    record = frame.task.record
    until = record.call(
        frame, "sleep", {"seconds": seconds}, lambda path: Made(time.time() + seconds)
    )
    left = until - time.time()
    if left > 0:
        frame.task.hub.sleep(left)


def now() -> datetime:
    """Return the time (UTC) at which the flow first came here."""
    frame = frame_of("now")
    text = frame.task.record.call(
        frame, "now", {}, lambda path: Made(datetime.now(UTC).isoformat())
    )
    return datetime.fromisoformat(text)


def uniform() -> float:
    """Return a random number in [0, 1) that depends on the run's seed and this place alone."""
    frame = frame_of("uniform")
    record = frame.task.record
    path = record.prefix + record.next_path(frame, "uniform")
    return uniform_number(frame.task.settings.seed, path, 0, 0, 0)


def version(name: str) -> bool:
    """Return whether the flow came here with this version of the code: False in runs that are
    older, and have calls after this place.

    So changed code goes under `if version("polite"):`, and the old code, if it is still needed,
    under `else:`. The answer of a run stays the same.
    """
    frame = frame_of("version")
    record, path = frame.task.record, f"{frame.path}version:{name}"
    known = record.named(path)
    if known is not None:
        return bool(known.answer)
    is_new = not record.leads_on(frame)
    record.write(path, is_new)
    return is_new
