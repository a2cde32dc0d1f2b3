"""Finding words and patterns in a text that may still grow. Knows no check.

A match is *closed* when no continuation of the text can undo it: "ass" at the end of a text may
become "assist", "ass " may not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import regex

from ostinato.checks.deadline import left
from ostinato.errors import InputError
from ostinato.loop import Span

JUDGE_SECONDS = 1.0  # for one pattern on one text
FORESEE_SECONDS = 0.05


class Hold(IntEnum):
    """How a match of a pattern fares when the text goes on."""

    ALWAYS = 0  # it stays
    INSIDE = 1  # it stays if it ends before the last character: the pattern looks one ahead
    NEVER = 2  # nothing can be said: the pattern looks ahead, or at the end of the text


_LETTERS = set("dDsSwWntrf")  # escapes that are a set of characters
_EDGES = set("bB")
_EDGE = r"(?<!\w)"


def hold_of(pattern: str) -> Hold:
    """Return how a match of the pattern fares when the text goes on, carefully.

    Known are sets, groups, alternatives, backtracking quantifiers and word edges; whatever else a
    pattern holds (looking ahead, `$`, possessive or fuzzy parts, recursion) makes it `NEVER`.
    """
    hold, i, inside = Hold.ALWAYS, 0, False
    while i < len(pattern):
        char, after = pattern[i], pattern[i + 1 : i + 2]
        if char == "\\":
            if after in _EDGES and not inside:
                hold = Hold.INSIDE
            elif after.isalnum() and after not in _LETTERS:
                return Hold.NEVER
            i += 2
            continue
        if inside:
            if char == "[":
                return Hold.NEVER
            inside = char != "]"
        elif char == "[":
            inside = True
            i += len(regex.match(r"\[\^?\]?", pattern[i:]).group()) - 1  # "[]a]" holds "]"
        elif char == "$" or (char == "(" and _strange_group(pattern, i)):
            return Hold.NEVER
        elif char in "*+?}" and after == "+":
            return Hold.NEVER  # possessive
        elif char == "{" and not regex.match(r"\{\d*,?\d*\}", pattern[i:]):
            return Hold.NEVER  # fuzzy
        i += 1
    return hold


def _strange_group(pattern: str, at: int) -> bool:
    plain = regex.match(r"\((?!\?|\*)|\(\?(?::|P?<\w+>|P=\w+|i\)|s\)|is\)|<[=!])", pattern[at:])
    return plain is None


def compile_pattern(
    pattern: str, case: bool, where: str, key: str = "pattern"
) -> regex.Pattern[str]:
    """Compile a user's pattern. Raises `InputError` that names `where` and at which key it is."""
    try:
        return regex.compile(pattern, 0 if case else regex.IGNORECASE)
    except (regex.error, RecursionError, OverflowError) as error:
        wrong = InputError(
            f"The pattern of {where} must be a regular expression, got {pattern!r}: {error}. "
            f"Mend it there, or escape its special characters."
        )
        wrong.key = key
        raise wrong from error


def literal(text: str, whole: bool, closed: bool, wild: bool = False) -> str:
    """Return the pattern of a text: any white space for a blank, either apostrophe, word edges.

    With `closed` it matches only where no continuation can undo it; with `wild`, `*` stands for
    any letters of the same word.
    """
    parts = [_escape(part) for part in (text.split("*") if wild else [text])]
    pattern = r"\w*".join(parts)
    first, last = text[0], text[-1]
    if whole and _is_word(first):
        pattern = _EDGE + pattern
    if whole and _is_word(last):
        pattern += r"(?=\W)" if closed else r"(?!\w)"
    if not whole or last == "*":
        return pattern.removesuffix(r"\w*") if closed else pattern
    return pattern


def _is_word(char: str) -> bool:
    return regex.match(r"\w", char) is not None


def _escape(text: str) -> str:
    words = (regex.escape(word, special_only=True) for word in text.split())
    blank = r"\s+"
    pattern = blank.join(words).replace("’", "'").replace("'", "['’]")
    lead = blank if text[:1].isspace() else ""
    tail = blank if text[-1:].isspace() and text.strip() else ""
    return lead + pattern + tail


@dataclass(frozen=True)
class Finder:
    """Finds the first of some texts and patterns, as they stand and closed."""

    standing: tuple[regex.Pattern[str], ...]
    closing: tuple[tuple[regex.Pattern[str], Hold], ...]
    quick: re.Pattern[str] | None = None  # the texts closed, for a lower-case ASCII text

    def find(self, text: str) -> Span | None:
        """Return the first match. Raises `TimeoutError` where a pattern takes too long."""
        found = (pattern.search(text, timeout=left(JUDGE_SECONDS)) for pattern in self.standing)
        return _first(Span(*match.span()) for match in found if match)

    def find_closed(self, text: str) -> Span | None:
        """Return the first match that no continuation can undo, or None where none is known."""
        closing = self.closing
        places = []
        if self.quick is not None and text.isascii():
            closing = closing[1:]
            if match := self.quick.search(text.lower()):
                places.append(Span(*match.span()))
        for pattern, hold in closing:
            if (place := _closed_place(pattern, hold, text)) is not None:
                places.append(place)
        return _first(places)


def _closed_place(pattern: regex.Pattern[str], hold: Hold, text: str) -> Span | None:
    try:
        for match in pattern.finditer(text, timeout=left(FORESEE_SECONDS)):
            if hold is Hold.ALWAYS or match.end() < len(text):
                return Span(*match.span())
    except TimeoutError:
        return None
    return None


def _first(places: Iterable[Span]) -> Span | None:
    return min(places, default=None)


@lru_cache(maxsize=4096)
def finder(
    texts: tuple[str, ...],
    patterns: tuple[str, ...] = (),
    *,
    case: bool = False,
    whole: bool = True,
    wild: bool = False,
    where: str = "a check",
) -> Finder:
    """Return the finder of any of the texts and patterns."""
    flags = 0 if case else regex.IGNORECASE
    standing, closing, quick = [], [], None
    if texts:
        standing.append(regex.compile(_either(texts, whole, False, wild), flags))
        closed = _either(texts, whole, True, wild)
        closing.append((regex.compile(closed, flags), Hold.ALWAYS))
        if not case and "".join(texts).replace("’", "'").isascii():
            lowered = tuple(text.lower() for text in texts)
            # Half of the time, or less: this is looked for at every token.
            quick = re.compile(_either(lowered, whole, True, wild))
    for pattern in patterns:
        compiled = compile_pattern(pattern, case, where, "patterns")
        standing.append(compiled)
        if (hold := hold_of(pattern)) is not Hold.NEVER:
            closing.append((compiled, hold))
    return Finder(tuple(standing), tuple(closing), quick)


def _either(texts: tuple[str, ...], whole: bool, closed: bool, wild: bool) -> str:
    """Return the pattern of any of the texts; the word edge before them is looked for once."""
    patterns = [literal(text, whole, closed, wild) for text in texts]
    edged = [pattern.removeprefix(_EDGE) for pattern in patterns if pattern.startswith(_EDGE)]
    others = [f"(?:{pattern})" for pattern in patterns if not pattern.startswith(_EDGE)]
    return "|".join(([f"{_EDGE}(?:{'|'.join(edged)})"] if edged else []) + others)
