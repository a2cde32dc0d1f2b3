"""Names that conditions wait for and that no report has: told of once, in a warning."""

from __future__ import annotations

import warnings

from ostinato.arguments import did_you_mean
from ostinato.loop.conditions.base import Condition
from ostinato.loop.process import Report, SparseMetrics

STEPS = 100
"""After so many steps a name that has not come is told of, where the process says nothing."""


class MissingMetrics:
    """The names of a condition that no report has had; `names` is empty when all have.

    `process` makes the reports: those of a loop's steps, or those of its lanes.
    """

    def __init__(self, condition: Condition, process: object) -> None:
        self.names = dict.fromkeys(condition.names())
        self._seldom = process.report_interval if isinstance(process, SparseMetrics) else None
        self._steps = 0
        self._seen: dict[str, None] = {}

    def observe(self, *reports: Report) -> None:
        """Look at reports. Warns once of the names that should have come by now."""
        for report in reports:
            self._steps += 1
            for name in report:
                self._seen[name] = None
                self.names.pop(name, None)
        if self.names and self._steps >= (self._seldom or STEPS):
            self._tell()

    def end(self) -> None:
        """Warn of the names that have not come, as no other report will."""
        if self._steps and self._seldom is None:
            self._tell()

    def _tell(self) -> None:
        for name in self.names:
            warnings.warn(self._sentence(name), stacklevel=4)
        self.names.clear()

    def _sentence(self, name: str) -> str:
        mend = did_you_mean(name, self._seen) or f" They have {', '.join(self._seen)}."
        return (
            f"A condition must name what the reports have, got {name!r}, which was in none of the "
            f"{self._steps} so far: it cannot fire.{mend}"
        )
