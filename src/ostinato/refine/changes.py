"""What changed in a job since its run, and which items would have to be written again for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ostinato.loop import JSON
from ostinato.refine.inputs import Item
from ostinato.refine.job import Job, item_digests
from ostinato.refine.plan import Planner


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """The hashes of all that a job's replies depend on: of its sections, and of each item."""

    sections: Mapping[str, str]
    items: Mapping[str, str]

    @classmethod
    def of(cls, job: Job, planner: Planner, items: Sequence[Item]) -> Fingerprint:
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


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is not as it was: sections that touch every item, and single items."""

    sections: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    moved: bool = False
    count: int = 0

    def __bool__(self) -> bool:
        return bool(self.sections or self.changed or self.added or self.removed or self.moved)

    def stale(self, items: Sequence[Item]) -> set[str]:
        """Return the keys of the items that must be written (again)."""
        if self.sections:
            return {item.key for item in items}
        return {*self.changed, *self.added}

    def sentences(self) -> list[str]:
        """Say what changed, and what would be written again for it."""
        told = []
        if self.sections:
            names = ", ".join(self.sections)
            told.append(f"changed in the job: {names}")
        for keys, what in (
            (self.changed, "changed in the input, or by the prompt, a rule or past cases"),
            (self.added, "new in the input"),
            (self.removed, "no longer in the input"),
        ):
            if keys:
                told.append(f"{_items(keys)} {what}")
        if self.moved and not (self.added or self.removed):
            told.append("the items stand in another order")
        again = self.count if self.sections else len(self.changed) + len(self.added)
        told.append(f"{again} of {self.count} items would be written again")
        return told


def compare(then: Fingerprint, now: Fingerprint) -> Changes:
    """Return what changed between two fingerprints of a job."""
    sections = tuple(
        name for name, value in now.sections.items() if then.sections.get(name) != value
    )
    both = [key for key in now.items if key in then.items]
    return Changes(
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
