"""Flows: plain Python functions whose generative calls are recorded, so that they survive a kill.

Knows no kind of call; `calls` has these.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from ostinato.arguments import did_you_mean, require
from ostinato.errors import InputError
from ostinato.flow.frames import Frame, current
from ostinato.flow.guard import require_repeatable
from ostinato.flow.limits import Limits, Spent
from ostinato.flow.record import Made, handled_later
from ostinato.flow.task import call_function
from ostinato.flow.values import hints_of, return_hint, typed

if TYPE_CHECKING:
    from ostinato.journal import Journal

P = ParamSpec("P")
R = TypeVar("R")


class Flow(Generic[P, R]):
    """A function marked with `@flow`. Called in another flow, it is one of that flow's calls.

    Called by itself, it runs and nothing is recorded; `run` records it under a name and resumes it,
    `over` runs it for many rows at once.
    """

    def __init__(self, function: Callable[P, R], limits: Limits | None) -> None:
        require(inspect.isfunction(function), "A flow", "a function", function)
        update_wrapper(self, function)
        self.function = function
        self.limits = limits
        self.name = function.__name__

    def __repr__(self) -> str:
        return f"<flow {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        frame, arguments = current.get(), self.bound(*args, **kwargs)
        value: R = self._started(arguments) if frame is None else self.called(frame, arguments)
        return value

    @cached_property
    def returns(self) -> Any:
        """The annotation of what it returns."""
        return return_hint(self.function)

    def bound(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return arguments by their names. Raises `InputError` where they do not fit."""
        signature = inspect.signature(self.function)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InputError(
                f"The arguments of the flow {self.name} must fit {self.name}{signature}, got an "
                f"error: {error}."
            ) from None
        bound.apply_defaults()
        for name, parameter in signature.parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise InputError(
                    f"The parameters of the flow {self.name} must be named each, got {name!r}, "
                    "which takes any number. Take a list or a mapping."
                )
        return dict(bound.arguments)

    @property
    def parameters(self) -> list[str]:
        """The names of its parameters."""
        return list(inspect.signature(self.function).parameters)

    def bound_partly(self, values: Sequence[object]) -> dict[str, Any]:
        """Return some arguments by their names. Raises `InputError` for too many."""
        if len(values) > len(self.parameters):
            raise InputError(
                f"The flow {self.name} must have at most {len(self.parameters)} arguments, got "
                f"{len(values)}. Quote a text with spaces."
            )
        return dict(zip(self.parameters, values, strict=False))

    def from_row(self, row: Mapping[str, object]) -> dict[str, Any]:
        """Return the arguments of a row: columns of the parameters' names, or the whole row.

        Raises `InputError` where neither fits.
        """
        parameters = inspect.signature(self.function).parameters
        needed = [name for name, each in parameters.items() if each.default is each.empty]
        missing = [name for name in needed if name not in row]
        if not missing:
            given = {name: row[name] for name in parameters if name in row}
        elif len(needed) == 1:
            given = {needed[0]: dict(row)}
        else:
            raise InputError(
                f"A row must have the column {missing[0]!r}, a parameter of the flow {self.name}, "
                f"got {', '.join(map(repr, row)) or 'none'}.{did_you_mean(missing[0], row)}"
            )
        return self.bound(**self.typed_arguments(given))

    def typed_arguments(self, given: Mapping[str, object]) -> dict[str, Any]:
        """Return arguments that were read as JSON as the annotations say."""
        hints = hints_of(self.function)
        return {
            name: typed(value, hints.get(name, Any), f"The argument {name} of {self.name}")
            for name, value in given.items()
        }

    # Running ----------------------------------------------------------------------------------

    def _started(self, arguments: Mapping[str, Any]) -> Any:
        from ostinato.flow.run import run_once

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
        from ostinato.flow.run import run_once

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
        from ostinato.flow.run import run_over

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

    # In a flow --------------------------------------------------------------------------------

    def called(self, frame: Frame, arguments: Mapping[str, Any]) -> Any:
        """Make a call of another flow; what it returned is recorded, so its calls are replayed
        only where it was not done."""

        def make(path: str) -> Made:
            inner = frame.branch(f"{path.removeprefix(frame.task.record.prefix)}/", self._spent())
            try:
                value = self.in_frame(inner, arguments)
            except Exception:
                handled_later(frame, inner)
                raise
            return Made(value)

        value = frame.task.record.call(frame, self.name, arguments, make)
        return typed(value, self.returns, f"What {self.name} returned")

    def execute(self, frame: Frame, arguments: Mapping[str, Any]) -> object:
        """Run it as the flow of a task, from its beginning."""
        require_repeatable(self.function)
        whole = Frame(frame.task, frame.path, (*frame.spent, *self._spent()))
        value = self.in_frame(whole, arguments)
        frame.task.record.settle(whole)
        return value

    def in_frame(self, frame: Frame, arguments: Mapping[str, Any]) -> object:
        """Call the function in a frame; return what it returned as JSON holds it."""
        token = current.set(current.get())
        try:
            value = call_function(self.function, arguments, frame)
        finally:
            current.reset(token)
        frame.task.record.require_all(frame)
        frame.task.record.settle(frame)
        return self.recordable(value)

    def recordable(self, value: object) -> object:
        """Return a value that the flow returned as it is recorded.

        Raises `InputError` where JSON and the annotation could not bring it back.
        """
        from ostinato.flow.calls import recordable

        return recordable(value, self.returns, f"What {self.name} returned")

    def _spent(self) -> tuple[Spent, ...]:
        return () if self.limits is None else (Spent(self.limits, self.name),)

    @property
    def source(self) -> tuple[Path, str] | None:
        """The file and the name that the function can be found under; None where there is none."""
        code, name = self.function.__code__, self.function.__qualname__
        path = Path(code.co_filename)
        return (path.absolute(), name) if path.is_file() and name.isidentifier() else None


class AsyncFlow(Flow[P, R]):
    """An `async def` marked with `@flow`: called, it is awaited; `run` and `over` are not."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:  # type: ignore[override]
        arguments = self.bound(*args, **kwargs)
        frame = current.get()
        if frame is None:
            return asyncio.to_thread(self._started, arguments)
        from ostinato.flow.aio import in_thread

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
