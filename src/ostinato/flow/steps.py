"""Functions of the user that a flow calls once: their answers are recorded."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, overload

from ostinato.arguments import require, require_at_least
from ostinato.errors import InputError
from ostinato.flow.frames import Frame, current
from ostinato.flow.record import Made
from ostinato.flow.values import recordable, return_hint, typed

P = ParamSpec("P")
R = TypeVar("R")


class Step(Generic[P, R]):
    """A function marked with `@step`: in a flow it is called once, and its answer recorded."""

    def __init__(
        self, function: Callable[P, R], attempts: int, backoff: float, *, synced: bool
    ) -> None:
        update_wrapper(self, function)
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.returns = return_hint(function)
        self._attempts, self._backoff, self._synced = attempts, backoff, synced
        try:
            self._signature: inspect.Signature | None = inspect.signature(function)
        except (TypeError, ValueError):  # of a builtin
            self._signature = None
        self._names = _plain_names(self._signature)

    def __repr__(self) -> str:
        return f"<step {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        frame = current.get()
        if frame is None:
            return self.function(*args, **kwargs)
        value = frame.task.record.call(
            frame,
            self.name,
            self._arguments(args, kwargs),
            lambda path: Made(self._called(frame, args, kwargs), synced=self._synced),
        )
        if self.returns is Any:
            return value  # type: ignore[no-any-return]
        found: R = typed(value, self.returns, f"What the step {self.name} returned")
        return found

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, object]:
        if self._signature is None:
            return {"args": list(args), **kwargs}
        if len(args) == len(self._names) and not kwargs:
            return dict(zip(self._names, args, strict=True))
        return dict(self._signature.bind(*args, **kwargs).arguments)

    def _called(self, frame: Frame, args: Any, kwargs: Any) -> object:
        for attempt in range(1, self._attempts + 1):
            try:
                value = self.function(*args, **kwargs)
                if inspect.isawaitable(value):
                    value = asyncio.run(_awaited(value))
                return recordable(value, self.returns, f"What the step {self.name} returned")
            except InputError:
                raise
            except Exception:
                if attempt == self._attempts:
                    raise
            if self._backoff:
                frame.task.hub.sleep(self._backoff * 2 ** (attempt - 1))
        raise AssertionError


def _plain_names(signature: inspect.Signature | None) -> tuple[str, ...]:
    """Return the names of parameters that arguments are bound to by order alone; else none."""
    parameters = () if signature is None else tuple(signature.parameters.values())
    plain = all(each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters)
    return tuple(each.name for each in parameters) if plain else ()


async def _awaited(value: Any) -> Any:
    return await value


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *, attempts: int = 1, backoff: float = 1.0, synced: bool = False
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    function: Callable[P, R] | None = None,
    /,
    *,
    attempts: int = 1,
    backoff: float = 1.0,
    synced: bool = False,
) -> Step[P, R] | Callable[[Callable[P, R]], Step[P, R]]:
    """Mark a function whose answer is recorded: it looks something up, writes, sends.

    `step(lookup)(ticket)` does the same for a function of somebody else. One that raises is called
    again, up to `attempts` times in all, after `backoff` seconds, twice as many each time. Then its
    exception is raised, and is raised again when the flow is replayed.

    The answer survives the death of the process as soon as it is there. It survives a loss of power
    with the next text that the flow writes, at its end, or at once with `synced`.
    """
    require_at_least(1, attempts=attempts)
    require_at_least(0, backoff=backoff)
    if function is not None:
        require(callable(function), "A step", "a function", function)
        return Step(function, attempts, backoff, synced=synced)
    return lambda function: Step(function, attempts, backoff, synced=synced)
