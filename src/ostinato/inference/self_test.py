"""Whether a row gives the same bits alone and in company, on this machine: tried, not assumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

POSITIONS = (70, 330)  # in the second piece of the cache, and past several


@dataclass(frozen=True)
class SelfTest:
    """What the test found, and a sentence that says so."""

    batch_invariant: bool
    sentence: str


class Tested(Protocol):
    """What the test needs of an `FixedShapeBackend`."""

    slots: int
    block: int
    packed: bool
    dtype: torch.dtype

    @property
    def vocab_size(self) -> int: ...
    @property
    def limit(self) -> int: ...
    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None: ...
    def copy(self, source: int, target: int, length: int) -> None: ...
    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor: ...
    def logits(self, hidden: Tensor) -> Tensor: ...


def test_rows(inference: Tested) -> SelfTest:
    """Compare rows at several positions, alone and in several companies and slots."""
    positions = [p for p in POSITIONS if p + 65 < inference.limit] or [1]
    tokens = [(7 * i + 3) % inference.vocab_size for i in range(positions[-1])]
    inference.prefill(0, tokens)
    tried = 0
    for position in positions:
        row = (0, tokens[position - 1], position)
        alone = inference.feed([row])
        expected = alone, inference.logits(alone)
        for rows, index in _companies(inference, row):
            if rows[index][0]:
                inference.copy(0, rows[index][0], position)
            hidden = inference.feed(rows)
            found = hidden[index : index + 1], inference.logits(hidden)[index : index + 1]
            tried += 1
            if not all(map(torch.equal, expected, found)):
                return SelfTest(False, _broken(inference, position, len(rows)))
    return SelfTest(True, f"The same bits alone and in company, in {tried} tries.")


test_rows.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


def _companies(
    inference: Tested, row: tuple[int, int, int]
) -> Iterator[tuple[list[tuple[int, int, int]], int]]:
    """Yield rows among which `row` is, perhaps in another slot, and its index."""
    _, token, position = row
    last = min(inference.slots, inference.block) - 1
    top = inference.limit - 1  # the last position of a model that reads little
    others = [
        (p, (token + p) % inference.vocab_size, min((3 * p) % 60, top)) for p in range(1, last + 1)
    ]
    yield [row, *others], 0
    if last:
        moved = (last, token, position)
        yield [(0, 1, min(position + 1, top)), *others[:-1], moved], last
        yield [(0, 1, min(position + 64, top)), moved], 1


def _broken(inference: Tested, position: int, rows: int) -> str:
    kind = "packed" if inference.packed else "plain"
    number = str(inference.dtype).removeprefix("torch.")
    return (
        f"A row at position {position} gave other bits among {rows} rows than alone "
        f"({number}, {kind} products in blocks of {inference.block}): results here depend on what "
        "is computed together. Take another block, or packed=False."
    )
