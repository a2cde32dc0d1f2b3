"""Grounding: figures, times, dates and names of a reply must come from its sources (English)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ostinato.checks.base import POSSIBLE, BaseCheck, impossible, quoted
from ostinato.checks.grounding.claims import Claim, ClaimMark, claims, first_ungrounded
from ostinato.checks.grounding.facts import Facts, plain
from ostinato.errors import InputError
from ostinato.loop import Item, PrefixVerdict, Span, Verdict

SOURCES = ("message", "conversation", "record")


@dataclass(frozen=True, kw_only=True)
class Grounded(BaseCheck):
    """Contains only figures, times, dates, phone numbers, addresses and names of its sources.

    `sources` names columns of any content: texts, lists of turns, records, JSON. By default they
    are those of message, conversation and record that the item has. `allow` holds texts that are
    always known, such as the company's name or "24/7". Without `names`, only figures, times, dates,
    numbers and codes are checked.
    """

    kind: ClassVar[str] = "grounded"

    sources: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    names: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.strings("sources")
        self.strings("allow")

    @property
    def columns(self) -> tuple[str, ...]:
        """The sources, if they are named."""
        return self.sources

    def judge(self, output: object, item: Item) -> Verdict:
        """Name the claims that no source contains; the score is the share of the grounded ones."""
        text = self.text(output)
        form, facts = plain(text), self._known(item).facts
        found = [
            claim._replace(start=place.start, end=place.end)
            for claim in _joined(claims(form.text, facts, whole=True, names=self.names))
            for place in (form.span(claim.start, claim.end),)
        ]
        wrong = [claim for claim in found if not claim.grounded]
        if not wrong:
            return self.verdict(True)
        names = list(dict.fromkeys(text[claim.start : claim.end] for claim in wrong))
        span = Span(wrong[0].start, wrong[0].end)
        return self.verdict(False, self._message(names), 1 - len(wrong) / len(found), span)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible at the first claim that no continuation can ground."""
        text, known = self.text(output), self._known(item)
        form, mark = plain(text), known.marks.get(self.names, ClaimMark())
        claim, known.marks[self.names] = first_ungrounded(form.text, known.facts, mark, self.names)
        if claim is None:
            return POSSIBLE
        place = form.span(claim.start, claim.end)
        return impossible(self._message([text[slice(*place)]]), *place)

    def _known(self, item: Item) -> KnownFacts:
        columns = self.sources or tuple(name for name in SOURCES if name in item)
        missing = [name for name in columns if name not in item]
        if missing or not (columns or self.allow):
            raise InputError(
                f"The item of the check '{self.name}' must have {quoted(missing or SOURCES)}, got "
                f"{', '.join(map(repr, item)) or 'no columns'}. Name its columns in 'sources'."
            )
        return known_of((*(item[name] for name in columns), *self.allow))

    def _message(self, names: list[str]) -> str:
        columns = ", ".join(self.sources or SOURCES)
        those = "it is" if len(names) == 1 else "they are"
        return f"Leave out {quoted(names, 'and')}: {those} not in the sources ({columns})."


class KnownFacts:
    """The facts of an item's values, and how far the text in progress was read with them.

    `marks` has a mark with names and one without, as checks of both kinds may share the facts.
    """

    __slots__ = ("facts", "marks", "values")

    def __init__(self, values: tuple[object, ...]) -> None:
        self.values = values  # kept alive, so that no other object gets one of their ids
        self.facts = Facts(values)
        self.marks: dict[bool, ClaimMark] = {}


_known: dict[tuple[tuple[int, int], ...], KnownFacts] = {}
_MOST_KNOWN = 2048  # items whose facts are kept in memory


def known_of(values: tuple[object, ...]) -> KnownFacts:
    """Return the facts of values, read once while these are the same objects.

    A list or table that grew is read again; one whose content was replaced in place is not.
    """
    # By identity: hashing the content of a whole conversation at every token would cost more than
    # the check itself.
    key = tuple((id(value), _size(value)) for value in values)
    known = _known.get(key)
    if known is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        known = _known[key] = KnownFacts(values)
    return known


def _size(value: object) -> int:
    return len(value) if isinstance(value, list | tuple | Mapping) else 0


def _joined(found: Iterable[Claim]) -> list[Claim]:
    """Return the claims with a name's words joined, from its first unknown word on."""
    names: list[Claim] = []
    for claim in found:
        if claim.joined and names:
            before = names.pop()
            start = claim.start if before.grounded and not claim.grounded else before.start
            claim = Claim(start, claim.end, before.grounded and claim.grounded)
        names.append(claim)
    return names
