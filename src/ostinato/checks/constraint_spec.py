"""What a check demands of a whole text, as a regular language or a JSON schema.

The strategy `constrain` turns it into token masks, whose expressions look neither ahead nor behind.
So a language has more texts than its check passes where their edges of words are beyond ASCII, and
never fewer: the check itself judges in the end. Knows no check and no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

import regex

from ostinato.checks.normal_form import accented, can_compose, normal_form
from ostinato.checks.segments import BLANKS, is_unspaced, is_word
from ostinato.checks.spellings import spelled

ANY = "(?s:.*)"
BLANK = f"[{BLANKS}]"
_WORD = r"0-9A-Za-z_"
_ASCII_EDGES = r"\x00-&(-+\-/:<-@\[-\^`{-\x7f"  # without the signs that digits have between them
_DIGIT_SIGNS = ".,;'"
# Members of sets: letters that are surely of the same word beside a letter of their script (accents
# may be of another), and characters that are surely of no word with a letter of any other (a soft
# hyphen may stand within one). Automata over all of Unicode are ten times as large.
_LETTERS = {
    "Latin": r"A-Za-z\xC0-\xD6\xD8-\xF6\xF8-\u024F",
    "Cyrillic": r"\u0400-\u0481\u0483-\u052F",
    "Greek": r"\u0391-\u03A1\u03A3-\u03E1",
    "Arabic": r"\u0620-\u065F\u0671-\u06D3",
    "Hebrew": r"\u05D0-\u05EA",
    "Devanagari": r"\u0900-\u0963\u0971-\u097F",
    "Ethiopic": r"\u1200-\u1247",
}
_HANGUL = r"\uAC00-\uD7A3"
_NO_LETTERS = (
    r"\xA0-\xA9\xAB\xAC\xAE-\xB1\xB4\xB6-\xB8\xBB\xBF\xD7\xF7\u2000-\u200A\u2010-\u2017\u201C-\u2027"
    r"\u2030-\u203E\u3000-\u3004\u3008-\u3020\u3041-\u3096\u30A1-\u30FA\u3400-\u4DBF\u4E00-\u9FFF"
    r"\uFF01-\uFF0B\uFF0D\u0E01-\u0E30"
)


class ConstraintSpec(NamedTuple):
    """The texts that match a regular expression, those that do not (`no`), or JSON of a schema.

    `hints` are texts that lead into the language: one that must be contained, for example.
    """

    kind: Literal["regex", "json_schema"]
    text: str
    no: bool = False
    hints: tuple[str, ...] = ()


def folded(pattern: str, case: bool) -> str:
    """Return the pattern as a group that ignores upper and lower case unless `case`."""
    return f"(?:{pattern})" if case else f"(?i:{pattern})"


def escaped(text: str) -> str:
    """Return the pattern of exactly this text."""
    return str(regex.escape(text, special_only=True))


def one_of(texts: Iterable[str], case: bool, open_end: bool = False) -> str:
    """Return the pattern of one of the texts in any spelling; `open_end`: an accent may follow.

    White space and apostrophes are those of the text.
    """
    return folded("|".join(_as_written(text, case, open_end) for text in texts), case)


def _as_written(text: str, case: bool, open_end: bool) -> str:
    *pieces, last = re.split(r"(\s)", text)
    return "".join(spelled(piece, case) for piece in pieces) + _last_word(last, case, open_end)


def containing(
    texts: Iterable[str],
    patterns: Iterable[str] = (),
    *,
    case: bool = False,
    whole: bool = True,
    wild: bool = False,
    surely: bool = False,
) -> str:
    """Return the pattern of whole texts that contain one of the texts or patterns.

    Texts match as `ostinato.checks.patterns.finder` finds them. Where the pattern cannot be exact,
    it has more texts, or with `surely` fewer: for the opposite of a language.
    """
    alternatives = [_containing(text, case, whole, wild, surely) for text in texts]
    alternatives += [f"{ANY}{folded(pattern, case)}{ANY}" for pattern in patterns]
    return "|".join(alternatives)


def _containing(text: str, case: bool, whole: bool, wild: bool, surely: bool) -> str:
    text = normal_form(text, case)
    parts = text.split("*") if wild else [text]
    open_end = not whole or not parts[-1]
    if surely:
        written = [spaced(part, BLANK) for part in parts]
    else:
        written = [_written(part, case, open_end and part is parts[-1]) for part in parts]
    core = folded(f"[{_WORD}]*".join(written), case)
    ended = parts[-1] or (parts[-2] if len(parts) > 1 else "")
    after = _after_part(ended[-1:], surely) if open_end else _after(text[-1], surely)
    return f"{_before(text[0], surely) if whole else ANY}{core}{after}"


def spaced(text: str, blank: str) -> str:
    """Return the pattern of a text with any white space for a blank, and either apostrophe.

    `blank` is the set of white space.
    """
    return _framed(text, blank, [_apostrophes(escaped(word)) for word in text.split()])


def _written(text: str, case: bool, open_end: bool = False) -> str:
    """Return `spaced` of a text in all spellings; `open_end`: an accent may follow."""
    words = text.split()
    patterns = [spelled(word, case) for word in words]
    if open_end and words and not text[-1].isspace():
        patterns[-1] = _last_word(words[-1], case, open_end)
    return _framed(text, BLANK, list(map(_apostrophes, patterns)))


def _last_word(word: str, case: bool, open_end: bool) -> str:
    pattern = spelled(word, case)
    accents = accented().get(word[-1:], "") if open_end and word[-1:].isalpha() else ""
    return f"(?:{pattern}|{spelled(word[:-1], case)}[{accents}])" if accents else pattern


def _framed(text: str, blank: str, words: list[str]) -> str:
    lead = f"{blank}+" if text[:1].isspace() else ""
    tail = f"{blank}+" if text[-1:].isspace() and text.strip() else ""  # blanks alone: not two
    return lead + f"{blank}+".join(words) + tail


def _apostrophes(pattern: str) -> str:
    return pattern.replace("’", "'").replace("'", "['’]")


# Before and after ---------------------------------------------------------------------------------


def _before(char: str, surely: bool) -> str:
    """Return the pattern of what may stand before a text that starts at an edge with `char`."""
    if not is_word(char) or is_unspaced(char):
        return ANY
    edge, sign, no_digit = _edges(char, surely)
    if sign:  # "1,480" does not contain "480", and "a,480" does
        return f"(?s:(?:.*{edge})?|(?:.*{no_digit})?{sign})"
    return f"(?s:(?:.*{edge})?)"


def _after(char: str, surely: bool) -> str:
    """Return the pattern of what may follow a text that ends at an edge with `char`."""
    if not is_word(char) or is_unspaced(char):
        return _after_part(char, surely)
    edge, sign, no_digit = _edges(char, surely)
    if sign:
        return f"(?s:(?:{edge}.*)?|{sign}(?:{no_digit}.*)?)"
    return f"(?s:(?:{edge}.*)?)"


def _after_part(char: str, surely: bool) -> str:
    """Return the pattern of what may follow a text that may end within a word."""
    # An accent may belong to the last letter, and make it another one.
    if not surely or not char or char.isascii() or not can_compose(char):
        return ANY
    return rf"(?s:(?:[\x00-\x7f{_NO_LETTERS}{_HANGUL}].*)?)"


@lru_cache(maxsize=1024)
def _edges(char: str, surely: bool) -> tuple[str, str, str]:
    """Return the sets of an edge beside `char`, of the signs in a number, and of what is no digit.

    The last two are empty for a letter.
    """
    digit = char.isdecimal()
    script = next((name for name in _LETTERS if regex.match(rf"\p{{{name}}}", char)), "")
    if surely:
        hangul = "" if regex.match(r"\p{Hangul}", char) else _HANGUL
        edge = f"[{_ASCII_EDGES}{_NO_LETTERS}{hangul}{'' if digit else _DIGIT_SIGNS + '’'}]"
        return edge, (f"[{_DIGIT_SIGNS}]" if digit else ""), r"[\x00-/:-\x7f]"
    if digit:
        every = f"{_LETTERS['Latin']}{_LETTERS['Cyrillic']}"
        # A digit of a script, such as Devanagari's, is of no word with letters of another.
        letters = f"{_WORD}{every}" if char.isascii() else f"0-9_{_LETTERS.get(script, '')}"
        return f"[^{letters}{_DIGIT_SIGNS}’٬]", f"[{_DIGIT_SIGNS}’٬]", "[^0-9]"
    if regex.match(r"\p{Hangul}", char):
        return f"[^{_HANGUL}]", "", ""
    return f"[^0-9_{_LETTERS.get(script, '')}]", "", ""
