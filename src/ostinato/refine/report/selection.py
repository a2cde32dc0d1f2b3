"""Which items a report page shows where all would make it too large. Knows no page."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, zip_longest
from typing import Generic, TypeVar

from ostinato.refine.results import Result

V = TypeVar("V")
TRIES = 50  # items that do not fit, before the page counts as full


@dataclass(frozen=True, slots=True)
class Shown(Generic[V]):
    """An item that a page may show: its place in the job, its bytes, and what is shown of it."""

    place: int
    bytes: int
    value: V


@dataclass(slots=True)
class _Ranking(Generic[V]):
    """The items of the least ranks, as many as fill a page of `most` bytes and a little more."""

    most: int
    bytes: int = 0
    _items: list[tuple[tuple[object, ...], Shown[V]]] = field(default_factory=list)

    def wants(self, rank: tuple[object, ...]) -> bool:
        """Return whether an item of this rank would be among them."""
        return self.bytes < self.most or rank < self._items[-1][0]

    def add(self, rank: tuple[object, ...], item: Shown[V]) -> None:
        """Add an item; drop the last ones that a page has no room for."""
        insort(self._items, (rank, item), key=lambda one: one[0])
        self.bytes += item.bytes
        # One more than fits: an item that is too large must not leave room that nobody takes.
        while len(self._items) > TRIES and self.bytes - self._items[-1][1].bytes >= self.most:
            self.bytes -= self._items.pop()[1].bytes

    def __iter__(self) -> Iterator[Shown[V]]:
        return (item for _, item in self._items)


class Selection(Generic[V]):
    """Chooses the results that a page of at most `most` bytes shows, as they come.

    All of them if they fit. Else in turns: what was not accepted, what was mended with the most
    tokens lost, what took the most tokens, and a sample of the rest. Memory holds a few pages.
    """

    def __init__(self, most: int) -> None:
        self.count = 0
        self._most = most
        self._all: list[Shown[V]] | None = []
        self._bytes = 0  # of `_all`
        self._rankings = [_Ranking[V](most) for _ in range(4)]

    def add(self, result: Result, make: Callable[[], tuple[V, int]]) -> None:
        """Look at the next result; `make` returns what would be shown of it, and its bytes."""
        place = self.count
        self.count += 1
        wanting = [
            (ranking, rank)
            for ranking, rank in zip(self._rankings, _ranks(result, place), strict=True)
            if rank is not None and ranking.wants(rank)
        ]
        if self._all is None and not wanting:
            return
        value, size = make()
        item = Shown(place, size, value)
        for ranking, rank in wanting:
            ranking.add(rank, item)
        if self._all is not None:
            self._all.append(item)
            self._bytes += size
            if self._bytes > self._most:
                self._all = None

    def shown(self) -> list[V]:
        """Return what the page shows, in the order of the results."""
        if self._all is not None:
            return [item.value for item in self._all]
        chosen: dict[int, Shown[V]] = {}
        left, tries = self._most, TRIES
        for item in self._by_interest():
            if item.place in chosen:
                continue
            if item.bytes <= left:
                left -= item.bytes
                chosen[item.place] = item
            elif not (tries := tries - 1):
                break
        return [chosen[place].value for place in sorted(chosen)]

    def _by_interest(self) -> Iterator[Shown[V]]:
        """Yield the items, the most telling first; some come twice."""
        turns = zip_longest(*self._rankings)
        return (item for item in chain.from_iterable(turns) if item is not None)


def _ranks(result: Result, place: int) -> Iterator[tuple[object, ...] | None]:
    """Yield the rank of a result in each ranking, None where it has no place in one."""
    yield None if result.accepted else (place,)
    yield (-result.tokens.discarded, place) if result.outcome == "revised" else None
    yield (-result.tokens.computed, place)
    # In the order of a hash: a sample that is the same each time, whatever its size.
    yield (blake2b(result.id.encode("utf-8", "replace"), digest_size=8).digest(), place)
