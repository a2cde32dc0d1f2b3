"""A `Refine` that is recorded as a run of the journal, which it resumes if nothing has changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from ostinato.errors import InputError
from ostinato.journal import JSON, Journal, Run

KIND = "refine"
INPUTS = "inputs"


class Recorded:
    """The run of a `Refine`, found or created; None without one. A context manager.

    `inputs` has by name a hash of each thing that results depend on.
    """

    def __init__(
        self, inputs: Mapping[str, JSON], run: Run | str | None, journal: Journal | None
    ) -> None:
        self._inputs, self._given, self._journal = dict(inputs), run, journal
        self._stack = ExitStack()
        self.run: Run | None = None

    def __enter__(self) -> Recorded:
        if self._given is not None:
            self.run = self._found()
            self._require_same(self.run)
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def results(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the rows that are recorded, with their keys."""
        return iter(()) if self.run is None else self.run.results()

    def _found(self) -> Run:
        if isinstance(self._given, Run):
            return self._given
        journal = self._journal or self._stack.enter_context(Journal())
        assert self._given is not None
        spec: dict[str, JSON] = {INPUTS: self._inputs}
        return journal.find(self._given) or journal.create(self._given, kind=KIND, spec=spec)

    def _require_same(self, run: Run) -> None:
        before, now = run.spec.get(INPUTS), self._inputs
        if not isinstance(before, dict):  # the caller has made the run
            return
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            raise InputError(
                f"The run {run.name!r} must keep the inputs it started with, got another "
                f"{', '.join(changed)}. Give the same ones, or another name."
            )
