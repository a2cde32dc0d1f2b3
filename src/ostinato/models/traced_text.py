"""Text that knows which of its parts came from outside: a `str` with spans.

A chat template joins, cuts and trims what it is given. Operations that keep characters keep their
spans. Whatever else is made of outside text is outside text as a whole. Knows no template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set, ValuesView
from typing import Any, NamedTuple, SupportsIndex

from jinja2.runtime import LoopContext
from jinja2.utils import Cycler, Joiner, Namespace

OUTSIDE = -1  # the source of text that is no message's words
GENERATED = -2  # of what a template says the model generates
# What a template can make that hides the texts in it.
_HOLDERS = (Cycler, Joiner, LoopContext, Namespace)
_SYMBOL, _WORD = re.compile(r"[^\s\w]"), re.compile(r"\w")


class Span(NamedTuple):
    """A part of a text, in characters; `source` is OUTSIDE, GENERATED or a message's index."""

    start: int
    end: int
    source: int


class TracedText(str):
    """A text of which `spans` came from outside; the rest is the template's own."""

    __slots__ = ("spans",)
    spans: tuple[Span, ...]

    def __new__(cls, text: str, spans: Iterable[Span] | None = None) -> TracedText:
        """Return `text` with `spans`; by default, all of it is from outside."""
        traced = super().__new__(cls, text)
        traced.spans = (Span(0, len(text), OUTSIDE),) if spans is None else tuple(spans)
        return traced

    def __str__(self) -> str:
        return self  # a plain copy would lose the spans

    def __add__(self, other: str) -> TracedText:
        return joined((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> TracedText:
        return joined((other, self)) if isinstance(other, str) else NotImplemented

    def __getitem__(self, index: SupportsIndex | slice) -> TracedText:
        if not isinstance(index, slice):
            at = range(len(self))[index]
            return self._cut(at, at + 1)
        start, stop, step = index.indices(len(self))
        if step != 1:
            return blended(super().__getitem__(index), [self])
        return self._cut(start, max(start, stop))

    def __iter__(self) -> Iterator[TracedText]:
        return (self._cut(i, i + 1) for i in range(len(self)))

    def strip(self, chars: str | None = None, /) -> TracedText:
        """Strip both ends, as `str.strip` does."""
        return self.rstrip(chars).lstrip(chars)

    def lstrip(self, chars: str | None = None, /) -> TracedText:
        """Strip the start, as `str.lstrip` does."""
        return self._cut(len(self) - len(super().lstrip(chars)), len(self))

    def rstrip(self, chars: str | None = None, /) -> TracedText:
        """Strip the end, as `str.rstrip` does."""
        return self._cut(0, len(super().rstrip(chars)))

    def removeprefix(self, prefix: str, /) -> TracedText:
        """Remove a prefix, as `str.removeprefix` does."""
        return self._cut(len(self) - len(super().removeprefix(prefix)), len(self))

    def removesuffix(self, suffix: str, /) -> TracedText:
        """Remove a suffix, as `str.removesuffix` does."""
        return self._cut(0, len(super().removesuffix(suffix)))

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """Split, as `str.split` does."""
        return self._located(super().split(sep, maxsplit), len(sep or ""))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """Split from the end, as `str.rsplit` does."""
        return self._located(super().rsplit(sep, maxsplit), len(sep or ""))

    def splitlines(self, keepends: bool = False) -> list[str]:
        """Split into lines, as `str.splitlines` does."""
        return self._located(super().splitlines(keepends), 0)

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        """Split once, as `str.partition` does."""
        first, middle, last = self._located(super().partition(sep), 0)
        return first, middle, last

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        """Split once from the end, as `str.rpartition` does."""
        first, middle, last = self._located(super().rpartition(sep), 0)
        return first, middle, last

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> TracedText:
        """Replace, as `str.replace` does."""
        if not old:
            return blended(super().replace(old, new, count), [self, new])
        return joined(self.split(old, count), new)

    def _cut(self, start: int, end: int) -> TracedText:
        return TracedText(str.__getitem__(self, slice(start, end)), _clipped(self, start, end))

    def _located(self, pieces: Iterable[str], between: int) -> list[str]:
        """Return the parts of this text that `pieces` are; `between` characters separate them."""
        found, at = [], 0
        for piece in pieces:
            # Without a separator, blanks are between: a piece is the next place that equals it.
            start = at if between else self.find(piece, at)
            found.append(self._cut(start, start + len(piece)))
            at = start + len(piece) + between
        return list[str](found)


def _clipped(text: TracedText, start: int, end: int) -> Iterator[Span]:
    for span in text.spans:
        first, last = max(span.start, start), min(span.end, end)
        # An empty span still says where an empty message stands.
        if first < last or (first == last and (span.start == span.end or start == end)):
            yield Span(first - start, last - start, span.source)


def outside(text: str, source: int = OUTSIDE) -> TracedText:
    """Return a text that came whole from `source`."""
    return TracedText(text, [Span(0, len(text), source)])


def joined(parts: Iterable[str], between: str = "") -> TracedText:
    """Join texts as `str.join` does, each with its spans."""
    kept = list(parts)
    spans: list[Span] = []
    at = 0
    for i, part in enumerate(kept):
        for piece in (between, part) if i else (part,):
            if isinstance(piece, TracedText):
                spans += [Span(at + s.start, at + s.end, s.source) for s in piece.spans]
            at += len(piece)
    return TracedText(between.join(kept), spans)


def blended(text: str, sources: Iterable[object]) -> TracedText:
    """Return `text`, made of `sources`, as outside text: from one source if they have one."""
    found = {span.source for part in traced_in(list(sources)) for span in part.spans}
    found.discard(GENERATED)
    return outside(text, found.pop() if len(found) == 1 else OUTSIDE)


def traced_in(value: object) -> Iterator[TracedText]:
    """Yield the texts with spans in a value: itself, or in its lists and mappings.

    For what hides its texts, yield a text from outside.
    """
    if isinstance(value, TracedText):
        if value.spans:
            yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from traced_in(pair)
    elif isinstance(value, list | tuple | Set | ValuesView):
        for inner in value:
            yield from traced_in(inner)
    elif isinstance(value, _HOLDERS):
        yield outside("")


def holds_traced(value: object) -> bool:
    """Return whether a value has texts with spans."""
    return next(traced_in(value), None) is not None


def trace_result(
    result: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Return what `function` made of its arguments, traced."""
    texts = list(traced_in([args, kwargs])) if isinstance(result, str | list | tuple) else []
    if not texts or isinstance(result, TracedText):
        return result
    if isinstance(result, str):
        embedded = _embedded(result, function, args, kwargs)
        return blended(result, texts) if embedded is None else embedded
    if type(result) not in (list, tuple):
        return result
    return type(result)(blended(part, texts) if type(part) is str else part for part in result)


def _embedded(
    result: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> TracedText | None:
    """Return `result` with spans where the function only puts texts into another, else None.

    It is called again with one character for each text, which shows where each was put.
    """
    texts: dict[str, TracedText] = {}

    def marked(value: Any) -> Any:
        if isinstance(value, TracedText) and value.spans:
            mark = chr(0xF0000 + len(texts))
            texts[mark] = value
            return mark
        if isinstance(value, Mapping):
            return {marked(key): marked(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(marked, value))
        if holds_traced(value):
            raise TypeError("its texts cannot be marked")
        return value

    try:
        pattern = function(*marked(args), **marked(kwargs))
    except Exception:  # it reads the texts
        return None
    traced = joined(texts.get(character, character) for character in pattern)
    return traced if traced == result else None


def masked(text: TracedText, avoid: str) -> str:
    """Return `text` with other characters for outside ones: blanks for blanks, letters for letters.

    None of them is in `avoid`.
    """
    letter, symbol = _unused("աբգджз", avoid), _unused("\uf8ff\uf8fe\uf8fd\uf8fc", avoid)
    plain, parts, at = str.__str__(text), [], 0
    for span in sorted(span for span in text.spans if span.source != GENERATED):
        start, end = max(at, span.start), max(at, span.end)
        parts += [plain[at:start], _WORD.sub(letter, _SYMBOL.sub(symbol, plain[start:end]))]
        at = end
    return "".join([*parts, plain[at:]])


def _unused(candidates: str, avoid: str) -> str:
    return next(c for c in candidates if c not in avoid)
