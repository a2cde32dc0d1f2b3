"""Words and patterns found in a text that may still grow. Knows no check.

A match is *closed* if no continuation of the text can undo it: "ass" at the end of a text may
become "assist", "ass " may not. Words are searched for in normal form, and found at the edges of
words that `ostinato.checks.segments` defines; a user's pattern sees the text as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import regex

from ostinato.checks.constraint_spec import spaced
from ostinato.checks.deadline import left
from ostinato.checks.normal_form import COMPOSING, accented, can_compose, normalized
from ostinato.checks.segments import (
    BLANKS,
    SAME_WORD,
    as_ascii,
    ascii_edge_after,
    ascii_word_start,
    edge_after,
    word_start,
)
from ostinato.errors import InputError
from ostinato.loop import Span

JUDGE_SECONDS = 1.0  # for one pattern on one whole text
PREFIX_SECONDS = 0.05  # the same, at every token


class Hold(IntEnum):
    """Whether a pattern's match stays when the text grows."""

    ALWAYS = 0  # it stays
    INSIDE = 1  # it stays if it ends before the last character: the pattern looks one ahead
    NEVER = 2  # unknown: the pattern looks ahead, or at the end of the text


class PatternTraits(NamedTuple):
    """Whether a pattern's match stays when the text grows, and whether it looks behind."""

    hold: Hold
    looks_behind: bool = False

    @property
    def knows_prefixes(self) -> bool:
        """Whether a partial match tells if a text can be continued to a match.

        Where the pattern looks around, it looks at the end of the prefix, and not at what follows.
        """
        return self.hold is Hold.ALWAYS and not self.looks_behind


# Escapes that match one character, whatever follows it; of `p` and `P` with the name of a property.
_CHARACTER_ESCAPES = set("dDsSwWntrf")
_LONG_ESCAPE = regex.compile(
    r"\\(?:[pP]\{[^{}]*\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})"
)
_EDGE_ESCAPES = set("bB")
_KNOWN_GROUP = regex.compile(r"\((?!\?|\*)|\(\?(?::|P?<\w+>|P=\w+|i\)|s\)|is\)|<[=!])")


def hold_of(pattern: str) -> Hold:
    """Return whether the pattern's match stays when the text grows; `NEVER` if in doubt."""
    return traits_of(pattern).hold


@lru_cache(maxsize=4096)
def traits_of(pattern: str) -> PatternTraits:
    """Return what is known of a pattern; `Hold.NEVER` if in doubt.

    Sets, groups, alternatives, backtracking quantifiers and word edges are known to stay. Anything
    else (looking ahead, `$`, possessive or fuzzy parts, recursion) makes it `NEVER`.
    """
    hold, behind, i, in_set = Hold.ALWAYS, False, 0, False
    while i < len(pattern):
        char, after = pattern[i], pattern[i + 1 : i + 2]
        if char == "\\":
            long = _LONG_ESCAPE.match(pattern, i)
            if after in _EDGE_ESCAPES and not in_set:
                hold = Hold.INSIDE
            elif long is None and after.isalnum() and after not in _CHARACTER_ESCAPES:
                return PatternTraits(Hold.NEVER)
            i += 2 if long is None else len(long.group())
            continue
        if in_set:
            if char == "[":  # a nested set or class, an extension of `regex`
                return PatternTraits(Hold.NEVER)
            in_set = char != "]"
        elif char == "[":
            in_set = True
            # A "]" right after the bracket is a member of the set, and does not end it.
            i += len(regex.match(r"\[\^?\]?", pattern[i:]).group()) - 1
        elif _is_unknown(pattern, i):
            return PatternTraits(Hold.NEVER)
        behind = behind or (not in_set and pattern.startswith(("(?<=", "(?<!"), i))
        i += 1
    return PatternTraits(hold, behind)


def _is_unknown(pattern: str, at: int) -> bool:
    """Whether a part of the pattern that starts at `at` may lose its match when the text grows."""
    rest = pattern[at:]
    if rest[0] == "(":
        return _KNOWN_GROUP.match(rest) is None
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


class _Literal(NamedTuple):
    """The pattern of a text in three parts, of which many texts share the first and the last."""

    start: str
    middle: str
    end: str


class _Dialect(NamedTuple):
    """How white space, the letters of a `*` and the edges of a word are written for one library."""

    blank: str
    same_word: str
    start: Callable[[str], str]
    after: Callable[[str, bool], str]
    accents: Callable[[], dict[str, str]]


_ASCII = _Dialect(r"\s", r"\w", ascii_word_start, ascii_edge_after, dict)
_UNICODE = _Dialect(f"[{BLANKS}]", SAME_WORD, word_start, edge_after, accented)


def _literal(text: str, whole: bool, closed: bool, wild: bool, dialect: _Dialect) -> _Literal:
    """Return the pattern of a text in normal form.

    Any white space matches a blank, and either apostrophe the other. `whole`: at edges of words
    only. `closed`: only where no continuation can undo the match. `wild`: a `*` stands for any
    letters of the same word.
    """
    parts = text.split("*") if wild else [text]
    start = dialect.start(text[0]) if whole else ""
    patterns = [spaced(part, dialect.blank) for part in parts]
    if whole and parts[-1]:
        end = dialect.after(text[-1], closed)
    else:
        # "refund*" has matched once "refund" is there; what follows can only lengthen the match.
        last = -1 if parts[-1] else -2
        patterns[last] = _accented_end(parts[last], patterns[last], dialect)
        end = _open_end(parts[last][-1:], closed)
        if not parts[-1]:
            patterns[last] += end
            end = ""
        if closed and not parts[-1]:
            patterns.pop()
    if start:
        patterns[0] = patterns[0].removeprefix(text[0])
    elif not parts[0] or text[0].isspace():
        # Only where the run begins: from each place in it, the search would go over all the rest.
        start = f"(?<!{dialect.blank if parts[0] else dialect.same_word})"
    return _Literal(start, _joined(patterns, dialect.same_word), end)


def _joined(patterns: Sequence[str], letters: str) -> str:
    """Return the pattern of parts with any letters between them, searched for in linear time."""
    # The first place of each part is as good as any other for what follows, except for the last
    # one, which must end where a word does. To try all would take the power of their number.
    *first, last = patterns
    rest = "".join(f"(?>{letters}*?{pattern})" for pattern in first[1:])
    return f"{first[0]}{rest}{letters}*{last}" if first else last


def _accented_end(part: str, pattern: str, dialect: _Dialect) -> str:
    """Return the pattern of a part that may end in an accent: one may follow a closed match."""
    accents = dialect.accents().get(part[-1:], "")
    return f"{pattern[:-1]}[{part[-1]}{accents}]" if accents and part[-1].isalpha() else pattern


def _open_end(char: str, closed: bool) -> str:
    """Return what must follow a part of a word that ends with `char`."""
    if not char or char.isascii() or not can_compose(char):
        return ""
    return rf"(?![{COMPOSING}])" + (r"(?!\Z)" if closed else "")


@dataclass(frozen=True)
class TextSearch:
    """Searches for texts in the normal form of another; `case` and `visible` say which form.

    The patterns of a whole text, and of matches that are closed in a prefix: for any text, and for
    those that can be read as ASCII, where `re` takes half the time of `regex` or less. `re` has no
    time limit, so it gets plain texts only, never a user's pattern. `all_ascii`: so all texts are.
    """

    case: bool
    visible: bool
    any_text: tuple[regex.Pattern[str], regex.Pattern[str]]
    ascii: tuple[re.Pattern[str], re.Pattern[str]] | None
    all_ascii: bool

    def find(self, text: str, closed: bool) -> Span | None:
        """Return the first match. Raises `TimeoutError` where it takes too long."""
        form = normalized(text, case=self.case, visible=self.visible)
        plain = as_ascii(form.text) if self.all_ascii or form.text.isascii() else None
        if plain is not None:
            match = self.ascii[closed].search(plain) if self.ascii else None
        else:
            seconds = left(PREFIX_SECONDS if closed else JUDGE_SECONDS)
            match = self.any_text[closed].search(form.text, timeout=seconds)
        return form.span(*match.span()) if match else None


@dataclass(frozen=True)
class Finder:
    """Finds the first of several texts and patterns, in a whole text or closed in a prefix."""

    texts: TextSearch | None
    patterns: tuple[tuple[regex.Pattern[str], Hold], ...] = ()

    def find(self, text: str) -> Span | None:
        """Return the first match. Raises `TimeoutError` where a pattern takes too long."""
        found = (pattern.search(text, timeout=left(JUDGE_SECONDS)) for pattern, _ in self.patterns)
        spans = [Span(*match.span()) for match in found if match]
        if self.texts is not None and (span := self.texts.find(text, closed=False)) is not None:
            spans.append(span)
        return _first(spans)

    def find_closed(self, text: str) -> Span | None:
        """Return the first match that no continuation can undo, or None where none is known."""
        spans = [_closed_span(pattern, hold, text) for pattern, hold in self.patterns]
        if self.texts is not None:
            with suppress(TimeoutError):
                spans.append(self.texts.find(text, closed=True))
        return _first(span for span in spans if span is not None)


def _closed_span(pattern: regex.Pattern[str], hold: Hold, text: str) -> Span | None:
    if hold is Hold.NEVER:
        return None
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
    visible: bool = False,
    where: str = "a check",
) -> Finder:
    """Return the finder of any of the texts and patterns, compiled once for the same arguments.

    `visible`: what is not shown, such as a zero-width space, is ignored.
    """
    compiled = tuple(
        (compile_pattern(pattern, case, where, "patterns"), hold_of(pattern))
        for pattern in patterns
    )
    return Finder(_text_search(texts, case, whole, wild, visible) if texts else None, compiled)


def _text_search(
    texts: tuple[str, ...], case: bool, whole: bool, wild: bool, visible: bool
) -> TextSearch:
    forms = [normalized(text, case=case, visible=visible).text for text in texts]
    forms = [form.replace("’", "'") for form in forms]
    plain = [form for form in forms if form.isascii()]

    def compiled(closed: bool) -> regex.Pattern[str]:
        parts = [_literal(form, whole, closed, wild, _UNICODE) for form in forms]
        return regex.compile(f"(?V1){_any_of(parts)}")

    def compiled_ascii(closed: bool) -> re.Pattern[str]:
        return re.compile(_any_of([_literal(form, whole, closed, wild, _ASCII) for form in plain]))

    ascii = (compiled_ascii(False), compiled_ascii(True)) if plain else None
    both = (compiled(False), compiled(True))
    return TextSearch(case, visible, both, ascii, len(plain) == len(forms))


def _any_of(literals: Iterable[_Literal]) -> str:
    """Return the pattern of any of several texts."""
    # A common start comes once, before the group, so it is tested once at each position. A common
    # end comes once, after the group: it is long, and most of the time to compile 10,000 words.
    groups: dict[str, dict[str, list[str]]] = {}
    for start, middle, end in literals:
        groups.setdefault(start, {}).setdefault(end, []).append(middle)
    return "|".join(
        f"{start}(?:{'|'.join(_group(middles) + end for end, middles in ends.items())})"
        for start, ends in groups.items()
    )


def _group(patterns: Sequence[str]) -> str:
    return f"(?:{'|'.join(patterns)})"
