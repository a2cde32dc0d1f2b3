"""The places of a cache: who sits where, and which prompt each place still holds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from ostinato.models import Backend


class Places:
    """Gives out places and computes prompts, sharing what another place holds already.

    Only what was computed as a prompt is shared: its bits are those of the prompt's fixed shape.
    """

    def __init__(self, inference: Backend, count: int) -> None:
        self._inference = inference
        self._free = list(range(count))
        self._held: list[list[int]] = [[] for _ in range(count)]

    def take(self, tokens: Sequence[int]) -> int:
        """Give a place whose cache holds `tokens`."""
        wanted = list(tokens)
        place = max(self._free, key=lambda p: (common(self._held[p], wanted), -len(self._held[p])))
        self._free.remove(place)
        have = self._keep(place, wanted)
        donor = max(range(len(self._held)), key=lambda p: common(self._held[p], wanted))
        lent = self._whole(common(self._held[donor], wanted), wanted)
        if lent > have:
            self._inference.copy(donor, place, lent)
            have = lent
        if have < len(wanted):
            self._inference.prefill(place, wanted[have:], have)
        self._held[place] = wanted
        return place

    def fork(self, source: int, length: int) -> int:
        """Give a place that holds the first `length` positions of another one."""
        place = self._free.pop()
        self._inference.copy(source, place, length)
        self._held[place] = list(self._held[source])
        return place

    def free(self, place: int) -> None:
        """Take a place back; its prompt stays until the place is needed."""
        self._free.append(place)

    def _keep(self, place: int, wanted: list[int]) -> int:
        return self._whole(common(self._held[place], wanted), wanted)

    def _whole(self, common: int, wanted: list[int]) -> int:
        """Round down to whole chunks, unless all of it is there."""
        return common if common == len(wanted) else common - common % self._inference.prefill_chunk


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many of their first tokens two texts share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
