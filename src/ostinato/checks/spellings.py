"""All the ways to write a text that are the same in normal form, as a regular expression.

For masks over tokens, which see a text as it is written. Knows no check.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations

import regex

from ostinato.checks.normal_form import decomposed

_CLUSTER = regex.compile(r"\X")
# Single characters that are several ASCII ones, or another one, in normal form.
_ASCII_FORMS: Mapping[str, str] = {
    "ss": "ßẞ",
    "ff": "ﬀ",
    "fi": "ﬁ",
    "fl": "ﬂ",
    "ffi": "ﬃ",
    "ffl": "ﬄ",
    "st": "ﬅﬆ",
    "k": "\u212a",
    ";": "\u037e",
    "`": "\u1fef",
}
_ASCII_CASED_FORMS: Mapping[str, str] = {"K": "\u212a", ";": "\u037e", "`": "\u1fef"}
_MOST_OVERLAPPING = 8  # characters in a row of which many can be written as one: "sssst"


def spelled(text: str, case: bool) -> str:
    """Return the pattern of all spellings of a text without white space; wrap it in `folded`.

    It may contain some more, with the same accents in another order or number.
    """
    form = decomposed(text, case)
    if form.isascii():
        forms = _ASCII_CASED_FORMS if case else _ASCII_FORMS
    else:
        forms = _single_forms(case)
    clusters = _CLUSTER.findall(form)
    return "".join(_pieces(clusters, forms))


def _pieces(clusters: Sequence[str], forms: Mapping[str, str]) -> Iterator[str]:
    """Yield the pattern of each cluster, or of a run of them that may be written as fewer."""
    at = 0
    while at < len(clusters):
        end = _run_end(clusters, at, forms)
        if end - at > _MOST_OVERLAPPING:
            end = at + _MOST_OVERLAPPING
        if end - at > 1:
            yield f"(?:{'|'.join(_tilings(clusters[at:end], forms))})"
        else:
            yield _one(clusters[at], forms)
        at = end


def _run_end(clusters: Sequence[str], start: int, forms: Mapping[str, str]) -> int:
    """Return the end of the run, from `start`, whose parts can each be written as one character."""
    end, at = start + 1, start
    while at < end:
        for size in (2, 3):
            if at + size <= len(clusters) and "".join(clusters[at : at + size]) in forms:
                end = max(end, at + size)
        at += 1
    return end


def _tilings(clusters: Sequence[str], forms: Mapping[str, str]) -> Iterator[str]:
    if not clusters:
        yield ""
    for size in (1, 2, 3):
        part = "".join(clusters[:size])
        if len(clusters) >= size and (size == 1 or part in forms):
            first = _one(part, forms) if size == 1 else f"[{forms[part]}]"
            yield from (first + rest for rest in _tilings(clusters[size:], forms))


def _one(cluster: str, forms: Mapping[str, str]) -> str:
    """Return the pattern of a character with its accents, composed as far as one likes."""
    base, accents = cluster[0], cluster[1:]
    whole = _set_of([cluster], forms)
    if not accents:
        return whole if len(whole) > 1 else str(regex.escape(base, special_only=True))
    # No single character has more than three accents, nor one of them twice.
    distinct = list(dict.fromkeys(accents))
    some = ["".join(part) for size in range(4) for part in combinations(distinct, size)]
    heads = _set_of([base + part for part in some if part != accents], forms)
    # Accents compose with each other, too: a vowel sign of Kannada or Tamil may be three of them.
    apart = f"{heads}{_set_of(some[1:], forms)}{{1,{len(accents)}}}"
    return f"(?:{whole}|{apart})" if whole else apart


def _set_of(parts: Sequence[str], forms: Mapping[str, str]) -> str:
    """Return the set of the single characters that are one of the parts; "" for none."""
    found = dict.fromkeys("".join(forms.get(part, "") for part in parts))
    composed = (unicodedata.normalize("NFC", part) for part in parts)
    found |= dict.fromkeys(char for char in composed if len(char) == 1)
    if not found:
        return ""
    if len(found) == 1:
        return str(regex.escape(next(iter(found)), special_only=True))
    return f"[{''.join(str(regex.escape(char)) for char in found)}]"


@lru_cache(maxsize=2)
def _single_forms(case: bool) -> Mapping[str, str]:
    """Return, for each text, the single characters that are it in normal form, if any differ."""
    found: defaultdict[str, str] = defaultdict(str)
    # Without the Chinese characters and Korean syllables, which have no case.
    for first, last in ((0x80, 0x3400), (0xA640, 0xAC00), (0xF900, 0x1E960), (0x2F800, 0x2FA20)):
        for char in map(chr, range(first, last)):
            if (form := decomposed(char, case)) != char:
                found[form] += char
    return {**found, **(_ASCII_CASED_FORMS if case else {})}
