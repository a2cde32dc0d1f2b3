"""Adapters that make processes of a callable, a generator or a generator function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import ClassVar

from ostinato.errors import EditError, InputError
from ostinato.loop.process import Exhausted, Process, Report
from ostinato.loop.timeline import Edits


def report_of(value: object) -> Report:
    """Return a mapping as it is; anything else becomes the report's `output`."""
    return value if isinstance(value, Mapping) else {"output": value}


class CallableProcess:
    """A callable as a process, called once a step. Its state is unknown, so none is saved.

    One that raises `StopIteration`, as an iterator's `__next__`, has ended.
    """

    ended: ClassVar[str] = "The callable has ended."

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def step(self) -> Report:
        """Call it once. Raises `Exhausted` where it has ended."""
        try:
            return report_of(self._call())
        except StopIteration:
            raise Exhausted(self.ended) from None

    def state_dict(self) -> dict[str, object]:
        """Return an empty state: what a callable keeps is its own."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Do nothing: there is no state."""

    def change(self, edits: Edits) -> None:
        """Refuse any edit."""
        if edits:
            raise EditError(f"A plain callable takes no edits, got {sorted(edits)}.")


class GeneratorProcess(CallableProcess):
    """A generator as a process: one value a step, ended when it returns."""

    ended = "The generator has returned."

    def __init__(self, generator: Iterator[object]) -> None:
        super().__init__(generator.__next__)


def as_process(value: object) -> Process:
    """Return a process as it is; wrap a callable, a generator or a generator function."""
    if isinstance(value, Process):
        return value
    if inspect.isgeneratorfunction(value):
        return GeneratorProcess(value())
    if isinstance(value, Generator):
        return GeneratorProcess(value)
    if callable(value):
        return CallableProcess(value)
    raise InputError(
        f"A process must be a callable, a generator or an object with step, state_dict, "
        f"load_state_dict and change, got {value!r}."
    )
