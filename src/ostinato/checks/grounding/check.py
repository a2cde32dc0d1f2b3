"""Held to what is known: the figures, times, dates and names of a reply come from its sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ostinato.checks.base import POSSIBLE, BaseCheck, impossible, quoted
from ostinato.checks.grounding.claims import Claim, ClaimMark, claims, first_ungrounded
from ostinato.checks.grounding.facts import Facts
from ostinato.errors import InputError
from ostinato.loop import Item, PrefixVerdict, Span, Verdict

SOURCES = ("message", "conversation", "record")


@dataclass(frozen=True, kw_only=True)
class Grounded(BaseCheck):
    """Says only figures, times, dates, phone numbers, addresses and names that the sources hold.

    `sources` are the columns to read, whatever they hold: texts, lists of turns, records, JSON.
    Where none are named, those of message, conversation and record that the item has. `allow`
    holds texts that are always known, such as the name of the company.
    """

    kind: ClassVar[str] = "grounded"

    sources: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.strings("sources")
        self.strings("allow")

    @property
    def columns(self) -> tuple[str, ...]:
        """The sources, where they are named."""
        return self.sources

    def judge(self, output: object, item: Item) -> Verdict:
        """Name the claims that no source holds; the score is the share of those that one does."""
        text = self.text(output)
        said = _joined(claims(text, self._known(item).facts, whole=True))
        wrong = [claim for claim in said if not claim.grounded]
        if not wrong:
            return self.verdict(True)
        names = list(dict.fromkeys(text[claim.start : claim.end] for claim in wrong))
        place = Span(wrong[0].start, wrong[0].end)
        return self.verdict(False, self._message(names), 1 - len(wrong) / len(said), place)

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible at the first claim that no continuation can make a known one."""
        text, known = self.text(output), self._known(item)
        claim, known.mark = first_ungrounded(text, known.facts, known.mark)
        if claim is None:
            return POSSIBLE
        message = self._message([text[claim.start : claim.end]])
        return impossible(message, claim.start, claim.end)

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
    """The facts of some values, and how far the text that is being written was read with them."""

    __slots__ = ("facts", "mark", "values")

    def __init__(self, values: tuple[object, ...]) -> None:
        self.values = values  # held, so that no id is used again
        self.facts = Facts(values)
        self.mark = ClaimMark()


_known: dict[tuple[tuple[int, int], ...], KnownFacts] = {}
_MOST_KNOWN = 2048


def known_of(values: tuple[object, ...]) -> KnownFacts:
    """Return what is known by some values, read once for as long as these are the same objects.

    A list or table that grew is read again; one whose content was exchanged in place is not.
    """
    key = tuple((id(value), _size(value)) for value in values)
    known = _known.get(key)
    if known is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        known = _known[key] = KnownFacts(values)
    return known


def _size(value: object) -> int:
    return len(value) if isinstance(value, list | tuple | Mapping) else 0


def _joined(said: Iterable[Claim]) -> list[Claim]:
    """Return the claims with the words of a name as one, from its first unknown word on."""
    names: list[Claim] = []
    for claim in said:
        if claim.joined and names:
            before = names.pop()
            start = claim.start if before.grounded and not claim.grounded else before.start
            claim = Claim(start, claim.end, before.grounded and claim.grounded)
        names.append(claim)
    return names
