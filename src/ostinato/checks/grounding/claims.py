"""The figures and names that a text claims, and whether the facts contain them.

A text is read from the left. What a claim is depends on the text before it and on a few characters
after it. Until they are there, it is decided only if no continuation can change it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import regex

from ostinato.checks.grounding.facts import EVERY, As, Facts, Lexicon, norm, tokens
from ostinato.checks.grounding.vocabulary import (
    ACRONYMS,
    ALWAYS,
    MONTH_NAMES,
    MONTHS,
    NUMERALS,
    OPENERS,
    ORDINARY_ENDINGS,
    TENS,
    UNITS,
    WEEKDAY_NAMES,
)


class Claim(NamedTuple):
    """A claim at `text[start:end]`; `joined`: it and the one before are one name."""

    start: int
    end: int
    grounded: bool
    joined: bool = False


_DIGITS = frozenset("0123456789")
_LONGEST_TAIL = 20  # characters; longer than any tail ("th of September")
_OPEN_END = 32  # longer than "-seven" and a tail: a word this far from the end is decided
_SKIPPED = frozenset(" \t\"'“”‘’()[]*_#>-–—•")
_STOPS = frozenset(".!?:;…\n。！？")
_MONTH = "|".join(sorted(MONTHS, key=len, reverse=True))
_TAIL_TEXT = (
    r"(?P<ordinal>st|nd|rd|th)?"
    r"(?:\s?(?:(?P<am>am|a\.m\.?)|(?P<pm>pm|p\.m\.?)|(?P<clock>o['’]clock))"
    rf"|\s(?:of\s)?(?P<month>{_MONTH}))?"
)
_TAIL = regex.compile(_TAIL_TEXT, regex.IGNORECASE)
_TAIL_ENDED = regex.compile(_TAIL_TEXT + r"(?!\w)", regex.IGNORECASE)
_UNIT_TEXT = f"[- ](?:{'|'.join(UNITS)})"
_UNIT = regex.compile(_UNIT_TEXT, regex.IGNORECASE)
_UNIT_ENDED = regex.compile(rf"[- ]({'|'.join(UNITS)})(?![\w'’])", regex.IGNORECASE)
_AFTER_TENS = re.compile(rf"(?<![\w'’])(?:{'|'.join(TENS)})[- ]$", re.IGNORECASE)
_AFTER_MONTH = re.compile(rf"(?<!\w)({_MONTH})\.?\s+(?:the\s+)?$", re.IGNORECASE)
_AFTER_PAST = re.compile(r"(?<!\w)(half|quarter)\s+(past|after|to|of)\s+$", re.IGNORECASE)
_AFTER_AT = re.compile(
    r"(?<!\w)(?:at|by|around|until|till|before|after|from|between)\s+$", re.IGNORECASE
)
_RANGE = re.compile(r"[/–-]")
_PHONE_AFTER = regex.compile(r"[ .(-]{0,2}[0-9]")
_DATE_NAMES = frozenset((*MONTH_NAMES, *WEEKDAY_NAMES))
_SORTED_ALWAYS = sorted(ALWAYS)


class ClaimMark(NamedTuple):
    """Where reading can resume: `text` ends before a word, and all of its claims are grounded.

    `name_end` and `name_mask` are those of the name before it, to which the next word may belong.
    """

    text: str = ""
    name_end: int = -1
    name_mask: int = 0


def first_ungrounded(
    text: str, facts: Facts, mark: ClaimMark, names: bool = True
) -> tuple[Claim | None, ClaimMark]:
    """Return the first claim of a prefix that no continuation can ground, and a new mark.

    Reading resumes at the mark if the text still starts with its text. The mark saves time and
    changes no result.
    """
    marks = [mark if text.startswith(mark.text) else ClaimMark()]
    for claim in claims(text, facts, whole=False, names=names, marks=marks):
        if not claim.grounded:
            return claim, marks[0]
    return None, marks[-1]


def claims(
    text: str,
    facts: Facts,
    *,
    whole: bool,
    names: bool = True,
    marks: list[ClaimMark] | None = None,
) -> Iterator[Claim]:
    """Yield the claims of a text, in its order; without `names`, those of figures and dates alone.

    In a prefix (not `whole`), claims that are still open are left out. Reading starts at the last
    of the `marks`; the last mark before the open end is appended to them.
    """
    mark = marks[-1] if marks else ClaimMark()
    name_end, name_mask = mark.name_end, mark.name_mask
    marked = marks is None
    for match in tokens(text, len(mark.text)):
        start, end = match.span()
        if not marked and len(text) - end < _OPEN_END:
            assert marks is not None
            marks.append(ClaimMark(text[:start], name_end, name_mask))
            marked = True
        word, first = match.group(), text[start]
        if first in _DIGITS:
            grounded = _Figure(text, start, end, word, facts, whole).grounded()
            if grounded is not None:
                yield Claim(start, end, grounded)
            continue
        if start and text[start - 1] in _DIGITS:
            continue  # the "th" of 8th, the "km" of 5km
        # The last word of a prefix may still get letters, so it is judged by its start.
        if not whole and end == len(text):
            mask = name_mask if _joins(text, name_end, start) else EVERY
            judged = names or not _DIGITS.isdisjoint(word)
            if judged and not _may_become_known(text, start, word, mask, facts):
                yield Claim(start, end, False, _joins(text, name_end, start))
            return
        if (
            first.isupper()
            and not _is_opener(text, start, word)
            and (names or not _DIGITS.isdisjoint(word) or norm(word) in _DATE_NAMES)
        ):
            joined = _joins(text, name_end, start)
            mask = facts.mask(folded := norm(word), name_mask if joined else EVERY)
            yield Claim(start, end, mask != 0, joined)
            # A possessive ends a name: "Ann's Jeep" is two.
            name_end = end if len(folded) == len(word) else -1
            name_mask = mask
        elif (numeral := _numeral(text, start, end, word, facts, whole)) is not None:
            yield numeral
        # A code in lower case with digits in it, such as "b2".
        elif not first.isupper() and not _DIGITS.isdisjoint(word):
            yield Claim(start, end, facts.mask(norm(word), EVERY) != 0)


def _joins(text: str, name_end: int, start: int) -> bool:
    return start - name_end == 1 and text[name_end] in " -" and name_end > 0


def _may_become_known(text: str, start: int, word: str, mask: int, facts: Facts) -> bool:
    """Whether a word that may get more letters can still be a known one, or no claim."""
    if text[start].isupper():
        if _starts_sentence(text, start):
            return True  # nearly any word can start a sentence without being a name
        folded = norm(word)
        if _is_always(folded) or any(word.startswith(folded) for word in _SORTED_ALWAYS):
            return True
        return facts.has_prefix(folded, mask)
    return _DIGITS.isdisjoint(word) or facts.has_prefix(norm(word), EVERY)


def _is_always(folded: str, word: str = "") -> bool:
    if word in ACRONYMS:
        return False
    return folded in ALWAYS or ("'" in folded and folded.partition("'")[0] in ALWAYS)


def _is_opener(text: str, start: int, word: str) -> bool:
    """Whether a capitalized word is no name: always, or because it starts a sentence."""
    folded = norm(word)
    if _is_always(folded, word):
        return True
    if not _starts_sentence(text, start):
        return False
    return (
        folded in OPENERS
        or folded in NUMERALS
        or folded.endswith(ORDINARY_ENDINGS)
        or folded.partition("'")[0] in OPENERS
    )


def _starts_sentence(text: str, start: int) -> bool:
    at = start - 1
    while at >= 0 and text[at] in _SKIPPED:
        at -= 1
    return at < 0 or text[at] in _STOPS


def _numeral(text: str, start: int, end: int, word: str, facts: Facts, whole: bool) -> Claim | None:
    """Return the claim of a complete number in words; "one" alone is not a claim."""
    value = NUMERALS.get(word.casefold())
    # The "five" of "twenty-five" was counted with its tens.
    if value is None or (value < 10 and _AFTER_TENS.search(text, max(0, start - 9), start)):
        return None
    if value >= 20:
        # "twenty" at the end of a prefix may become "twenty-five".
        if not whole and _UNIT.fullmatch(text, end, partial=True):
            return None
        if unit := _UNIT_ENDED.match(text, end):
            value, end = value + UNITS[unit[1].lower()], unit.end()
    if value == 1:  # mostly a pronoun or an article: "this one"
        return None
    grounded = _Figure(text, start, end, str(value), facts, whole, spelled=True).grounded()
    return None if grounded is None else Claim(start, end, grounded)


class _Figure:
    """A figure in its context; `form` is its spelling in digits, `spelled` if that was in words."""

    def __init__(
        self,
        text: str,
        start: int,
        end: int,
        form: str,
        facts: Facts,
        whole: bool,
        spelled: bool = False,
    ) -> None:
        self.text, self.start, self.end, self.form = text, start, end, form
        self.facts, self.whole, self.spelled = facts, whole, spelled
        self.month, self.lexicon = self._before()
        self.rest = text[end : end + _LONGEST_TAIL]

    def grounded(self) -> bool | None:
        """Whether the facts contain the figure; None while that is open."""
        if not self.whole:
            if self._may_grow() or (
                self._plus_one(self.form) and _PHONE_AFTER.fullmatch(self.rest, partial=True)
            ):
                return None
            if not self.rest and not self.spelled and not self._is_known() and not self._may_list():
                return False
            if self._tail_is_open() or self._may_list():
                return None if self._is_known() or self._may_list() else False
        return self._is_list_number() or self._is_known_here()

    def _before(self) -> tuple[int, Lexicon]:
        """Return the month before the figure (or 0), and the lexicon that it is looked up in."""
        if not self.text[self.start - 1 : self.start].isspace():
            return 0, self.facts.figures
        window = max(0, self.start - _LONGEST_TAIL)
        if (match := _AFTER_PAST.search(self.text, window, self.start)) is not None:
            quarter = "quarter to" if match[2].lower() in ("to", "of") else "quarter past"
            name = "half" if match[1].lower() == "half" else quarter
            return 0, self.facts.past.get(name, Lexicon())
        match = _AFTER_MONTH.search(self.text, window, self.start)
        if match is not None and match[1][0].isupper():
            month = MONTHS[match[1].lower()]
            return month, self.facts.days.get(month, Lexicon())
        return 0, self.facts.figures

    def _may_grow(self) -> bool:
        """Whether more digits can make it a known figure."""
        if self.spelled or len(self.rest) > 1:
            return False
        if self.rest and self.rest not in ".,:/–-":
            return False
        return self._starts(self.form + self.rest)

    def _starts(self, prefix: str) -> bool:
        if self.lexicon.starts(prefix) or self._plus_one(prefix):
            return True
        pieces = _RANGE.split(prefix)
        if self.lexicon is not self.facts.figures or len(pieces) != 2:
            return False
        return bool(self.lexicon.get(pieces[0])) and self.lexicon.starts(pieces[1])

    def _is_known(self) -> bool:
        """Whether the figure is grounded in at least one context."""
        return (
            bool(self.lexicon.get(self.form))
            or self._plus_one(self.form)
            or self._is_range()
            or any(self.facts.day(month, self.form) for month in self.facts.days)
        )

    def _plus_one(self, form: str) -> bool:
        """Whether it is the +1 before a North American phone number."""
        return form == "1" and self.start > 0 and self.text[self.start - 1] == "+"

    def _is_range(self) -> bool:
        pieces = _RANGE.split(self.form)
        return (
            self.lexicon is self.facts.figures
            and len(pieces) == 2
            and all(self.lexicon.get(piece) for piece in pieces)
        )

    def _tail_is_open(self) -> bool:
        return _TAIL.fullmatch(self.rest, partial=True) is not None

    def _lists(self) -> bool:
        """Whether it is where a list has its number: "1. …" at the start of a line."""
        line = self.text.rfind("\n", 0, self.start) + 1
        return (
            not self.spelled
            and len(self.form) <= 2
            and not self.text[line : self.start].strip(" \t*#-•")
        )

    def _may_list(self) -> bool:
        return self.rest in ("", ".", ")") and self._lists()

    def _is_list_number(self) -> bool:
        marked = self.rest[:1] in (".", ")") and self.rest[1:2].isspace()
        return marked and self._lists()

    def _is_known_here(self) -> bool:
        tail = _TAIL_ENDED.match(self.rest)
        groups = tail.groupdict() if tail else {}
        if month := groups.get("month"):
            return self.facts.day(MONTHS[month.lower()], self.form)
        known_as = self.lexicon.get(self.form)
        if self.month:
            return bool(known_as)
        if groups.get("am") or groups.get("pm"):
            return bool(known_as & (As.AM if groups["am"] else As.PM))
        if self._is_range():
            return True
        if self._plus_one(self.form) and _PHONE_AFTER.match(self.rest):
            return True
        if groups.get("ordinal"):
            return bool(known_as & (As.DAY | As.NUMBER))
        if groups.get("clock"):
            return bool(known_as & (As.HOUR | As.NUMBER))
        # "5" alone is the hour of a known 17:00 only after "at", "by" and the like.
        return bool(known_as & As.NUMBER) or (bool(known_as & As.HOUR) and self._after_at())

    def _after_at(self) -> bool:
        window = max(0, self.start - _LONGEST_TAIL)
        return _AFTER_AT.search(self.text, window, self.start) is not None
