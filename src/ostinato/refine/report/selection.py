"""Which items a report page shows where all would make it too large. Knows no page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain, zip_longest

from ostinato.refine.results import Result

Size = Callable[[Result], int]
TRIES = 50  # items that do not fit, before the page counts as full


def most_telling(results: Sequence[Result], size: Size, most: int) -> list[Result]:
    """Return the results that a page of at most `most` bytes shows, in their own order.

    In turns: what was not accepted, what was mended with the most tokens lost, what took the most
    tokens, and a sample of the rest. `size` is the bytes of one.
    """
    if _all_fit(results, size, most):
        return list(results)
    chosen: dict[int, Result] = {}
    tries = TRIES
    for place in _by_interest(results):
        if place in chosen:
            continue
        bytes = size(results[place])
        if bytes <= most:
            most -= bytes
            chosen[place] = results[place]
        elif not (tries := tries - 1):
            break
    return [chosen[place] for place in sorted(chosen)]


def _all_fit(results: Sequence[Result], size: Size, most: int) -> bool:
    for result in results:
        most -= size(result)
        if most < 0:
            return False
    return True


def _by_interest(results: Sequence[Result]) -> Iterator[int]:
    """Yield the places of the results, the most telling first; some come twice."""
    places = range(len(results))
    not_accepted = [place for place in places if not results[place].accepted]
    mended = [place for place in places if results[place].outcome == "revised"]
    mended.sort(key=lambda place: -results[place].tokens.discarded)
    slowest = sorted(places, key=lambda place: -results[place].tokens.computed)
    # In the order of a hash: a sample that is the same each time, whatever its size.
    sample = sorted(places, key=lambda place: _hash(results[place].id))
    turns = zip_longest(not_accepted, mended, slowest, sample)
    return (place for place in chain.from_iterable(turns) if place is not None)


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
