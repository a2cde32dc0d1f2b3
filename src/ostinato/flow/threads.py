"""A call of an async flow in a thread: calls wait, and other branches go on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from ostinato.flow.frames import Frame, enter, frame_of

T = TypeVar("T")


async def in_thread(function: Callable[[Frame], T]) -> T:
    """Make one call in a thread, so that other branches go on; its place is the next one here.

    The function gets the frame in which the call is the next one.
    """
    frame = frame_of("A call")
    place = frame.next_place()
    number = int(place[len(frame.path) :])
    once = Frame(frame.task, frame.path, frame.spent, number - 1, frame.unrecorded)
    loop, context = asyncio.get_running_loop(), copy_context()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        enter(once)
        try:
            value = function(once)
        except BaseException as error:
            _tell(loop, done, error, None)
        else:
            _tell(loop, done, None, value)

    threading.Thread(target=context.run, args=(run,), name="flow call", daemon=True).start()
    return await done


def _tell(
    loop: asyncio.AbstractEventLoop, done: asyncio.Future[Any], error: Any, value: Any
) -> None:
    def end() -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    loop.call_soon_threadsafe(end)
