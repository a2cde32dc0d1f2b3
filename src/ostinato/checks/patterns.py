"""Words and patterns found in a text that may still grow. Knows no check.

A match is *closed* if no continuation of the text can undo it: "ass" at the end of a text may
become "assist", "ass " may not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import regex

from ostinato.checks.constraint_spec import is_word, spaced
from ostinato.checks.deadline import left
from ostinato.errors import InputError
from ostinato.loop import Span

JUDGE_SECONDS = 1.0  # for one pattern on one whole text
PREFIX_SECONDS = 0.05  # the same, at every token


class Hold(IntEnum):
    """Whether a pattern's match stays when the text grows."""

    ALWAYS = 0  # it stays
    INSIDE = 1  # it stays if it ends before the last character: the pattern looks one ahead
    NEVER = 2  # unknown: the pattern looks ahead, or at the end of the text


_CHARACTER_ESCAPES = set("dDsSwWntrf")  # that match one character, whatever follows it
_EDGE_ESCAPES = set("bB")
_EDGE = r"(?<!\w)"


def hold_of(pattern: str) -> Hold:
    """Return whether the pattern's match stays when the text grows; `NEVER` if in doubt.

    Sets, groups, alternatives, backtracking quantifiers and word edges are known to stay. Anything
    else (looking ahead, `$`, possessive or fuzzy parts, recursion) makes it `NEVER`.
    """
    hold, i, in_set = Hold.ALWAYS, 0, False
    while i < len(pattern):
        char, after = pattern[i], pattern[i + 1 : i + 2]
        if char == "\\":
            if after in _EDGE_ESCAPES and not in_set:
                hold = Hold.INSIDE
            elif after.isalnum() and after not in _CHARACTER_ESCAPES:
                return Hold.NEVER
            i += 2
            continue
        if in_set:
            if char == "[":  # a nested set or class, an extension of `regex`
                return Hold.NEVER
            in_set = char != "]"
        elif char == "[":
            in_set = True
            # A "]" right after the bracket is a member of the set, and does not end it.
            i += len(regex.match(r"\[\^?\]?", pattern[i:]).group()) - 1
        elif _is_unknown(pattern, i):
            return Hold.NEVER
        i += 1
    return hold


def _is_unknown(pattern: str, at: int) -> bool:
    """Whether a part of the pattern that starts at `at` may lose its match when the text grows."""
    rest = pattern[at:]
    if rest[0] == "(":
        known = r"\((?!\?|\*)|\(\?(?::|P?<\w+>|P=\w+|i\)|s\)|is\)|<[=!])"
        return regex.match(known, rest) is None
    # A possessive quantifier gives nothing back: (?:ab)*+a matches "aba", and no more in "abab".
    possessive = rest[0] in "*+?}" and rest[1:2] == "+"
    fuzzy = rest[0] == "{" and not regex.match(r"\{\d*,?\d*\}", rest)
    return rest[0] == "$" or possessive or fuzzy


def compile_pattern(
    pattern: str, case: bool, where: str, key: str = "pattern"
) -> regex.Pattern[str]:
    """Compile a user's pattern. Raises `InputError` that names `where` and at which `key` it is."""
    try:
        return regex.compile(pattern, 0 if case else regex.IGNORECASE)
    except (regex.error, RecursionError, OverflowError) as error:
        wrong = InputError(
            f"The pattern of {where} must be a regular expression, got {pattern!r}: {error}. "
            "Fix it there, or escape its special characters."
        )
        wrong.key = key
        raise wrong from error


def literal(text: str, whole: bool, closed: bool, wild: bool = False) -> str:
    """Return the pattern of a text: any white space for a blank, either apostrophe, word edges.

    `whole`: at word edges only. `closed`: only where no continuation can undo the match. `wild`: a
    `*` stands for any letters of the same word.
    """
    parts = [spaced(part, r"\s+") for part in (text.split("*") if wild else [text])]
    pattern = r"\w*".join(parts)
    first, last = text[0], text[-1]
    if whole and is_word(first):
        pattern = _EDGE + pattern
    if whole and is_word(last):
        pattern += r"(?=\W)" if closed else r"(?!\w)"
    if not whole or last == "*":
        # "refund*" has matched once "refund" is there; what follows can only lengthen the match.
        return pattern.removesuffix(r"\w*") if closed else pattern
    return pattern


@dataclass(frozen=True)
class Finder:
    """Finds the first of several texts and patterns, in a whole text or closed in a prefix."""

    whole: tuple[regex.Pattern[str], ...]
    closed: tuple[tuple[regex.Pattern[str], Hold], ...]
    quick: re.Pattern[str] | None = None  # the first of `closed`, for ASCII in lower case

    def find(self, text: str) -> Span | None:
        """Return the first match. Raises `TimeoutError` where a pattern takes too long."""
        found = (pattern.search(text, timeout=left(JUDGE_SECONDS)) for pattern in self.whole)
        return _first(Span(*match.span()) for match in found if match)

    def find_closed(self, text: str) -> Span | None:
        """Return the first match that no continuation can undo, or None where none is known."""
        patterns, spans = self.closed, list[Span]()
        if self.quick is not None and text.isascii():
            patterns = patterns[1:]
            if match := self.quick.search(text.lower()):
                spans.append(Span(*match.span()))
        for pattern, hold in patterns:
            if (span := _closed_span(pattern, hold, text)) is not None:
                spans.append(span)
        return _first(spans)


def _closed_span(pattern: regex.Pattern[str], hold: Hold, text: str) -> Span | None:
    try:
        for match in pattern.finditer(text, timeout=left(PREFIX_SECONDS)):
            if hold is Hold.ALWAYS or match.end() < len(text):
                return Span(*match.span())
    except TimeoutError:
        return None
    return None


def _first(spans: Iterable[Span]) -> Span | None:
    return min(spans, default=None)


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
    """Return the finder of any of the texts and patterns, compiled once for the same arguments."""
    flags = 0 if case else regex.IGNORECASE
    whole_patterns, closed_patterns, quick = [], [], None
    if texts:
        whole_patterns.append(regex.compile(_any_of(texts, whole, False, wild), flags))
        closed = _any_of(texts, whole, True, wild)
        closed_patterns.append((regex.compile(closed, flags), Hold.ALWAYS))
        if not case and "".join(texts).replace("’", "'").isascii():
            lowered = tuple(text.lower() for text in texts)
            # `re` takes half the time of `regex` or less, and this search runs at every token. It
            # has no time limit, so it gets plain texts only, never a user's pattern.
            quick = re.compile(_any_of(lowered, whole, True, wild))
    for pattern in patterns:
        compiled = compile_pattern(pattern, case, where, "patterns")
        whole_patterns.append(compiled)
        if (hold := hold_of(pattern)) is not Hold.NEVER:
            closed_patterns.append((compiled, hold))
    return Finder(tuple(whole_patterns), tuple(closed_patterns), quick)


def _any_of(texts: tuple[str, ...], whole: bool, closed: bool, wild: bool) -> str:
    """Return the pattern of any of the texts."""
    # Their common word edge comes once, before the group, so it is tested once at each position.
    patterns = [literal(text, whole, closed, wild) for text in texts]
    edged = [pattern.removeprefix(_EDGE) for pattern in patterns if pattern.startswith(_EDGE)]
    others = [f"(?:{pattern})" for pattern in patterns if not pattern.startswith(_EDGE)]
    return "|".join(([f"{_EDGE}(?:{'|'.join(edged)})"] if edged else []) + others)
