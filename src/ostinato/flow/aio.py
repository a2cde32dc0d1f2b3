"""The calls of async flows: those of `ostinato.flow`, to be awaited.

@flow
async def both(topic):
    return await gather(generate(f"For {topic}."), generate(f"Against {topic}."))
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ostinato.flow import calls, sampling, steps, text_calls
from ostinato.flow.dialogue.dialogue import Dialogue
from ostinato.flow.dialogue.turns import Answer
from ostinato.flow.frames import Frame, enter, frame_of
from ostinato.flow.hub import Suspended
from ostinato.flow.record import handled_later
from ostinato.flow.threads import in_thread

if TYPE_CHECKING:
    from ostinato.flow.texts import Watch

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await in_thread(lambda frame: function(*args, **kwargs))

    return call


generate = _awaited(text_calls.generate)
check = _awaited(text_calls.check)
choose = _awaited(text_calls.choose)
ask = _awaited(calls.ask)
sample = _awaited(sampling.sample)
sleep = _awaited(calls.sleep)


async def say(dialogue: Dialogue, text: str, *, watch: Watch | None = None) -> Answer:
    """Say something in a dialogue, and return the answer; see `Dialogue.say`."""
    return await in_thread(lambda frame: dialogue.say(text, watch=watch))


def step(function: steps.Step[P, T] | Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """Return a step, or a function as one, to be awaited."""
    made = function if isinstance(function, steps.Step) else steps.step(function)
    return _awaited(made)


async def gather(*branches: Awaitable[T]) -> list[T]:
    """Await several calls side by side, and return what each returns, in their order.

    Each is a branch with places of its own. Where some raise, the others end first; then the first
    of these is raised.
    """
    frame = frame_of("gather")
    path = frame.task.record.next_path(frame, "gather")
    inner = [frame.branch(f"{path}[{number}]/") for number, _ in enumerate(branches)]

    async def entered(each: Frame, branch: Awaitable[T]) -> T:
        enter(each)
        value = await branch
        each.task.record.require_all(each)
        return value

    tasks = [
        asyncio.create_task(entered(each, branch))
        for each, branch in zip(inner, branches, strict=True)
    ]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for each in inner:
        handled_later(frame, each)
    errors = [each for each in found if isinstance(each, BaseException)]
    if errors:
        raise next((one for one in errors if isinstance(one, Suspended)), errors[0])
    return found  # type: ignore[return-value]


__all__ = ["ask", "check", "choose", "gather", "generate", "sample", "say", "sleep", "step"]
