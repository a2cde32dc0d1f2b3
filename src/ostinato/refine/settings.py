"""What every reply depends on, as values that a run's record holds and that are compared.

Knows no job file and no run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ostinato.checks import BaseCheck, Function, to_spec
from ostinato.journal import JSON, Difference, Place, differences
from ostinato.loop import Check, digest
from ostinato.refine.inputs import STRATEGIES, module_source
from ostinato.refine.strategies.base import Strategy

LONGEST = 400
"""Characters of a value in a check's table; a longer one, such as a list of words, is hashed."""
HASH = "hash:"
"""How the hash of a long value begins."""
SPELLED = {"weights": "the model's files", "max_new_tokens": "sampling.max_new_tokens"}
"""How a field is called where its name is not that of a key in a job file."""

Settings = TypeVar("Settings", bound="ReplySettings")


@dataclass(frozen=True, kw_only=True)
class ItemBudget:
    """The limits of one item over all its rounds; None: no limit."""

    item_tokens: int | None = None
    item_seconds: float | None = None

    def raised_to(self, other: ItemBudget) -> ItemBudget | None:
        """Return the old limits that `other` raises; None if it lowers one."""
        tokens = _raised(self.item_tokens, other.item_tokens)
        if not (tokens and _raised(self.item_seconds, other.item_seconds)):
            return None
        # Only a raised limit is kept: an item that an unchanged one ended would end there again.
        return ItemBudget(
            item_tokens=self.item_tokens if self.item_tokens != other.item_tokens else None,
            item_seconds=self.item_seconds if self.item_seconds != other.item_seconds else None,
        )

    def ended(self, row: Mapping[str, Any]) -> bool:
        """Return whether one of the limits ended an item, by its result row."""
        spent = row["spent"].get("tokens", 0)
        by_tokens = self.item_tokens is not None and spent >= self.item_tokens
        return by_tokens or (self.item_seconds is not None and bool(row.get("by_clock")))


def _raised(before: float | None, now: float | None) -> bool:
    return now is None or (before is not None and before <= now)


@dataclass(frozen=True, kw_only=True)
class ReplySettings:
    """The settings that every reply depends on, of jobs and of `Refine`.

    `checks` has the table of each check by its name, and `order` their names; `strategy` is a
    table, too. `weights` is the hash of the model's files.
    """

    hashes: ClassVar[frozenset[str]] = frozenset({"weights"})

    model: Place
    weights: str = ""
    checks: Mapping[str, Mapping[str, JSON]] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    strategy: Mapping[str, JSON] = field(default_factory=dict)
    max_new_tokens: int = 128
    budget: ItemBudget = field(default_factory=ItemBudget)
    seed: int = 0

    def __post_init__(self) -> None:
        # An older record lacks newer options of its strategy.
        kind = STRATEGIES.get(str(self.strategy.get("kind")))
        defaults = {} if kind is None else strategy_table(kind())
        object.__setattr__(self, "strategy", {**defaults, **self.strategy})


# From checks and strategies ---------------------------------------------------------------------


def check_tables(checks: Sequence[Check]) -> dict[str, Mapping[str, JSON]]:
    """Return by name the table of each check: what verdicts depend on.

    A function's table has the hash of its module's source.
    """
    return {check.name: _check_table(check) for check in checks}


def _check_table(check: Check) -> Mapping[str, JSON]:
    if not isinstance(check, BaseCheck):
        return {"kind": type(check).__name__, "source": digest(module_source(type(check)))}
    # Through JSON, as a table holds paths and tuples.
    spec: dict[str, JSON] = json.loads(json.dumps(to_spec(check), default=str))
    table = {key: _short(value) for key, value in spec.items() if key != "name"}
    if isinstance(check, Function):
        table["source"] = digest(module_source(check.function))
    return table


def _short(value: JSON) -> JSON:
    long = len(json.dumps(value, ensure_ascii=False)) > LONGEST
    return HASH + digest(value) if long else value


def strategy_table(strategy: Strategy) -> dict[str, JSON]:
    """Return the kind and the options of a strategy as a table."""
    return {"kind": strategy.kind, **{f.name: getattr(strategy, f.name) for f in fields(strategy)}}


# Comparing --------------------------------------------------------------------------------------


def changed_settings(before: Settings, now: Settings, folder: Path) -> list[Difference]:
    """Return the settings that differ, called as in a job file; `folder` is the journal's.

    What follows from another check or another kind of strategy is left out.
    """
    found = differences(before, now, folder)
    if set(before.checks) != set(now.checks):
        found = [each for each in found if each.field != "order"]
    if any(each.field == "strategy.kind" for each in found):
        found = [
            each
            for each in found
            if each.field == "strategy.kind" or not each.field.startswith("strategy.")
        ]
    return [each._replace(field=SPELLED.get(each.field, each.field)) for each in found]


def told(each: Difference) -> str:
    """Return a difference in words; hashes, which say nothing to a reader, are left out."""
    is_hash = each.field == SPELLED["weights"] or each.field.endswith("source")
    was_long = any(str(value).startswith(HASH) for value in (each.was, each.now))
    return each.field if is_hash or was_long or each.was == each.now else str(each)
