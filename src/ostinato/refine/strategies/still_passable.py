"""The condition that ends a draft as soon as a check can no longer be met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ostinato.checks import check_prefix_all
from ostinato.journal import JSON, StopKind, Stopped
from ostinato.loop import Check, Condition, Step


@dataclass(frozen=True)
class StillPassable(Condition):
    """Fires when one of the checks can be passed by no continuation: it failed.

    `late` collects the names of the checks that took longer than `time_limit` seconds to look
    ahead: for the rest of the run they are not asked again.
    """

    checks: tuple[Check, ...]
    time_limit: float = 10.0
    late: set[str] = field(default_factory=set, compare=False, repr=False)

    def observe(self, state: JSON, step: Step) -> tuple[JSON, Stopped | None]:
        """Look ahead with every check; a draft that has ended is judged whole instead."""
        if "ended" in step.report:
            return None, None
        item = step.item if isinstance(step.item, Mapping) else {}
        found = check_prefix_all(self.checks, step.output, item, self.time_limit, self.late)
        if found is None:
            return None, None
        check, verdict = found
        place = verdict.span
        numbers: dict[str, JSON] = {}
        if place is not None:
            numbers = {"start": place.start, "end": place.end}
        sentence = f"{check.name}: {verdict.message or 'it can no longer be met.'}"
        return None, Stopped(StopKind.FAILED, sentence, check.name, numbers)

    def __str__(self) -> str:
        return f"Possible({', '.join(check.name for check in self.checks)})"
