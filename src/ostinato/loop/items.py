"""The items that lanes take, in their order: read once, and again when a run is resumed."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ostinato.errors import InputError, RunError


class UniqueItems(ABC):
    """Pairs (key, item) whose keys are known to be unique, and that can be read from any place.

    Lanes keep none of them once it is finished, not even its key: there may be more than the memory
    holds.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of pairs."""

    @abstractmethod
    def pairs(self, start: int = 0) -> Iterator[tuple[str, Any]]:
        """Yield the pairs from the position `start` on, in the same order each time."""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self.pairs()


class Arrivals(UniqueItems):
    """Pairs that come in while others are worked on, as requests do: `take()` returns the next one,
    None while there is none. Their keys must be unique."""

    def __init__(self, take: Callable[[], tuple[str, Any] | None]) -> None:
        self._take = take

    def __len__(self) -> int:
        return 0

    def pairs(self, start: int = 0) -> Iterator[tuple[str, Any]]:
        """Return an iterator; after its end it may yield more."""
        return _Coming(self._take)


class _Coming:
    """Yields what comes in; a generator could not continue after its end."""

    def __init__(self, take: Callable[[], tuple[str, Any] | None]) -> None:
        self._take = take

    def __iter__(self) -> _Coming:
        return self

    def __next__(self) -> tuple[str, Any]:
        found = self._take()
        if found is None:
            raise StopIteration
        return found


class Items:
    """Pairs (key, item), taken one by one; keys are unique.

    Raises `InputError` for a key that occurs twice: at once where the pairs are a sequence, else
    in `refuse_double`.
    """

    def __init__(self, pairs: Iterable[tuple[str, object]]) -> None:
        # They are read again on resume, which an iterator could not be.
        self._pairs = list(pairs) if isinstance(pairs, Iterator) else pairs
        if isinstance(self._pairs, Sequence):
            _refuse_doubles(key for key, _ in self._pairs)
        # The keys so far, where nobody has looked at them all before.
        known = isinstance(self._pairs, Sequence | UniqueItems)
        self._keys: set[str] | None = None if known else set()
        self._coming = self._from(0)
        self._next: tuple[str, object] | None = None
        self._twice: str | None = None  # a key that occurs again: nothing is taken after it
        self.taken = 0
        self._peek()

    @property
    def done(self) -> bool:
        """Whether all are taken; a source may still grow."""
        return self._next is None and self._twice is None

    def take(self) -> tuple[int, str, object] | None:
        """Return the next index, key and item; None where none is left, or a key occurs again."""
        if self.done:
            self._peek()  # the source may have grown, as a queue does
        if self._next is None:
            return None
        key, item = self._next
        if self._keys is not None:
            self._keys.add(key)
        index = self.taken
        self.taken += 1
        self._peek()
        return index, key, item

    def refuse_double(self) -> None:
        """Raise `InputError` where the next key has been taken before."""
        if self._twice is not None:
            raise _double(self._twice)

    def go_to(self, taken: int, keys: Mapping[int, str]) -> dict[int, object]:
        """Read the items again up to `taken`; return those of `keys` (key by index), by index.

        Raises `RunError` where the items are not those of before.
        """
        start = min(keys, default=taken) if self._keys is None else 0
        self._coming = self._from(start)
        self._keys = None if self._keys is None else set()
        self.taken, count = taken, self._count(start)
        found = {}
        for index, (key, item) in enumerate(islice(self._coming, taken - start), start):
            if self._keys is not None:
                self._keys.add(key)
            if index in keys and keys[index] != key:
                raise _other_items(f"{keys[index]!r} at position {index + 1}, got {key!r}")
            if index in keys:
                found[index] = item
            count = max(count, index + 1)
        if count < taken:
            raise _other_items(f"at least {taken}, got {count}")
        self._peek()
        return found

    def _from(self, start: int) -> Iterator[tuple[str, object]]:
        if isinstance(self._pairs, UniqueItems):
            return self._pairs.pairs(start)
        # Not `islice` from 0: it ends for good where a source that grows has nothing yet.
        return islice(self._pairs, start, None) if start else iter(self._pairs)

    def _count(self, start: int) -> int:
        """Return how many items there are; those before `start` where that is not known."""
        known = isinstance(self._pairs, Sequence | UniqueItems)
        return len(self._pairs) if known else start  # type: ignore[arg-type]

    def _peek(self) -> None:
        coming = next(self._coming, None)
        again = coming is not None and self._keys is not None and coming[0] in self._keys
        self._twice = coming[0] if coming is not None and again else None
        self._next = None if again else coming


def _refuse_doubles(keys: Iterable[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise _double(key)
        seen.add(key)


def _double(key: str) -> InputError:
    return InputError(f"Item keys must be unique, got {key!r} twice. Give each its own id.")


def _other_items(what: str) -> RunError:
    return RunError(
        f"The items must be those that the run started with: {what}. Give the same items in the "
        "same order, or start another run."
    )


_sorted = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=str).encode


def digest(value: object) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a JSON value; the order of keys is ignored."""
    return hashlib.sha256(_sorted(value).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def content_keys(items: Iterable[object]) -> list[str]:
    """Return a key for each item: the hash of its content, and the number of its occurrence.

    A row keeps its key, and so its random numbers, when others are inserted before it.
    """
    counts: dict[str, int] = {}
    keys = []
    for item in items:
        content = digest(item)[:12]
        counts[content] = counts.get(content, 0) + 1
        keys.append(f"{content}-{counts[content]}")
    return keys
