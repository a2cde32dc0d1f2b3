"""The slots of a cache: who sits where, and which prompt each slot still holds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from ostinato.inference import Backend


class SlotAllocator:
    """Gives out slots and computes prompts, sharing what another slot holds already.

    Only what was computed as a prompt is shared: its bits are those of the prompt's fixed shape.
    """

    def __init__(self, inference: Backend, count: int) -> None:
        self._inference = inference
        self._free = list(range(count))
        self._held: list[list[int]] = [[] for _ in range(count)]

    def take(self, tokens: Sequence[int]) -> int:
        """Give a slot whose cache holds `tokens`."""
        wanted = list(tokens)
        slot = max(self._free, key=lambda p: (common(self._held[p], wanted), -len(self._held[p])))
        self._free.remove(slot)
        have = self._keep(slot, wanted)
        donor = max(range(len(self._held)), key=lambda p: common(self._held[p], wanted))
        lent = self._whole(common(self._held[donor], wanted), wanted)
        if lent > have:
            self._inference.copy(donor, slot, lent)
            have = lent
        if have < len(wanted):
            self._inference.prefill(slot, wanted[have:], have)
        self._held[slot] = wanted
        return slot

    def fork(self, source: int, length: int) -> int:
        """Give a slot that holds the first `length` positions of another one."""
        slot = self._free.pop()
        self._inference.copy(source, slot, length)
        self._held[slot] = list(self._held[source])
        return slot

    def free(self, slot: int) -> None:
        """Take a slot back; its prompt stays until the slot is needed."""
        self._free.append(slot)

    def _keep(self, slot: int, wanted: list[int]) -> int:
        return self._whole(common(self._held[slot], wanted), wanted)

    def _whole(self, common: int, wanted: list[int]) -> int:
        """Round down to whole chunks, unless all of it is there."""
        return common if common == len(wanted) else common - common % self._inference.prefill_chunk


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many of their first tokens two texts share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
