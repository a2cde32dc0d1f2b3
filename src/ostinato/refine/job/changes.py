"""What changed in a job since its run started, and which items must be written again.

Knows hashes and keys; knows no model and no journal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ostinato.journal import JSON
from ostinato.refine.job.config import ITEM_BUDGET, WEIGHTS, Job, item_digests
from ostinato.refine.job.items import Item
from ostinato.refine.routing.router import Router


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """The hashes of everything that a job's replies depend on: its sections, and each item."""

    sections: Mapping[str, str]
    items: Mapping[str, str]

    @classmethod
    def of(cls, job: Job, router: Router, items: Sequence[Item]) -> Fingerprint:
        """Return the fingerprint of a job and its items."""
        return cls(sections=job.sections(), items=item_digests(router, items))

    def to_json(self) -> dict[str, JSON]:
        """Return the value that the run's specification records."""
        return {"sections": dict(self.sections), "items": dict(self.items)}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Fingerprint:
        """Read what `to_json` returned; missing parts are empty."""
        sections, items = value.get("sections"), value.get("items")
        return cls(
            sections=sections if isinstance(sections, dict) else {},
            items=items if isinstance(items, dict) else {},
        )


@dataclass(frozen=True)
class ItemBudget:
    """The limits of one item, in tokens and seconds; None: no limit."""

    tokens: float | None
    seconds: float | None

    @classmethod
    def of(cls, value: Sequence[object]) -> ItemBudget:
        """Read the pair that a run's specification records."""
        tokens, seconds = (one if isinstance(one, int | float) else None for one in value)
        return cls(tokens, seconds)

    @classmethod
    def of_job(cls, job: Job) -> ItemBudget:
        """Return the limits of a job's items."""
        return cls(job.budgets.item_tokens, job.budgets.item_seconds)

    def raised_to(self, other: ItemBudget) -> ItemBudget | None:
        """Return the old limits that `other` raises; None if it lowers one."""
        if not (_raised(self.tokens, other.tokens) and _raised(self.seconds, other.seconds)):
            return None
        # Only a raised limit is kept: an item that an unchanged one ended would end there again.
        return ItemBudget(
            self.tokens if self.tokens != other.tokens else None,
            self.seconds if self.seconds != other.seconds else None,
        )

    def ended(self, row: Mapping[str, Any]) -> bool:
        """Return whether one of the limits ended an item, by its result row."""
        by_tokens = self.tokens is not None and row["spent"].get("tokens", 0) >= self.tokens
        return by_tokens or (self.seconds is not None and bool(row.get("by_clock")))


def _raised(before: float | None, now: float | None) -> bool:
    return now is None or (before is not None and before <= now)


@dataclass(frozen=True, kw_only=True)
class JobChanges:
    """What differs from the run: sections, which affect every item, and single items.

    `cut` are the keys of items that a lower item budget ended; None if it was not raised.
    `reordered`: the items are in another order. `shortened`: a limit leaves some out. `count` is
    the number of items.
    """

    sections: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    cut: tuple[str, ...] | None = None
    reordered: bool = False
    shortened: bool = False
    count: int = 0

    def __bool__(self) -> bool:
        single = self.changed or self.added or self.removed or self.cut is not None
        return bool(self.sections or single or self.reordered or self.shortened)

    @property
    def lossy(self) -> bool:
        """Whether replies would be written again or dropped; new and moved items lose nothing."""
        return bool(self.sections or self.changed or self.removed or self.cut)

    def with_raised_budget(self, cut: Sequence[str]) -> JobChanges:
        """Return the changes where a raised item budget affects only the keys in `cut`."""
        if ITEM_BUDGET not in self.sections:
            return self
        rest = tuple(name for name in self.sections if name != ITEM_BUDGET)
        return replace(self, sections=rest, cut=tuple(cut))

    def stale(self, items: Sequence[Item]) -> set[str]:
        """Return the keys of the items that must be written (again)."""
        if self.sections:
            return {item.key for item in items}
        return {*self.changed, *self.added, *(self.cut or ())}

    def sentences(self, again: int) -> list[str]:
        """Return what changed, one sentence each; `again` is how many items would be written."""
        sentences = []
        if self.sections:
            sentences.append(f"changed in the job: {', '.join(self.sections)}")
        if self.cut is not None:
            ended = f"the lower one ended {_items(self.cut)}" if self.cut else "it ended no item"
            sentences.append(f"a higher item budget: {ended}")
        for keys, what in (
            (self.changed, "changed in the input, or by the prompt, a rule or past cases"),
            (self.added, "new in the input"),
            (self.removed, "no longer in the input"),
        ):
            if keys:
                sentences.append(f"{_items(keys)} {what}")
        if self.reordered and not (self.added or self.removed):
            sentences.append("the items are in another order")
        sentences.append(f"{again} of {self.count} items would be written again")
        return sentences


def compare(
    before: Fingerprint, now: Fingerprint, present: Collection[str] | None = None
) -> JobChanges:
    """Return what changed between two fingerprints of a job.

    `present` are the keys of the whole input: an item that a limit leaves out is not removed.
    """
    present = now.items if present is None else present
    # Runs from before the weights were hashed have no such section: they count as unchanged.
    known = {WEIGHTS: now.sections.get(WEIGHTS), **before.sections}
    sections = tuple(name for name, value in now.sections.items() if known.get(name) != value)
    both = [key for key in now.items if key in before.items]
    return JobChanges(
        sections=sections,
        changed=tuple(key for key in both if before.items[key] != now.items[key]),
        added=tuple(key for key in now.items if key not in before.items),
        removed=tuple(key for key in before.items if key not in present),
        # Rows that moved are not written again, but the output has another order.
        reordered=both != [key for key in before.items if key in now.items],
        shortened=any(key in present and key not in now.items for key in before.items),
        count=len(now.items),
    )


def _items(keys: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(keys[:most]) + (", …" if len(keys) > most else "")
    return f"{len(keys)} item{'s' * (len(keys) != 1)} ({shown})"
