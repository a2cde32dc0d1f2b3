"""What changed in a job since its run started, and which items must be written again.

Knows hashes and keys; knows no model and no journal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ostinato.errors import RunError
from ostinato.journal import JSON
from ostinato.loop import digest
from ostinato.refine.job.config import ITEM_BUDGET, WEIGHTS, Job
from ostinato.refine.job.item_index import NO_KEYS, ItemIndex, Keys, index_of


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What a job's replies depend on: hashes of its sections, and the index of its items.

    `items` is None where nothing is known of them any more.
    """

    sections: Mapping[str, str]
    items: ItemIndex | None

    def to_json(self) -> dict[str, JSON]:
        """Return the value that the run's specification records."""
        value: dict[str, JSON] = {"sections": dict(self.sections)}
        if self.items is not None:
            value["index"] = self.items.to_json()
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, object], folder: Path) -> Fingerprint:
        """Read what `to_json` returned; missing parts are empty. `folder` has the indexes.

        Older runs recorded the digests of their items themselves.
        """
        sections, index = value.get("sections"), value.get("index")
        return cls(
            sections=sections if isinstance(sections, dict) else {},
            items=_found(index, folder)
            if isinstance(index, dict)
            else _of_older_run(value.get("items"), folder),
        )


def _found(index: Mapping[str, Any], folder: Path) -> ItemIndex | None:
    # A journal may come from somebody else: a record must not lead out of its folder.
    path = folder / Path(str(index.get("file"))).name
    try:
        return ItemIndex(path, int(index["count"]))
    except (RunError, KeyError, ValueError):
        return None


def _of_older_run(digests: object, folder: Path) -> ItemIndex:
    digests = digests if isinstance(digests, dict) else {}
    path = folder / f"{digest(list(digests.items()))}.db"
    return ItemIndex(path) if path.exists() else index_of(path, digests)


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

    `cut` are the items that a lower item budget ended, which `raised` is; None if it was not
    raised. `reordered`: the items are in another order. `shortened`: a limit leaves some out.
    `count` is the number of items.
    """

    sections: tuple[str, ...] = ()
    changed: Keys = NO_KEYS
    added: Keys = NO_KEYS
    removed: Keys = NO_KEYS
    cut: Keys | None = None
    raised: ItemBudget | None = None
    reordered: bool = False
    shortened: bool = False
    count: int = 0

    def __bool__(self) -> bool:
        single = self.changed.count or self.added.count or self.removed.count
        budget = self.cut is not None
        return bool(self.sections or single or budget or self.reordered or self.shortened)

    @property
    def lossy(self) -> bool:
        """Whether replies would be written again or dropped; new and moved items lose nothing."""
        cut = self.cut is not None and self.cut.count
        return bool(self.sections or self.changed.count or self.removed.count or cut)

    def with_raised_budget(self, raised: ItemBudget, cut: Keys) -> JobChanges:
        """Return the changes where a raised item budget affects only the items in `cut`."""
        rest = tuple(name for name in self.sections if name != ITEM_BUDGET)
        return replace(self, sections=rest, cut=cut, raised=raised)

    def keeps(self, row: Mapping[str, Any]) -> bool:
        """Return whether the reply of an unchanged item would come out the same, by its row."""
        return not self.sections and not (self.raised is not None and self.raised.ended(row))

    def sentences(self, again: int) -> list[str]:
        """Return what changed, one sentence each; `again` is how many items would be written."""
        sentences = []
        if self.sections:
            sentences.append(f"changed in the job: {', '.join(self.sections)}")
        if self.cut is not None:
            ended = f"the lower one ended {self.cut}" if self.cut.count else "it ended no item"
            sentences.append(f"a higher item budget: {ended}")
        for keys, what in (
            (self.changed, "changed in the input, or by the prompt, a rule or past cases"),
            (self.added, "new in the input"),
            (self.removed, "no longer in the input"),
        ):
            if keys.count:
                sentences.append(f"{keys} {what}")
        if self.reordered and not (self.added.count or self.removed.count):
            sentences.append("the items are in another order")
        sentences.append(f"{again} of {self.count} items would be written again")
        return sentences


def changed_sections(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the sections that differ."""
    # Runs from before the weights were hashed have no such section: they count as unchanged.
    known = {WEIGHTS: now.get(WEIGHTS), **before}
    return tuple(name for name, value in now.items() if known.get(name) != value)


def compare(before: Fingerprint, now: Fingerprint) -> JobChanges:
    """Return what changed between two fingerprints of a job, of which `now` has its index.

    An item that a limit leaves out is not removed.
    """
    sections = changed_sections(before.sections, now.sections)
    assert now.items is not None
    count = len(now.items)
    if before.items is None:
        return JobChanges(sections=sections, changed=Keys.of(_keys(now.items)), count=count)
    items = now.items.changes_since(before.items)
    return JobChanges(sections=sections, count=count, **vars(items))


def _keys(index: ItemIndex) -> Iterator[str]:
    return (facts.key for facts in index.facts())
