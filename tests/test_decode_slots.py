"""Which slot a prompt gets: what is computed is continued, and conversations keep their own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ostinato.decode.slots import SlotAllocator


class Counting:
    """A backend that holds tokens instead of computing them, and counts those that it computes."""

    def __init__(self, slots: int, prefill_chunk: int = 1) -> None:
        self.prefill_chunk = prefill_chunk
        self.held: list[list[int]] = [[] for _ in range(slots)]
        self.computed = 0

    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None:
        assert start % self.prefill_chunk == 0 and start <= len(self.held[slot])
        self.held[slot][start:] = tokens
        self.computed += len(tokens)

    def copy(self, source: int, target: int, length: int) -> None:
        self.held[target] = self.held[source][:length]


def allocator(slots: int, prefill_chunk: int = 1) -> tuple[SlotAllocator, Counting]:
    backend: Any = Counting(slots, prefill_chunk)
    return SlotAllocator(backend, slots), backend


def turn(slots: SlotAllocator, backend: Counting, prompt: Sequence[int]) -> int:
    """Take a slot for a prompt and free it; return how many tokens were computed."""
    before = backend.computed
    slot = slots.take(prompt)
    assert backend.held[slot][: len(prompt)] == list(prompt)
    slots.free(slot)
    return backend.computed - before


def test_the_turns_of_conversations_compute_only_what_is_new() -> None:
    for count, chunk in ((2, 1), (4, 1), (4, 8)):
        slots, backend = allocator(4, chunk)
        talks = [[1, 2, 3] for _ in range(count)]  # they begin alike
        for number in range(12):
            for name, talk in enumerate(talks):
                before = len(talk)
                talk += [100 + name, *range(number * 10, number * 10 + 9)]
                new = turn(slots, backend, talk)
                if number:
                    assert new <= len(talk) - before + chunk - 1


def test_a_prompt_that_is_continued_elsewhere_is_copied() -> None:
    slots, backend = allocator(3)
    assert turn(slots, backend, [1, 2, 3, 4]) == 4
    assert turn(slots, backend, [1, 2, 9]) == 1  # its first two are copied
    assert turn(slots, backend, [1, 2, 3, 4, 5]) == 1  # the first one is still there
    assert turn(slots, backend, [1, 2, 3]) == 0


def test_what_has_been_free_for_longest_goes_first() -> None:
    slots, backend = allocator(3)
    for name in (1, 2, 3):
        turn(slots, backend, [name] * 5)
    assert turn(slots, backend, [1] * 6) == 1
    assert turn(slots, backend, [4] * 5) == 5  # takes the place of 2
    assert turn(slots, backend, [3] * 6) == 1
    assert turn(slots, backend, [1] * 7) == 1
    assert turn(slots, backend, [2] * 5) == 5


def test_slots_hold_what_they_are_taken_for() -> None:
    rng = random.Random(3)
    for chunk in (1, 4):
        slots, backend = allocator(4, chunk)
        taken: list[int] = []
        for _ in range(500):
            if taken and (len(taken) == 4 or rng.random() < 0.5):
                slots.free(taken.pop(rng.randrange(len(taken))))
                continue
            prompt = [rng.randint(0, 2) for _ in range(rng.randint(0, 20))]
            slot = slots.take(prompt)
            assert slot not in taken and backend.held[slot][: len(prompt)] == prompt
            taken.append(slot)
