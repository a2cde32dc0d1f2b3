"""What a check demands of a whole text, as a language: what `constrain` turns into token masks.

A language may be somewhat wider or narrower than its check (upper and lower case of rare letters):
the check itself judges in the end. Knows no check and no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import regex

ANY = "(?s:.*)"
# Word edges and white space are told in ASCII: automata of all of Unicode are ten times as large.
# Whatever lies beyond counts as a letter.
WORD = r"[0-9A-Za-z_\x{80}-\x{10FFFF}]"
EDGE = r"[\x00-/:-@\x5b-\x5e`{-\x7f]"
BLANK, INK = r"[ \t\n\r\f\v]", r"[^ \t\n\r\f\v]"


class ConstraintSpec(NamedTuple):
    """The texts that match a regular expression, those that do not (`no`), or JSON of a schema.

    `hints` are texts that it takes to get into the language: what must be said.
    """

    kind: Literal["regex", "json_schema"]
    text: str
    no: bool = False
    hints: tuple[str, ...] = ()


def folded(pattern: str, case: bool) -> str:
    """Return the pattern as a group, for upper and lower case alike where `case` is false."""
    return f"(?:{pattern})" if case else f"(?i:{pattern})"


def escaped(text: str) -> str:
    """Return the pattern of a text, to the letter."""
    return str(regex.escape(text, special_only=True))


def one_of(texts: Iterable[str], case: bool) -> str:
    """Return the pattern of any of the texts, to the letter."""
    return folded("|".join(map(escaped, texts)), case)


def saying(
    texts: Iterable[str],
    patterns: Iterable[str] = (),
    *,
    case: bool = False,
    whole: bool = True,
    wild: bool = False,
) -> str:
    """Return the pattern of whole texts that say one of the texts or patterns somewhere.

    Texts are found as `ostinato.checks.patterns.literal` finds them: any white space for a blank,
    either apostrophe, at word edges where `whole`, `*` for any letters where `wild`.
    """
    ways = [_said(text, case, whole, wild) for text in texts]
    ways += [f"{ANY}{folded(pattern, case)}{ANY}" for pattern in patterns]
    return "|".join(ways)


def _said(text: str, case: bool, whole: bool, wild: bool) -> str:
    parts = [_spaced(part) for part in (text.split("*") if wild else [text])]
    core = folded(f"{WORD}*".join(parts), case)
    before = f"(?s:(?:.*{EDGE})?)" if whole and _is_word(text[0]) else ANY
    after = f"(?s:(?:{EDGE}.*)?)" if whole and _is_word(text[-1]) else ANY
    return f"{before}{core}{after}"


def _spaced(text: str) -> str:
    pattern = f"{BLANK}+".join(map(escaped, text.split())).replace("’", "'").replace("'", "['’]")
    lead = f"{BLANK}+" if text[:1].isspace() else ""
    tail = f"{BLANK}+" if text[-1:].isspace() and text.strip() else ""
    return lead + pattern + tail


def _is_word(char: str) -> bool:
    return regex.match(r"\w", char) is not None
