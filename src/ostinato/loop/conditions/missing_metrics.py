"""Metrics that a condition waits for and no report has: a warning, once.

A misspelled name would otherwise be a condition that never fires.
"""

from __future__ import annotations

import warnings

from ostinato.arguments import did_you_mean
from ostinato.loop.conditions.base import Condition
from ostinato.loop.process import Report, SparseMetrics

STEPS = 100
"""Steps after which a missing name is warned about, where the process gives no interval."""


class MissingMetrics:
    """The names that conditions wait for; `names` is empty when all have come.

    `process` makes the reports: of a loop's steps, or of its lanes.
    """

    def __init__(self, process: object, *conditions: Condition) -> None:
        self.names: dict[str, int] = {}  # with the number of reports before it was waited for
        self._interval = process.report_interval if isinstance(process, SparseMetrics) else None
        self._steps = 0
        self._seen: dict[str, None] = {}
        self._known: set[str] = set()
        for condition in conditions:
            self.wait_for(condition)

    def wait_for(self, condition: Condition) -> None:
        """Wait for the names of one more condition; each name is waited for once."""
        for name in condition.names():
            if name not in self._known:
                self._known.add(name)
                self.names[name] = self._steps

    def observe(self, *reports: Report) -> None:
        """Look at reports. Warns once about names that should have come by now."""
        for report in reports:
            self._steps += 1
            for name in report:
                self._seen[name] = None
                self.names.pop(name, None)
        self._warn(after=self._interval or STEPS)

    def end(self) -> None:
        """Warn about names that have not come: no other report will."""
        if self._interval is None:
            self._warn(after=1)

    def _warn(self, after: int) -> None:
        """Warn about the names that have been waited for in so many reports."""
        for name, before in list(self.names.items()):
            if (steps := self._steps - before) >= after:
                warnings.warn(self._sentence(name, steps), stacklevel=4)  # where it is iterated
                del self.names[name]

    def _sentence(self, name: str, steps: int) -> str:
        fix = did_you_mean(name, self._seen) or f" They have {', '.join(self._seen)}."
        unseen = f"none of the {steps} reports so far has it."
        return f"The condition on {name!r} cannot fire: {unseen}{fix}"
