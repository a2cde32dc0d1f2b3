"""The one form in which texts are compared, and the places of its characters in the original.

Canonical composition (NFC) and full case folding, so that "café" is the same text however it is
encoded. Compatibility forms stay apart: "²" is not "2", and "Ａ" is not "A". Knows no check.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import NamedTuple

import regex

from ostinato.loop import Span

_CLUSTER = regex.compile(r"\X")
_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")

COMPOSING = (
    r"\u0300-\u0345\u0653-\u0655\u093C\u09BE\u09D7\u0B3E\u0B56\u0B57\u0BBE\u0BD7\u0C56\u0CC2\u0CD5"
    r"\u0CD6\u0D3E\u0D57\u0DCA\u0DCF\u0DDF\u102E\u1161-\u1175\u11A8-\u11C2\u1B35\u3099\u309A"
    r"\U000110BA\U00011127\U0001133E\U00011357\U000114B0\U000114BA\U000114BD\U000115AF\U00011930"
)
"""The characters that can join the one before them into another character: members of a set."""
_COMPOSING = regex.compile(f"[{COMPOSING}]")


class _Source(NamedTuple):
    """The text that a normal form was made of, and how."""

    text: str
    case: bool
    visible: bool


class NormalText(NamedTuple):
    """A text in normal form. Without a `source`, each character is at its own place."""

    text: str
    source: _Source | None = None

    def span(self, start: int, end: int) -> Span:
        """Return the part of the original text from which `text[start:end]` came; not empty."""
        if self.source is None:
            return Span(start, end)
        places = _places(self.source)  # found when needed: most texts have no match
        return Span(places[start].start, places[end - 1].end)


def normalized(text: str, *, case: bool = False, visible: bool = False) -> NormalText:
    """Return a text in normal form; with `case`, upper and lower case stay apart.

    `visible`: characters that are not shown (zero-width space and joiners, soft hyphen, variation
    selectors) are left out.
    """
    if text.isascii():
        return NormalText(text if case else text.lower())
    return _normalized(str(text), case, visible)


def normal_form(text: str, case: bool = False) -> str:
    """Return a text in normal form, without the places of its characters."""
    return normalized(text, case=case).text


# Several checks read the same text at the same token.
@lru_cache(maxsize=16)
def _normalized(text: str, case: bool, visible: bool) -> NormalText:
    hidden = visible and _INVISIBLE.search(text) is not None
    if not hidden and unicodedata.is_normalized("NFC", text):
        folded = text if case else text.casefold()
        # Folding maps a character to one or more: of the same length, each is at its own place.
        if len(folded) == len(text) and unicodedata.is_normalized("NFC", folded):
            return NormalText(folded)
    shown = _INVISIBLE.sub("", text) if hidden else text
    return NormalText(_form(shown, case), _Source(text, case, visible))


@lru_cache(maxsize=16)
def _places(source: _Source) -> list[Span]:
    """Return the part of the source from which each character of its normal form came."""
    text, places = source.text, list[Span]()
    shown = [at for at, char in enumerate(text) if not (source.visible and _INVISIBLE.match(char))]
    # Characters compose within a grapheme cluster only.
    for match in _CLUSTER.finditer("".join(map(text.__getitem__, shown))):
        place = Span(shown[match.start()], shown[match.end() - 1] + 1)
        places.extend([place] * len(_form(match.group(), source.case)))
    return places


def _form(text: str, case: bool) -> str:
    return unicodedata.normalize("NFC", text if case else decomposed(text))


def decomposed(text: str, case: bool = False) -> str:
    """Return the decomposed normal form, in which the text before an accent is its prefix."""
    if text.isascii():
        return text if case else text.lower()
    text = unicodedata.normalize("NFD", text)
    return text if case else unicodedata.normalize("NFD", text.casefold())


def decomposed_start(text: str, case: bool = False) -> str:
    """Return the part of a prefix that every continuation starts with, in `decomposed` form."""
    if not text.isascii():
        # What follows may come before the accents at the end: their order in the form is fixed.
        text = unicodedata.normalize("NFD", text)
        end = len(text)
        while end and unicodedata.combining(text[end - 1]):
            end -= 1
        text = text[:end]
    return decomposed(text, case)


def composes(char: str) -> bool:
    """Whether a character can join the one before it into another character."""
    return _COMPOSING.match(char) is not None


def can_compose(char: str) -> bool:
    """Whether a character that follows can turn this one into another: "e", but not "!" or "5"."""
    if char.isalpha() or unicodedata.category(char) in ("Mc", "Mn", "Sk"):
        return True
    # Of the others, only U+0338 (a stroke through it) makes another character: "≠".
    return unicodedata.normalize("NFC", f"{char}\u0338") != f"{char}\u0338"


@lru_cache(maxsize=1)
def accented() -> dict[str, str]:
    """Return for each ASCII character all the others that are it with accents: "e": "éèê…"."""
    found: dict[str, list[str]] = {}
    for char in map(chr, range(0xC0, 0x3000)):
        base = unicodedata.normalize("NFD", char)[0]
        if base.isascii():
            found.setdefault(base, []).append(char)
    return {base: "".join(chars) for base, chars in found.items()}
