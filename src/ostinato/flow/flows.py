"""Flows: plain Python functions whose generative calls are recorded, so that they survive a kill.

Knows no kind of call; `calls` has these.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from ostinato.flow.flow_function import FlowFunction
from ostinato.flow.frames import current
from ostinato.flow.limits import Limits
from ostinato.flow.run import run_once, run_over
from ostinato.flow.threads import in_thread

if TYPE_CHECKING:
    from ostinato.journal import Journal

P = ParamSpec("P")
R = TypeVar("R")


class Flow(FlowFunction[P, R]):
    """A function marked with `@flow`. Called in another flow, it is one of that flow's calls.

    Called by itself, it runs and nothing is recorded; `run` records it under a name and resumes it,
    `over` runs it for many rows at once.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        frame, arguments = current.get(), self.bound(*args, **kwargs)
        value: R = self._started(arguments) if frame is None else self.called(frame, arguments)
        return value

    # Running ----------------------------------------------------------------------------------

    def _started(self, arguments: Mapping[str, Any]) -> Any:
        return run_once(self, arguments)

    def run(
        self,
        *args: Any,
        run: str,
        journal: Journal | None = None,
        model: Any = "smollm2",
        seed: int = 0,
        slots: int = 16,
        **kwargs: Any,
    ) -> R:
        """Run it under the name `run`, or resume that run, and return what it returns.

        What was recorded is not made again. Raises `Unanswered` where it waits for a person, what
        the function raises, `InputError` for a run of other arguments, and `FlowChanged` where the
        code makes other calls than before.
        """
        value: R = run_once(
            self,
            self.bound(*args, **kwargs),
            name=run,
            journal=journal,
            model=model,
            seed=seed,
            slots=slots,
        )
        return value

    def over(
        self,
        rows: Iterable[Mapping[str, object]],
        *,
        run: str | None = None,
        journal: Journal | None = None,
        model: Any = "smollm2",
        seed: int = 0,
        slots: int = 16,
        in_progress: int = 256,
    ) -> Iterator[tuple[str, Any]]:
        """Run it for every row, many side by side; yield (key, value) as each returns.

        A row's key is its `id`, or the hash of its content. With `run`, the same call resumes; rows
        that are done are yielded again. Raises as `run`, after all other rows are done.
        """
        return run_over(
            self,
            rows,
            name=run,
            journal=journal,
            model=model,
            seed=seed,
            slots=slots,
            in_progress=in_progress,
        )


class AsyncFlow(Flow[P, R]):
    """An `async def` marked with `@flow`: called, it is awaited; `run` and `over` are not."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:  # type: ignore[override]
        arguments = self.bound(*args, **kwargs)
        frame = current.get()
        if frame is None:
            return asyncio.to_thread(self._started, arguments)
        return in_thread(lambda frame: self.called(frame, arguments))


@overload
def flow(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncFlow[P, R]: ...
@overload
def flow(function: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(*, limits: Limits | None = None) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
def flow(function: Any = None, /, *, limits: Limits | None = None) -> Any:
    """Mark a function as a flow: its calls are recorded under their places, and made once.

    `limits` hold for it and the flows that it calls. It may use all of Python; what is different
    each time it runs (random numbers, clocks, other programs) must come from a call.
    """
    if function is None:
        return lambda function: flow_of_function(function, limits)
    return flow_of_function(function, limits)


def flow_of_function(function: Callable[..., Any], limits: Limits | None) -> Flow[..., Any]:
    """Return the flow of a function. Raises `InputError` for anything else."""
    kind = AsyncFlow if inspect.iscoroutinefunction(function) else Flow
    return kind(function, limits)
