"""The function of a flow: its arguments, what it returns, its call in a frame.

Knows no loop and no run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, update_wrapper
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

from ostinato.arguments import did_you_mean, require
from ostinato.errors import InputError
from ostinato.flow.frames import Frame, call_function, current
from ostinato.flow.guard import require_repeatable
from ostinato.flow.limits import Limits, Spent
from ostinato.flow.record import Made, handled_later
from ostinato.flow.values import hints_of, recordable, return_hint, typed

P = ParamSpec("P")
R = TypeVar("R")


class FlowFunction(Generic[P, R]):
    """The function of a flow: its arguments, and how it is called in a frame."""

    def __init__(self, function: Callable[P, R], limits: Limits | None) -> None:
        require(inspect.isfunction(function), "A flow", "a function", function)
        update_wrapper(self, function)  # type: ignore[arg-type]
        self.function = function
        self.limits = limits
        self.name = function.__name__

    def __repr__(self) -> str:
        return f"<flow {self.name}>"

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

    # In a flow --------------------------------------------------------------------------------

    def called(self, frame: Frame, arguments: Mapping[str, Any]) -> Any:
        """Make a call of another flow; what it returned is recorded, so its calls are replayed
        only where it was not done."""

        spent = Spent(self.limits or Limits(), self.name)

        def make(path: str) -> Made:
            inner = frame.branch(f"{path.removeprefix(frame.task.record.prefix)}/", (spent,))
            try:
                value = self.in_frame(inner, arguments)
            except Exception:
                handled_later(frame, inner)
                raise
            return Made(value)

        value = frame.task.record.call(frame, self.name, arguments, make, spent)
        return typed(value, self.returns, f"What {self.name} returned")

    def execute(self, frame: Frame, arguments: Mapping[str, Any]) -> object:
        """Run it as the flow of a task, from its beginning."""
        require_repeatable(self.function)
        limited = () if self.limits is None else (Spent(self.limits, self.name),)
        whole = Frame(frame.task, frame.path, (*frame.spent, *limited))
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
        return recordable(value, self.returns, f"What {self.name} returned")

    @property
    def source(self) -> tuple[Path, str] | None:
        """The file and the name that the function can be found under; None where there is none."""
        code, name = self.function.__code__, self.function.__qualname__
        path = Path(code.co_filename)
        return (path.absolute(), name) if path.is_file() and name.isidentifier() else None
