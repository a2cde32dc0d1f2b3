"""Adapters that make processes of a callable, a generator or a generator function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping

from ostinato.errors import EditError, InputError
from ostinato.loop.process import Exhausted, Process, Report
from ostinato.loop.timeline import Edits


def report_of(value: object) -> Report:
    """Return a mapping as it is; anything else becomes the report's `output`."""
    return value if isinstance(value, Mapping) else {"output": value}


class CallableProcess:
    """A callable as a process, called once a step. Its state is unknown, so none is saved."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def step(self) -> Report:
        """Call it once."""
        return report_of(self._call())

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

    def __init__(self, generator: Iterator[object]) -> None:
        super().__init__(generator.__next__)

    def step(self) -> Report:
        """Take the next value; raises `Exhausted` after the last."""
        try:
            return super().step()
        except StopIteration:
            raise Exhausted("The generator has returned.") from None


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
