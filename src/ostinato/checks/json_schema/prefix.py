"""Parsing a prefix of JSON: where it departs from JSON, and which members are complete.

The grammar is that of RFC 8259, as `json.loads` has it in strict mode, without NaN and Infinity.
Knows no schema.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*')
_ESCAPE_OPEN = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_OPEN = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:(?<=[0-9])[eE][+-]?[0-9]*)?)?")
_WORDS = ("true", "false", "null")


class JsonMember(NamedTuple):
    """A member of the outermost object: the span of its key and its value; -1: not there yet."""

    key_start: int
    key_end: int
    value_start: int = -1
    value_end: int = -1


class Reading(NamedTuple):
    """What a prefix contains.

    `wrong`: where it departs from JSON, if it does. `start`: where the value starts, if it has.
    `members`: those of the outermost object whose key is complete. `open_key`: where the key starts
    in which the text ends, if it does.
    """

    wrong: int | None
    start: int | None
    members: list[JsonMember]
    open_key: int | None = None


def open_string(text: str, at: int) -> str:
    """Return the value so far of the string that starts at `at` and has not ended.

    An incomplete escape, or one that may be half of a surrogate pair, is left out.
    """
    end = _STRING.match(text, at).end()  # type: ignore[union-attr]
    written = str(json.loads(text[at:end] + '"'))
    return written[:-1] if "\ud800" <= written[-1:] <= "\udbff" else written


class _Ends(Exception):
    """The text ends here, and may continue."""


class _Wrong(Exception):
    """The text departs from JSON at `at`."""

    def __init__(self, at: int) -> None:
        self.at = at


def read(text: str) -> Reading:
    """Parse as far as the text goes."""
    reader = _JsonReader(text)
    start = _space(text, 0)
    if start == len(text):
        return Reading(None, None, [])
    try:
        end = _space(text, reader.read())
    except _Ends:
        return Reading(None, start, reader.members, reader.open_key)
    except _Wrong as wrong:
        return Reading(wrong.at, start, reader.members)
    return Reading(end if end < len(text) else None, start, reader.members)


class _JsonReader:
    """Parses one value. Open brackets are kept in a list: recursion would limit the depth."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.closers: list[str] = []
        self.members: list[JsonMember] = []
        self.open_key: int | None = None

    def read(self) -> int:
        """Return where the value ends."""
        while not (self._value_ends() and self._all_is_closed()):
            pass
        return self.at

    def _value_ends(self) -> bool:
        """Parse the value expected here; False where it is a bracket that opens with values."""
        char = self._next()
        if self._in_outermost():
            self.members[-1] = self.members[-1]._replace(value_start=self.at)
        if char not in "{[":
            self.at = _scalar(self.text, self.at, char)
            self._member_ends()
            return True
        self.closers.append("}" if char == "{" else "]")
        self.at += 1
        if self._next() == self.closers[-1]:  # empty; `_all_is_closed` takes the bracket
            return True
        if char == "{":
            self._key()
        return False

    def _all_is_closed(self) -> bool:
        """Close brackets; False where a comma demands another value."""
        while self.closers:
            char = self._next()
            if char == self.closers[-1]:
                self.closers.pop()
                self.at += 1
                self._member_ends()
            elif char == ",":
                self.at += 1
                self._next()
                if self.closers[-1] == "}":
                    self._key()
                return False
            else:
                raise _Wrong(self.at)
        return True

    def _key(self) -> None:
        """Parse a key and its colon."""
        start = self.at
        if self.text[start] != '"':
            raise _Wrong(start)
        outermost = len(self.closers) == 1
        self.open_key = start if outermost else None
        self.at, self.open_key = _string(self.text, start), None
        if outermost:
            self.members.append(JsonMember(start, self.at))
        if self._next() != ":":
            raise _Wrong(self.at)
        self.at += 1

    def _next(self) -> str:
        """Go to the next character that is not white space, and return it."""
        self.at = _space(self.text, self.at)
        if self.at == len(self.text):
            raise _Ends
        return self.text[self.at]

    def _in_outermost(self) -> bool:
        return self.closers == ["}"] and bool(self.members)

    def _member_ends(self) -> None:
        if self._in_outermost():
            self.members[-1] = self.members[-1]._replace(value_end=self.at)


def _space(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]


def _scalar(text: str, at: int, char: str) -> int:
    if char == '"':
        return _string(text, at)
    if char in "-0123456789":
        return _number(text, at)
    for word in _WORDS:
        if word[0] == char:
            found = text[at : at + len(word)]
            if found == word:
                return at + len(word)
            if word.startswith(found):
                raise _Ends
            wrong = next(i for i in range(len(found)) if found[i] != word[i])
            raise _Wrong(at + wrong)
    raise _Wrong(at)


def _string(text: str, at: int) -> int:
    end = _STRING.match(text, at).end()  # type: ignore[union-attr]
    if end == len(text):
        raise _Ends
    if text[end] == '"':
        return end + 1
    escape = _ESCAPE_OPEN.match(text, end)
    if escape is not None and escape.end() == len(text):
        raise _Ends
    raise _Wrong(end if escape is None else escape.end())


def _number(text: str, at: int) -> int:
    end = _NUMBER_OPEN.match(text, at).end()  # type: ignore[union-attr]
    if end == len(text):
        raise _Ends
    number = _NUMBER.match(text, at)
    if number is None or number.end() != end:
        raise _Wrong(end)  # "-x", "1.x", "1e+x"
    return end
