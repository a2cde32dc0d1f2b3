"""What changed in a job since its run started, and which items must be written again.

Knows hashes and keys; knows no model and no journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ostinato.errors import RunError
from ostinato.journal import JSON, Difference
from ostinato.loop import digest
from ostinato.refine.job.config import ITEM_BUDGET
from ostinato.refine.job.item_index import NO_KEYS, ItemIndex, Keys, index_of
from ostinato.refine.settings import ItemBudget, told


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What each item's reply depends on besides the settings of the job: the index of the items.

    It is None where nothing is known of them any more.
    """

    items: ItemIndex | None

    def to_json(self) -> dict[str, JSON]:
        """Return the value that the run's specification records."""
        return {} if self.items is None else {"index": self.items.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, object], folder: Path) -> Fingerprint:
        """Read what `to_json` returned; `folder` has the indexes.

        Older runs recorded the digests of their items themselves.
        """
        index = value.get("index")
        if isinstance(index, dict):
            return cls(items=_found(index, folder))
        return cls(items=_of_older_run(value.get("items"), folder))


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


@dataclass(frozen=True, kw_only=True)
class JobChanges:
    """What differs from the run: settings, which affect every item, and single items.

    `cut` are the items that a lower item budget ended, which `raised` is; None if it was not
    raised. `reordered`: the items are in another order. `shortened`: a limit leaves some out.
    `unknown`: the index of the earlier items is gone, so every item counts as changed. `count` is
    the number of items.
    """

    settings: tuple[Difference, ...] = ()
    changed: Keys = NO_KEYS
    added: Keys = NO_KEYS
    removed: Keys = NO_KEYS
    cut: Keys | None = None
    raised: ItemBudget | None = None
    reordered: bool = False
    shortened: bool = False
    unknown: bool = False
    count: int = 0

    def __bool__(self) -> bool:
        single = self.changed.count or self.added.count or self.removed.count
        budget = self.cut is not None
        return bool(self.settings or single or budget or self.reordered or self.shortened)

    @property
    def lossy(self) -> bool:
        """Whether replies would be written again or dropped; new and moved items lose nothing."""
        cut = self.cut is not None and self.cut.count
        return bool(self.settings or self.changed.count or self.removed.count or cut)

    def with_raised_budget(self, raised: ItemBudget, cut: Keys) -> JobChanges:
        """Return the changes where a raised item budget affects only the items in `cut`."""
        rest = tuple(each for each in self.settings if not is_item_budget(each))
        return replace(self, settings=rest, cut=cut, raised=raised)

    def keeps(self, row: Mapping[str, Any]) -> bool:
        """Return whether the reply of an unchanged item would come out the same, by its row."""
        return not self.settings and not (self.raised is not None and self.raised.ended(row))

    def sentences(self, again: int, *, judging: bool = False) -> list[str]:
        """Return what changed, one sentence each; `again` is how many items would be written.

        `judging`: fewer are written, as accepted replies are judged by changed checks first.
        """
        sentences = []
        if self.settings:
            sentences.append(f"changed in the job: {', '.join(map(told, self.settings))}")
        if self.cut is not None:
            ended = f"the lower one ended {self.cut}" if self.cut.count else "it ended no item"
            sentences.append(f"a higher item budget: {ended}")
        changed = "changed in the input, or by the prompt, a rule or past cases"
        if self.unknown:
            changed = "perhaps changed: the index of the run's items is missing or damaged"
        for keys, what in (
            (self.changed, changed),
            (self.added, "new in the input"),
            (self.removed, "no longer in the input"),
        ):
            if keys.count:
                sentences.append(f"{keys} {what}")
        if self.reordered and not (self.added.count or self.removed.count):
            sentences.append("the items are in another order")
        but = ", but for accepted replies that pass the changed checks: with --update they stay"
        written = f"{again} of {self.count} items would be written again"
        sentences.append(written + but * judging)
        return sentences


def is_item_budget(each: Difference) -> bool:
    """Return whether a difference is one of the limits of an item."""
    return each.field == ITEM_BUDGET or each.field.startswith("budget.item_")


def compare(
    before: Fingerprint, now: Fingerprint, settings: tuple[Difference, ...] = ()
) -> JobChanges:
    """Return what changed between two fingerprints of a job, of which `now` has its index.

    An item that a limit leaves out is not removed.
    """
    assert now.items is not None
    count = len(now.items)
    if before.items is None:
        keys = Keys.of(facts.key for facts in now.items.facts())
        return JobChanges(settings=settings, changed=keys, unknown=True, count=count)
    items = now.items.changes_since(before.items)
    return JobChanges(settings=settings, count=count, **vars(items))
