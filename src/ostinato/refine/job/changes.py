"""What changed in a job since its run, and which items would have to be written again for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ostinato.journal import JSON
from ostinato.refine.job.config import WEIGHTS, Job, item_digests
from ostinato.refine.job.items import Item
from ostinato.refine.routing.router import Router


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """The hashes of all that a job's replies depend on: of its sections, and of each item."""

    sections: Mapping[str, str]
    items: Mapping[str, str]

    @classmethod
    def of(cls, job: Job, planner: Router, items: Sequence[Item]) -> Fingerprint:
        """Return the fingerprint of a job over its items."""
        return cls(sections=job.sections(), items=item_digests(planner, items))

    def to_json(self) -> dict[str, JSON]:
        """Return the fingerprint as a JSON object."""
        return {"sections": dict(self.sections), "items": dict(self.items)}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Fingerprint:
        """Read back what `to_json` wrote."""
        sections, items = value.get("sections"), value.get("items")
        return cls(
            sections=sections if isinstance(sections, dict) else {},
            items=items if isinstance(items, dict) else {},
        )


ITEM_BUDGET = "item budget"
"""The section that a job's budgets of an item are."""


@dataclass(frozen=True)
class ItemBudget:
    """What an item may take: tokens and seconds; None: no limit."""

    tokens: float | None
    seconds: float | None

    @classmethod
    def of(cls, value: Sequence[object]) -> ItemBudget:
        """Read the pair that a run's spec holds."""
        tokens, seconds = (one if isinstance(one, int | float) else None for one in value)
        return cls(tokens, seconds)

    @classmethod
    def of_job(cls, job: Job) -> ItemBudget:
        """Return a job's."""
        return cls(job.budgets.item_tokens, job.budgets.item_seconds)

    def raised_to(self, other: ItemBudget) -> ItemBudget | None:
        """Return the limits that `other` raises, with what they were; None where it lowers one."""
        if not (_raised(self.tokens, other.tokens) and _raised(self.seconds, other.seconds)):
            return None
        return ItemBudget(
            self.tokens if self.tokens != other.tokens else None,
            self.seconds if self.seconds != other.seconds else None,
        )

    def ended(self, row: Mapping[str, Any]) -> bool:
        """Tell whether an item went on until one of the limits ended it, by its row."""
        by_tokens = self.tokens is not None and row["spent"].get("tokens", 0) >= self.tokens
        return by_tokens or (self.seconds is not None and bool(row.get("by_clock")))


def _raised(then: float | None, now: float | None) -> bool:
    return now is None or (then is not None and then <= now)


@dataclass(frozen=True, kw_only=True)
class JobChanges:
    """What is not as it was: sections that touch every item, and single items.

    `cut` are the items that a lower item budget ended; None where it was not raised.
    """

    sections: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    cut: tuple[str, ...] | None = None
    moved: bool = False
    count: int = 0

    def __bool__(self) -> bool:
        single = self.changed or self.added or self.removed or self.cut is not None
        return bool(self.sections or single or self.moved)

    def with_raised_budget(self, cut: Sequence[str]) -> JobChanges:
        """Return the changes where the item budget touches only what the lower one ended."""
        if ITEM_BUDGET not in self.sections:
            return self
        rest = tuple(name for name in self.sections if name != ITEM_BUDGET)
        return replace(self, sections=rest, cut=tuple(cut))

    def stale(self, items: Sequence[Item]) -> set[str]:
        """Return the keys of the items that must be written (again)."""
        if self.sections:
            return {item.key for item in items}
        return {*self.changed, *self.added, *(self.cut or ())}

    def sentences(self) -> list[str]:
        """Say what changed, and what would be written again for it."""
        told = []
        if self.sections:
            names = ", ".join(self.sections)
            told.append(f"changed in the job: {names}")
        if self.cut is not None:
            ended = f"the lower one ended {_items(self.cut)}" if self.cut else "it ended no item"
            told.append(f"a higher item budget: {ended}")
        for keys, what in (
            (self.changed, "changed in the input, or by the prompt, a rule or past cases"),
            (self.added, "new in the input"),
            (self.removed, "no longer in the input"),
        ):
            if keys:
                told.append(f"{_items(keys)} {what}")
        if self.moved and not (self.added or self.removed):
            told.append("the items stand in another order")
        again = (
            self.count if self.sections else len({*self.changed, *self.added, *(self.cut or ())})
        )
        told.append(f"{again} of {self.count} items would be written again")
        return told


def compare(then: Fingerprint, now: Fingerprint) -> JobChanges:
    """Return what changed between two fingerprints of a job."""
    known = {WEIGHTS: now.sections.get(WEIGHTS), **then.sections}  # older runs do not tell it
    sections = tuple(name for name, value in now.sections.items() if known.get(name) != value)
    both = [key for key in now.items if key in then.items]
    return JobChanges(
        sections=sections,
        changed=tuple(key for key in both if then.items[key] != now.items[key]),
        added=tuple(key for key in now.items if key not in then.items),
        removed=tuple(key for key in then.items if key not in now.items),
        moved=both != [key for key in then.items if key in now.items],
        count=len(now.items),
    )


def _items(keys: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(keys[:most]) + (", …" if len(keys) > most else "")
    return f"{len(keys)} item{'s' * (len(keys) != 1)} ({shown})"
