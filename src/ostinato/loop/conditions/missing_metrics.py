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
    """The names that a condition waits for; `names` is empty when all have come.

    `process` makes the reports: of a loop's steps, or of its lanes.
    """

    def __init__(self, condition: Condition, process: object) -> None:
        self.names = dict.fromkeys(condition.names())
        self._interval = process.report_interval if isinstance(process, SparseMetrics) else None
        self._steps = 0
        self._seen: dict[str, None] = {}

    def observe(self, *reports: Report) -> None:
        """Look at reports. Warns once about names that should have come by now."""
        for report in reports:
            self._steps += 1
            for name in report:
                self._seen[name] = None
                self.names.pop(name, None)
        if self.names and self._steps >= (self._interval or STEPS):
            self._warn()

    def end(self) -> None:
        """Warn about names that have not come: no other report will."""
        if self._steps and self._interval is None:
            self._warn()

    def _warn(self) -> None:
        for name in self.names:
            warnings.warn(self._sentence(name), stacklevel=4)  # where the loop is iterated
        self.names.clear()

    def _sentence(self, name: str) -> str:
        fix = did_you_mean(name, self._seen) or f" They have {', '.join(self._seen)}."
        return (
            f"The condition on {name!r} cannot fire: none of the {self._steps} reports so far has "
            f"it.{fix}"
        )
