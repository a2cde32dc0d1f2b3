"""The slots of a cache: which are free, and which prompt each of them holds. Knows no lane."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from ostinato.inference import Backend


class SlotAllocator:
    """Hands out slots and computes prompts, reusing prefixes that other slots hold.

    Only positions computed as a prompt are shared. Those fed token by token have other bits, so a
    lane would depend on what its slot held before.
    """

    def __init__(self, inference: Backend, count: int) -> None:
        self._inference = inference
        self._free = list(range(count))
        self._prompts: list[list[int]] = [[] for _ in range(count)]

    def take(self, tokens: Sequence[int]) -> int:
        """Return a slot whose cache holds `tokens`, computing only what no slot has.

        A slot all of whose prompt is continued, the longest one; else the one that has been free
        for longest. So the turns of several conversations do not replace one another.
        """
        prompt = list(tokens)
        overlaps = {slot: self._overlap(slot, prompt) for slot in self._free}
        continued = [slot for slot in self._free if overlaps[slot] == len(self._prompts[slot])]
        slot = max(continued, key=overlaps.__getitem__) if continued else self._free[0]
        self._free.remove(slot)
        self.refill(slot, prompt)
        return slot

    def forget(self) -> None:
        """Forget what all slots hold: the network has other weights now."""
        self._prompts = [[] for _ in self._prompts]

    def refill(self, slot: int, tokens: Sequence[int]) -> None:
        """Make a slot that is in use hold `tokens`, computing only what no slot has."""
        prompt = list(tokens)
        held = self._reusable(slot, prompt)
        donor = max(range(len(self._prompts)), key=lambda s: self._overlap(s, prompt))
        copied = self._reusable(donor, prompt)
        if copied > held:
            self._inference.copy(donor, slot, copied)
            held = copied
        if held < len(prompt):
            self._inference.prefill(slot, prompt[held:], held)
        self._prompts[slot] = prompt

    def fork(self, source: int, length: int) -> int:
        """Return a slot that holds the first `length` positions of another one."""
        slot = self._free.pop()
        self._inference.copy(source, slot, length)
        self._prompts[slot] = list(self._prompts[source])
        return slot

    def free(self, slot: int) -> None:
        """Take a slot back; its prompt stays available until the slot is handed out again."""
        self._free.append(slot)

    def _overlap(self, slot: int, prompt: list[int]) -> int:
        return common_prefix(self._prompts[slot], prompt)

    def _reusable(self, slot: int, prompt: list[int]) -> int:
        """Return how many positions of a prompt can be reused from a slot.

        Rounded down to whole chunks unless all are there: a prompt can be continued at multiples of
        `prefill_chunk` only, which keeps the shapes of its products fixed.
        """
        overlap = self._overlap(slot, prompt)
        whole = overlap == len(prompt)
        return overlap if whole else overlap - overlap % self._inference.prefill_chunk


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the number of leading tokens that two sequences share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
