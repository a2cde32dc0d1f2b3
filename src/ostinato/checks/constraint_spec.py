"""What a check demands of a whole text, as a regular language or a JSON schema.

The strategy `constrain` turns it into token masks. It may be slightly wider or narrower than its
check (upper and lower case of rare letters): the check itself judges in the end. Knows no check and
no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import regex

ANY = "(?s:.*)"
# Word edges and white space are those of ASCII, and everything beyond counts as a letter: automata
# over all of Unicode are ten times as large.
WORD = r"[0-9A-Za-z_\x{80}-\x{10FFFF}]"
EDGE = r"[\x00-/:-@\x5b-\x5e`{-\x7f]"
BLANK, INK = r"[ \t\n\r\f\v]", r"[^ \t\n\r\f\v]"


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


def one_of(texts: Iterable[str], case: bool) -> str:
    """Return the pattern of exactly one of the texts."""
    return folded("|".join(map(escaped, texts)), case)


def containing(
    texts: Iterable[str],
    patterns: Iterable[str] = (),
    *,
    case: bool = False,
    whole: bool = True,
    wild: bool = False,
) -> str:
    """Return the pattern of whole texts that contain one of the texts or patterns.

    Texts match as in `ostinato.checks.patterns.literal`: any white space for a blank, either
    apostrophe, at word edges if `whole`, `*` for any letters if `wild`.
    """
    alternatives = [_containing(text, case, whole, wild) for text in texts]
    alternatives += [f"{ANY}{folded(pattern, case)}{ANY}" for pattern in patterns]
    return "|".join(alternatives)


def _containing(text: str, case: bool, whole: bool, wild: bool) -> str:
    parts = [spaced(part, f"{BLANK}+") for part in (text.split("*") if wild else [text])]
    core = folded(f"{WORD}*".join(parts), case)
    before = f"(?s:(?:.*{EDGE})?)" if whole and is_word(text[0]) else ANY
    after = f"(?s:(?:{EDGE}.*)?)" if whole and is_word(text[-1]) else ANY
    return f"{before}{core}{after}"


def spaced(text: str, blank: str) -> str:
    """Return the pattern of a text with any white space for a blank, and either apostrophe."""
    pattern = blank.join(map(escaped, text.split())).replace("’", "'").replace("'", "['’]")
    lead = blank if text[:1].isspace() else ""
    tail = blank if text[-1:].isspace() and text.strip() else ""  # blanks alone are one, not two
    return lead + pattern + tail


def is_word(char: str) -> bool:
    """Return whether a character is a letter, digit or underscore of any script."""
    return regex.match(r"\w", char) is not None
