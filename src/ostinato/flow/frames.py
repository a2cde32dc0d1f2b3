"""Where a flow is: the frame of a function that is being called, and the place of its next call.

A call's place is the path of its frame and its number there: `2:outline/1:generate` is the first
call of a flow that was the second call of another one. It never depends on what finishes first.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.flow.limits import Spent

HERE = str(Path(__file__).parent)


@dataclass(slots=True, eq=False)
class Frame:
    """One execution of a flow, or a branch of `gather`.

    `path` is what the paths of its calls begin with. `spent` counts against the limits of the flow
    and of those that called it.
    """

    task: Any  # the `FlowTask`, which knows this module
    path: str = ""
    spent: Sequence[Spent] = ()
    calls: int = 0
    unrecorded: list[Any] = field(default_factory=list)  # errors that nothing has followed yet
    async_task: object = None

    def next_place(self) -> str:
        """Return the path of the next call, without its name.

        Raises `InputError` for a call that another task makes.
        """
        if self.async_task is not _async_task():
            raise InputError(
                f"A call of an async flow must be made by the flow itself, got one of another "
                f"task, at {caller()}: its place would depend on what finishes first. Run branches "
                "with gather of ostinato.flow.aio."
            )
        self.calls += 1
        return f"{self.path}{self.calls}"

    def branch(self, path: str, spent: Sequence[Spent] = ()) -> Frame:
        """Return the frame of a flow that is called, or of a branch."""
        return Frame(self.task, path, (*self.spent, *spent))


current: ContextVar[Frame | None] = ContextVar("ostinato flow", default=None)


def frame_of(call: str) -> Frame:
    """Return the frame in which a call is made. Raises `InputError` outside of a flow."""
    frame = current.get()
    if frame is None:
        raise InputError(
            f"{call} must be called in a flow, got a call outside of one, at {caller()}. Call it "
            "in a function marked with @flow, in its own thread: branches run with gather."
        )
    return frame


def enter(frame: Frame) -> None:
    """Make a frame that of the calls from here on, in this thread or task."""
    frame.async_task = _async_task()
    current.set(frame)


@contextmanager
def entered(frame: Frame) -> Iterator[None]:
    """Make a frame that of the calls within the block."""
    token = current.set(frame)
    enter(frame)
    try:
        yield
    finally:
        current.reset(token)


def call_function(
    function: Callable[..., Any], arguments: Mapping[str, object], frame: Frame
) -> object:
    """Call a flow's function in a frame, an async one in an event loop of its own."""
    if not inspect.iscoroutinefunction(function):
        enter(frame)
        return function(**arguments)

    async def entered() -> object:
        enter(frame)
        return await function(**arguments)

    return asyncio.run(entered())


def caller() -> str:
    """Return file and line of the code that called this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(HERE):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _async_task() -> object:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None
