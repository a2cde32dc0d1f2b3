"""Patterns of JSON schemas (ECMA-262 with the flag `u`), translated for the `regex` library.

Python's own dialect differs from it: there `\\d` is any digit, `$` also matches before a last line
break, and `\\p{Letter}` does not exist. Knows no schema.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import regex

from ostinato.errors import InputError
from ostinato.schemas.ecma_names import BINARY, CATEGORIES, KEYS

_START, _END = r"\A", r"\Z"
_WHOLE = r"\u0000-\U0010FFFF"
_REST = f"[{_WHOLE}]*"
_LINE_ENDS = r"\u000A\u000D\u2028\u2029"
_W = "[0-9A-Za-z_]"
_EDGE = rf"(?:(?<={_W})(?!{_W})|(?<!{_W})(?={_W}))"
_NO_EDGE = rf"(?:(?<={_W})(?={_W})|(?<!{_W})(?!{_W}))"
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_CLASSES: dict[str, tuple[tuple[int, int], ...]] = {
    "d": ((0x30, 0x39),),
    "w": ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)),
    "s": (
        *((9, 13), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
        *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)),
        (0xFEFF, 0xFEFF),
    ),
}
_QUANTIFIER = re.compile(r"[*+?]|\{(\d+)(?:,(\d*))?\}")
_GROUP = re.compile(
    r"\(\?(?:(?P<look><?[=!])|<(?P<name>[^\W\d]\w*)>|(?P<on>[ims]*)(?P<off>-[ims]*)?:)"
)
_PROPERTY = re.compile(r"\{(?:(\w+)=)?(\w+)\}")
_SHOWN = 100  # characters of a pattern in a message


@dataclass(frozen=True)
class EcmaPattern:
    """A pattern for the `regex` library, which is searched for as in ECMA-262.

    `language` is a regular expression (Rust's `regex`) of the whole texts that contain a match;
    None where the pattern looks around or refers back.
    """

    compiled: regex.Pattern[str]
    language: str | None


@lru_cache(maxsize=1024)
def ecma_pattern(pattern: str) -> EcmaPattern:
    """Translate a pattern. Raises `InputError` that names what ECMA-262 or we do not know.

    Wider than the flag `u` in one respect: escaped signs (`\\-`, `\\@`) and lone `{`, `}`, `]` mean
    themselves.
    """
    try:
        alternatives = _Translator(pattern).translate()
        compiled = regex.compile("|".join(_joined(terms) for terms in alternatives))
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise InputError(
            f"A pattern must be one that can be compiled, got {pattern[:_SHOWN]!r}: {error}. "
            "Simplify it."
        ) from error
    return EcmaPattern(compiled, _language(alternatives))


class _Term(NamedTuple):
    """A part of a pattern in the syntax of `regex`, and whether it looks around or refers back."""

    text: str
    looks: bool = False


def _joined(terms: list[_Term]) -> str:
    return "".join(term.text for term in terms)


def _language(alternatives: list[list[_Term]]) -> str | None:
    """Return the pattern of whole texts with a match, without anchors; None where that fails."""
    languages = []
    for terms in alternatives:
        inner, before, after = list(terms), _REST, _REST
        while inner and inner[0].text == _START:
            inner, before = inner[1:], ""
        while inner and inner[-1].text == _END:
            inner, after = inner[:-1], ""
        if any(term.looks for term in inner):
            return None
        languages.append(before + _joined(inner) + after)
    return "|".join(languages)


class _Translator:
    """A recursive descent through one pattern."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.at = pattern, 0
        self.flags: frozenset[str] = frozenset()
        self.groups: list[list[int]] = []  # the span of each capturing group; an end of -1 is open
        self.names: dict[str, int] = {}
        self.references: list[tuple[int, int]] = []  # where one stands, and its group
        self.repeated: list[tuple[int, int]] = []  # spans that may match more than once

    def translate(self) -> list[list[_Term]]:
        """Return the alternatives of the whole pattern."""
        alternatives = self._alternatives()
        if self.at < len(self.pattern):
            self._refuse("an unmatched ')'", "Escape it")
        for at, number in self.references:
            start, end = self.groups[number - 1]
            # ECMA-262 forgets the group at each repetition, `regex` does not.
            if any(
                low <= start and end <= high and low <= at < high for low, high in self.repeated
            ):
                self.at = at
                self._refuse("a reference repeated with its group", "Write it without reference")
        return alternatives

    def _alternatives(self) -> list[list[_Term]]:
        found: list[list[_Term]] = [[]]
        while (char := self._peek()) and char != ")":
            if char == "|":
                self.at += 1
                found.append([])
            else:
                found[-1].append(self._term())
        return found

    def _term(self) -> _Term:
        start, char = self.at, self._peek()
        if char in "*+?" or _QUANTIFIER.match(self.pattern, self.at):
            self._refuse(f"{char!r} with nothing to repeat", "Escape it")
        term, fixed = self._atom(char)
        count = _QUANTIFIER.match(self.pattern, self.at)
        if count is None:
            return term
        if fixed:
            self._refuse("a repeated assertion", "Leave the repetition out")
        return self._quantified(term, start, count)

    def _quantified(self, term: _Term, start: int, count: re.Match[str]) -> _Term:
        low, high = count[1], count[2]
        if high and int(high) < int(low):
            self._refuse(f"{count[0]} with bounds out of order", "Swap them")
        self.at = count.end()
        lazy = self._take("?")
        if _QUANTIFIER.match(self.pattern, self.at):
            self._refuse("a repeated repetition", "Write (?:…) around the first one")
        if not (low == "1" and high is None) and count[0] != "?":
            self.repeated.append((start, self.at))
        return _Term(f"(?:{term.text}){count[0]}{lazy}", term.looks)

    def _atom(self, char: str) -> tuple[_Term, bool]:
        """Return the next part, and whether it may not be repeated."""
        if char == "(":
            return self._group()
        if char == "[":
            return _Term(self._set()), False
        if char == "\\":
            return self._escape()
        if char in "^$":
            self.at += 1
            return _Term(self._anchor(char), True), True
        if char == ".":
            self.at += 1
            return _Term(f"[{_WHOLE}]" if "s" in self.flags else f"[^{_LINE_ENDS}]"), False
        if char == "{" and re.match(r"\{,\d+\}", self.pattern[self.at :]):
            self._refuse("a repetition without its least number", "Write {0,…}")
        self.at += 1
        return _Term(_code(ord(char))), False

    def _anchor(self, char: str) -> str:
        if "m" not in self.flags:
            return _START if char == "^" else _END
        return rf"(?:\A|(?<=[{_LINE_ENDS}]))" if char == "^" else rf"(?:\Z|(?=[{_LINE_ENDS}]))"

    def _group(self) -> tuple[_Term, bool]:
        start = self.at
        if not self.pattern.startswith("(?", start):
            self.at += 1
            return self._captured(start), False
        opened = _GROUP.match(self.pattern, start)
        if opened is None:
            self._refuse_group(self.pattern[start : start + 4])
        self.at = opened.end()
        if name := opened["name"]:
            if name in self.names:
                self._refuse(f"the group {name!r} twice", "Rename one")
            self.names[name] = len(self.groups) + 1
            return self._captured(start), False
        if look := opened["look"]:
            return _Term(f"(?{look}{self._inner(start)[0]})", True), True
        return self._modified(start, opened["on"], (opened["off"] or "")[1:]), False

    def _modified(self, start: int, on: str, off: str) -> _Term:
        flags = self.flags
        self.flags = (flags | set(on)) - set(off)
        inner, looks = self._inner(start)
        case = ("i" in self.flags) - ("i" in flags)
        self.flags = flags
        return _Term(f"({('?-i:', '?:', '?i:')[case + 1]}{inner})", looks)

    def _captured(self, start: int) -> _Term:
        number = len(self.groups)
        self.groups.append([start, -1])
        inner, looks = self._inner(start)
        self.groups[number][1] = self.at
        return _Term(f"({inner})", looks)

    def _inner(self, start: int) -> tuple[str, bool]:
        """Read up to the end of the group that starts at `start`."""
        alternatives = self._alternatives()
        if not self._take(")"):
            self.at = start
            self._refuse("an unmatched '('", "Escape it")
        looks = any(term.looks for terms in alternatives for term in terms)
        return "|".join(map(_joined, alternatives)), looks

    def _refuse_group(self, opening: str) -> NoReturn:
        mends = {"(?P<": "Write (?<name>…)", "(?P=": "Write \\k<name>", "(?i)": "Write (?i:…)"}
        self._refuse(
            f"a group that begins with {opening!r}", mends.get(opening, "Write it without")
        )

    def _escape(self) -> tuple[_Term, bool]:
        start, char = self.at, self.pattern[self.at + 1 : self.at + 2]
        if char in ("b", "B"):
            self.at += 2
            return _Term(_EDGE if char == "b" else _NO_EDGE, True), True
        if char in "123456789" and char:
            number = re.compile(r"\d+").match(self.pattern, start + 1)
            assert number is not None
            self.at = number.end()
            return self._reference(start, int(number[0])), False
        if char == "k":
            named = re.compile(r"<(\w+)>").match(self.pattern, start + 2)
            if named is None or named[1] not in self.names:
                self._refuse("\\k without the name of a group before it", "Name one")
            self.at = named.end()
            return self._reference(start, self.names[named[1]]), False
        part = self._set_part()
        return _Term(f"[{part}]" if isinstance(part, str) else _code(part)), False

    def _reference(self, start: int, number: int) -> _Term:
        if number > len(self.groups) or self.groups[number - 1][1] < 0:
            self.at = start
            self._refuse("a reference to no group that ends before it", "Write it without")
        self.references.append((start, number))
        # A group that has not taken part matches the empty text in ECMA-262, nothing in `regex`.
        return _Term(rf"(?({number})\g<{number}>)", True)

    def _set(self) -> str:
        self.at += 1
        negated, parts, open_at = self._take("^"), list[str](), self.at
        while not self._take("]"):
            if not self._peek():
                self.at = open_at
                self._refuse("an unmatched '['", "Escape it")
            parts.append(self._range())
        if not parts:  # in ECMA-262, [] is nothing and [^] is anything
            return f"[{_WHOLE}]" if negated else f"[^{_WHOLE}]"
        return f"[{negated}{''.join(parts)}]"

    def _range(self) -> str:
        low = self._set_part()
        rest = self.pattern[self.at : self.at + 2]
        if not (rest[:1] == "-" and rest[1:] not in ("", "]")):
            return low if isinstance(low, str) else _code(low)
        self.at += 1
        high = self._set_part()
        if isinstance(low, str) or isinstance(high, str):
            self._refuse("a range between classes", "Write the '-' first or last, or as \\-")
        if high < low:
            self._refuse("a range out of order", "Swap its ends")
        return f"{_code(low)}-{_code(high)}"

    def _set_part(self) -> int | str:
        """Return the next character as its code point, or the content of a class for a set."""
        char = self._peek()
        if char != "\\":
            self.at += 1
            return ord(char)
        letter = self.pattern[self.at + 1 : self.at + 2]
        if letter.lower() in _CLASSES:
            self.at += 2
            ranges = _CLASSES[letter.lower()]
            return _spans(ranges if letter.islower() else _others(ranges))
        if letter in ("p", "P"):
            return self._property(letter)
        return self._code_point(letter)

    def _code_point(self, letter: str) -> int:
        rest = self.pattern[self.at + 1 :]
        forms = (r"x([0-9A-Fa-f]{2})", r"u\{([0-9A-Fa-f]+)\}", r"u([0-9A-Fa-f]{4})")
        if pair := re.match(r"u(d[89ab]..)\\u(d[c-f]..)", rest, re.IGNORECASE):
            high, low = (int(half, 16) for half in pair.groups())
            self.at += 1 + pair.end()
            return 0x10000 + ((high - 0xD800) << 10) + low - 0xDC00
        for form in forms:
            if (found := re.match(form, rest)) and int(found[1], 16) <= 0x10FFFF:
                self.at += 1 + found.end()
                return int(found[1], 16)
        if control := re.match(r"c([A-Za-z])", rest):
            self.at += 3
            return ord(control[1]) % 32
        if re.match(r"0(?!\d)", rest):
            self.at += 2
            return 0
        if letter in _CONTROLS or (letter == "b"):
            self.at += 2
            return _CONTROLS.get(letter, 8)
        if not letter or letter.isalnum():
            self._refuse(f"the escape '\\{letter}'", "Write it without")
        self.at += 2
        return ord(letter)

    def _property(self, letter: str) -> str:
        named = _PROPERTY.match(self.pattern, self.at + 2)
        if named is None:
            self._refuse(f"'\\{letter}' without {{…}}", "Name a property, such as {Letter}")
        key, value = named[1], named[2]
        text = f"\\{letter}{{{self._property_name(key, value)}}}"
        try:
            regex.compile(text)
        except regex.error:
            self._refuse(f"an unknown property {named[0]}", "Use another")
        self.at = named.end()
        return text

    def _property_name(self, key: str | None, value: str) -> str:
        """Return a property in the names that `regex` and Rust share."""
        if key is None and value in BINARY:
            return value
        short = KEYS.get(key) if key else "gc"
        # `regex` takes names of other dialects, too: there they would mean something else.
        known = value in CATEGORIES if short == "gc" else re.fullmatch(r"[A-Z]\w*", value)
        if short is None or not known:
            as_script = f"Write {{Script={value}}} for a script" if key is None else "Use another"
            self._refuse(f"an unknown property {{{f'{key}=' if key else ''}{value}}}", as_script)
        return f"{short}={value}"

    def _peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def _take(self, char: str) -> str:
        """Go past the character if it is next; return it, or an empty text."""
        found = self._peek() == char
        self.at += found
        return char if found else ""

    def _refuse(self, what: str, mend: str) -> NoReturn:
        raise InputError(
            f"A pattern must be a regular expression of ECMA-262, got {self.pattern[:_SHOWN]!r} "
            f"with {what} at character {self.at + 1}. {mend}."
        )


def _code(point: int) -> str:
    """Return a code point as `regex` and Rust read it, in and outside of sets."""
    char = chr(point)
    if char.isascii() and char.isalnum():
        return char
    return f"\\u{point:04X}" if point <= 0xFFFF else f"\\U{point:08X}"


def _spans(ranges: Any) -> str:
    return "".join(_code(a) if a == b else f"{_code(a)}-{_code(b)}" for a, b in ranges)


def _others(ranges: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Return the ranges of all other code points."""
    ends = [-1, *(high for _, high in ranges)]
    starts = [*(low for low, _ in ranges), 0x110000]
    return [(end + 1, start - 1) for end, start in zip(ends, starts, strict=True)]
