"""What a word, its edges and a sentence are, in every script. Knows no check and no normal form.

By Unicode Standard Annex 29, as the library `regex` has it, except for this:

- Where Thai, Lao, Khmer or Burmese words end, only dictionaries know: letters in a row count as one
  word, and edges are everywhere. They are also everywhere in Chinese and Japanese.
- Between two scripts there is an edge, and also at an apostrophe, full stop or colon in a word:
  "l'avocat", "lawyer's" and "end.Please" contain words. A number is whole: "1,480" has no "480".
- A length in words counts what stands between white space, as word processors do, and each Chinese
  character and hiragana.
- ".", "!", "?" and "…" end a sentence before white space only, and not after a title ("Dr."), after
  the number of a list, or before a small letter. A line ends none; an empty line does.

Each has a form for ASCII in `re`, which takes a fraction of the time: they run at every token.
"""

from __future__ import annotations

import re
from functools import lru_cache

import regex

from ostinato.checks.normal_form import COMPOSING, can_compose
from ostinato.loop import Span

BLANKS = r"\t-\r\x1C-\x20\x85\xA0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000"
"""White space as Python has it, as members of a set: `\\s` of `regex` lacks U+001C to U+001F."""

_DICTIONARY = r"\p{LB=SA}"  # Thai, Lao, Khmer, Burmese, ...
_IDEOGRAPHIC = r"\p{Han}\p{Hiragana}"  # each a word
_UNSPACED = rf"{_IDEOGRAPHIC}\p{{Katakana}}{_DICTIONARY}\u3099\u309A\u30FC\uFF70"
_SCRIPTS = (
    *("Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Hangul", "Ethiopic"),
    *("Bengali", "Tamil", "Telugu", "Gujarati", "Kannada", "Malayalam", "Gurmukhi", "Sinhala"),
    *("Armenian", "Georgian", "Tibetan", "Mongolian", "Cherokee", "Coptic", "Syriac", "Thaana"),
)


def is_word(char: str) -> bool:
    """Return whether a character is a letter, mark, digit or underscore of any script."""
    return regex.match(r"\w", char) is not None


def is_unspaced(char: str) -> bool:
    """Return whether a character is of a script that is written without spaces."""
    return regex.match(f"[{_UNSPACED}]", char) is not None


# Typographic signs that leave a text readable as ASCII, each with one of the same kind.
_TYPOGRAPHIC = {
    "’": "'",
    "”": "\x02",
    "…": "\x03",
    "\xa0": " ",
    **dict.fromkeys("“–—•€£", "\x01"),
}


def as_ascii(text: str) -> str | None:
    """Return a text whose letters are ASCII with other signs in place of “ ” ’ – —; else None.

    Words, edges and sentences are at the same places in it, and what is ASCII in it stays.
    """
    return text if text.isascii() else _as_ascii(text)


@lru_cache(maxsize=8)  # several checks read the same text at the same token
def _as_ascii(text: str) -> str | None:
    for sign, plain in _TYPOGRAPHIC.items():  # a tenth of the time of `str.translate`
        text = text.replace(sign, plain)
    return text if text.isascii() else None


# Words --------------------------------------------------------------------------------------------

_ASCII_WORD = re.compile(r"\w+(?:(?:(?<=[A-Za-z])[.:'](?=[A-Za-z])|(?<=[0-9])[.,;'](?=[0-9]))\w+)*")
# An ideograph is a word for itself; to ask for the edges at each would take three times as long.
_WORD = regex.compile(
    rf"(?V1)[\w&&{_DICTIONARY}]+|[[{_IDEOGRAPHIC}]&&\p{{WB=Other}}][\p{{WB=Extend}}\p{{WB=Format}}\u200D]*"
    r"|(?w:\b(?=\w).+?\b)",
    regex.DOTALL,
)
# What may follow the last word and still become a part of it.
_JOINT = regex.compile(r"[\p{WB=MidLetter}\p{WB=MidNum}\p{WB=MidNumLet}'\"]?[\p{M}\p{Cf}]*")


def split_words(text: str, closed: bool = False) -> list[str]:
    """Return the words and numbers of a text, with the apostrophe of ASCII in them.

    `closed`: without a last one that may become longer with the text.
    """
    plain = as_ascii(text)
    if plain is None:
        plain = text.replace("’", "'")
        found: list[str] = _WORD.findall(plain)
    else:
        found = _ASCII_WORD.findall(plain)
    if closed and found and _JOINT.fullmatch(plain, plain.rindex(found[-1]) + len(found[-1])):
        found.pop()
    return found


def word_spans(text: str) -> list[Span]:
    """Return where the words of a text are."""
    plain = as_ascii(text)
    found = _WORD.finditer(text) if plain is None else _ASCII_WORD.finditer(plain)
    return [Span(*match.span()) for match in found]


# Words in a length. The sets are ranges, so that a mask over tokens can have the same ones.

IDEOGRAPHS = (
    r"\u2E80-\u2FD5\u3005\u3007\u3021-\u3029\u3038-\u303B\u3041-\u3096\u309D-\u309F\u3400-\u4DBF"
    r"\u4E00-\u9FFF\uF900-\uFAFF\U00020000-\U0003FFFF"
)
"""Chinese characters and hiragana, as members of a set."""

MARKS = (
    r"\x00-\x08\x0E-\x1B!-/:-@\[-\^`{-\x84\x86-\x9F\xA1-\xA9\xAB-\xB1\xB4\xB6-\xB8\xBB\xBF\xD7\xF7"
    r"\u0300-\u036F\u037E\u0385\u0387\u1FC1\u1FED-\u1FEF\u1FFD\u20D0-\u20FF"
    r"\u060C\u061B\u061F\u06D4\u0964\u0965\u1361-\u1368\u200B-\u2027\u202A-\u202E\u2030-\u205E"
    r"\u2060-\u206F\u20A0-\u20CF\u2190-\u245F\u2500-\u2BFF\u2E00-\u2E7F\u3001-\u3004\u3008-\u3020"
    r"\u3030\u303D-\u303F\u3099-\u309C\u30A0\u30FB\uFE00-\uFE6F\uFEFF\uFF01-\uFF0F\uFF1A-\uFF20"
    r"\uFF3B-\uFF3E\uFF40\uFF5B-\uFF65\uFFE0-\uFFFF\U0001F000-\U0001FAFF\U000E0000-\U000E0FFF"
)
"""Punctuation, symbols, emoji and accents, which alone are no word, as members of a set."""

# Only where a run begins: from each of many marks in a row, the search would go over all others.
_ASCII_COUNTED = re.compile(r"(?<!\S)[^\w\s]*\w\S*")
_COUNTED = re.compile(
    rf"[{IDEOGRAPHS}]"
    rf"|(?<![^{BLANKS}{IDEOGRAPHS}])[{MARKS}]*[^{BLANKS}{IDEOGRAPHS}{MARKS}][^{BLANKS}{IDEOGRAPHS}]*"
)


def counted_words(text: str) -> list[int]:
    """Return where each word starts that a length in words counts."""
    plain = as_ascii(text)
    found = _COUNTED.finditer(text) if plain is None else _ASCII_COUNTED.finditer(plain)
    return [match.start() for match in found]


def count_words(text: str) -> int:
    """Return the number of words that a length in words counts, faster than their starts."""
    plain = as_ascii(text)
    return len(_COUNTED.findall(text) if plain is None else _ASCII_COUNTED.findall(plain))


# Edges of words -----------------------------------------------------------------------------------

_JOINED_DIGITS = ".,;'’٬"  # between two digits they are part of the number


def neighbors(char: str) -> str:
    """Return the set of characters that are of the same word beside `char`; "": unknown.

    For a letter these are letters of its script, marks and digits; for a digit, letters of any
    script but Korean, whose counters and particles follow numbers.
    """
    if is_unspaced(char):
        return ""
    for script in _SCRIPTS:
        if regex.match(rf"\p{{{script}}}", char):
            common = "" if script == "Hangul" else r"\p{Common}"
            return rf"[[\w&&[\p{{{script}}}\p{{Inherited}}{common}]]--[{_UNSPACED}]]"
    return rf"[\w--[{_UNSPACED}\p{{Hangul}}]]"


SAME_WORD = rf"[\w--[{_UNSPACED}]]"
"""The set of the characters that a `*` stands for."""


@lru_cache(maxsize=4096)
def word_start(char: str) -> str:
    """Return the pattern of `char` where it stands at the edge of a word; "": it needs no edge.

    A pattern of `regex` (version 1) for texts in normal form.
    """
    if not is_word(char) or not (inside := neighbors(char)):
        return ""
    # The character comes first, so that the search looks behind only where it stands.
    number = rf"(?<!\d[{_JOINED_DIGITS}]{char})" if char.isdecimal() else ""
    return rf"{char}(?<!{inside}{char}){number}"


@lru_cache(maxsize=4096)
def edge_after(char: str, closed: bool) -> str:
    """Return what must follow a text that ends with `char` to be at the edge of a word.

    `closed`: only where no continuation of the whole text can change it.
    """
    last = r"(?!\Z)" if closed else ""
    if not is_word(char):
        return rf"(?![{COMPOSING}]){last}" if can_compose(char) else ""
    if not (inside := neighbors(char)):
        marks = r"\p{M}" if regex.match(_DICTIONARY, char) else COMPOSING
        return rf"(?![{marks}]){last}"
    if not char.isdecimal():
        return rf"(?!{inside}){last}"
    number = rf"(?![{_JOINED_DIGITS}]" + (r"(?:\d|\Z))" if closed else r"\d)")
    return rf"(?!{inside}){number}{last}"


def ascii_word_start(char: str) -> str:
    """Return what `word_start` means in ASCII, as a pattern of `re`."""
    if not is_word(char):
        return ""
    return rf"{char}(?<!\w{char})" + (rf"(?<!\d[.,;']{char})" if char.isdecimal() else "")


def ascii_edge_after(char: str, closed: bool) -> str:
    """Return what `edge_after` means in ASCII, as a pattern of `re`."""
    last = r"(?!\Z)" if closed else ""
    if not is_word(char):
        return last if can_compose(char) else ""
    if not char.isdecimal():
        return r"(?=\W)" if closed else r"(?!\w)"
    return r"(?!\w)(?![.,;']" + (r"(?:\d|\Z))(?!\Z)" if closed else r"\d)")


# Sentences ----------------------------------------------------------------------------------------

# A full stop, closing quotes and brackets, white space, and the next letter or digit. The group
# `start` is empty and stands where the next sentence starts; `strong` needs no white space.
_ASCII_STOP = re.compile(
    r"(?P<end>(?P<stop>[.!?\x03](?<![.!?\x03]{2})[.!?\x03]*+)[\"')\]}*_\x02]*+)"
    r"(?P<gap>\s++)(?P<start>)(?=[^\w.!?\x03]*+(?P<next>\w))"
    r"(?P<strong>)",
)
_CLOSERS = r"\"'*_\p{Pe}\p{Pf}"
_STOPS = r"\p{SB=STerm}\p{SB=ATerm}…"
_STOP = regex.compile(
    rf"(?V1)(?P<end>(?<![.!?…])(?P<stop>[.!?…]++)[{_CLOSERS}]*+(?=[{BLANKS}])"
    rf"|(?<![\p{{SB=STerm}}--!?])(?P<strong>[\p{{SB=STerm}}--!?][{_STOPS}]*+)[{_CLOSERS}]*+)"
    rf"(?P<gap>[{BLANKS}]*+)(?P<start>)(?=[^\w{_STOPS}]*+(?P<next>\w))"
)
_EMPTY_LINES = regex.compile(
    rf"(?V1)(?<![{BLANKS}])(?:(?:[{BLANKS}--\n]*+\n){{2}}|[{BLANKS}--\u2029]*+\u2029)[{BLANKS}]*+"
    rf"(?=[^\w{_STOPS}]*+\w)"
)
_END = regex.compile(rf"[{_STOPS}][{_CLOSERS}]*(?P<gap>[{BLANKS}]*)\Z")
_EMPTY_LINE = re.compile(r"\n[^\S\n]*\n|\u2029")
_TITLE = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|e\.g|i\.e)$", re.IGNORECASE)
_NUMBER_SIGN = re.compile(r"\bNo$", re.IGNORECASE)
_LONGEST_TITLE = 6
_LIST_NUMBER = re.compile(r"\s*\d{1,3}")


def sentence_starts(text: str) -> list[int]:
    """Return where each sentence starts; none can change when the text grows."""
    first = _INK.search(text)
    if first is None:
        return []
    return [first.start(), *(start for _, start in _breaks(text) if start > first.start())]


def sentence_ends(text: str) -> list[int]:
    """Return where each sentence ends, with its closing quotes, the one at the end included."""
    ends = [end for end, _ in _breaks(text) if end]
    last = _END.search(text)
    if last is not None and not _is_title(text, last.start(), ""):
        ends.append(last.start("gap"))
    return ends


def ends_with_sentence(text: str) -> bool:
    """Return whether the text ends where a sentence does, apart from white space."""
    return _END.search(text) is not None


_INK = re.compile(r"\S")


def _breaks(text: str) -> list[tuple[int, int]]:
    """Return the end of a sentence (0 at an empty line) and the start of the next one."""
    plain = as_ascii(text)
    found = _STOP.finditer(text) if plain is None else _ASCII_STOP.finditer(plain)
    breaks = [
        (match.end("end"), match.start("start"))
        for match in found
        if match["strong"] or _is_break(text, match)
    ]
    if "\n" in text or "\u2029" in text:
        starts = {start for _, start in breaks}
        ends = (match.end() for match in _EMPTY_LINES.finditer(text))
        breaks += [(0, end) for end in ends if end not in starts]
        breaks.sort(key=lambda one: one[1])
    return breaks


def _is_break(text: str, match: re.Match[str] | regex.Match[str]) -> bool:
    """Return whether a stop before white space ends a sentence."""
    if _EMPTY_LINE.search(match["gap"]):
        return True
    at, following = match.start("stop"), match["next"]
    if following.islower() or _is_title(text, at, following):
        return False
    line = text.rfind("\n", 0, at) + 1
    return match["stop"] != "." or _LIST_NUMBER.fullmatch(text, line, at) is None


def _is_title(text: str, at: int, following: str) -> bool:
    before = text[max(0, at - _LONGEST_TITLE) : at]
    return _TITLE.search(before) is not None or (
        following.isdecimal() and _NUMBER_SIGN.search(before) is not None
    )
