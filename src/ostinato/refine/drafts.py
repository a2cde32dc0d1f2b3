"""What ends a draft, and what judges it: the parts of a `Refine` that need no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ostinato.checks import TIME_LIMIT, judge_all
from ostinato.journal import Journal, RunSource
from ostinato.loop import (
    Budget,
    Check,
    CheckpointSchedule,
    Condition,
    Item,
    Lanes,
    Loop,
    Seconds,
    Steps,
    Text,
    Verdict,
    compute_mode,
)
from ostinato.refine.inputs import Row
from ostinato.refine.strategies.base import StillPassable, Strategy
from ostinato.remote import SpendLimit

CHECKPOINTS = CheckpointSchedule(steps=64)
"""When a run saves the state of its lanes."""


@dataclass(frozen=True)
class Judges:
    """Judges with every check; a judge on a server is charged after the fact."""

    checks: tuple[Check, ...]
    time_limit: float = TIME_LIMIT
    spend_limit: SpendLimit | None = None

    def __call__(self, output: object, item: Item) -> Sequence[Verdict]:
        verdicts = judge_all(self.checks, output, item, self.time_limit)
        if self.spend_limit is not None:
            self.spend_limit.charge(sum(verdict.spent.get("cost", 0) for verdict in verdicts))
        return verdicts

    @property
    def compute_mode(self) -> str:
        """How each check's model computes, as JSON by the check's name; "" without such a check."""
        modes = {check.name: compute_mode(check) for check in self.checks}
        modes = {name: mode for name, mode in modes.items() if mode}
        return json.dumps(modes) if modes else ""

    def use_compute_mode(self, mode: str) -> None:
        """Let each check's model compute in its recorded mode."""
        modes = json.loads(mode)
        for check in self.checks:
            use = getattr(check, "use_compute_mode", None)
            if use is not None and check.name in modes:
                use(modes[check.name])


def ready_texts(ready: Callable[[Row], str | None]) -> Callable[[Row], str | None]:
    """Return `ready` so that its answers are texts without tokens.

    A check of what the model was sure of has nothing against a text that no model wrote.
    """

    def answer(row: Row) -> str | None:
        text = ready(row)
        return None if text is None else Text(text)

    return answer


def end_of_draft(
    strategy: Strategy,
    checks: tuple[Check, ...],
    *,
    max_new_tokens: int,
    tokens: int | None = None,
    seconds: float | None = None,
    time_limit: float = TIME_LIMIT,
    late: set[str] | None = None,
) -> Condition:
    """Return the condition that ends a draft; `tokens` and `seconds` limit an item."""
    each: Condition = Steps(strategy.steps(max_new_tokens))
    if tokens is not None:
        each = each | Budget("tokens", tokens)
    if seconds is not None:
        each = each | Seconds(seconds)
    if not strategy.checks_prefixes:
        return each
    return each | StillPassable(checks, time_limit, set() if late is None else late)


def loop_of(
    lanes: Lanes,
    *,
    until: Condition | None = None,
    run: RunSource | str | None = None,
    journal: Journal | None = None,
    keep: Literal["steps", "results"] = "steps",
    checkpoint: CheckpointSchedule | None = None,
) -> Loop:
    """Return the loop over all items; `until` is the budget of all items together."""
    return Loop(
        lanes,
        until=until,
        run=run,
        journal=journal,
        keep=keep,
        checkpoint=checkpoint or (CHECKPOINTS if run is not None else None),
    )
