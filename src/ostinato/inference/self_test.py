"""Does a row give the same bits alone and beside others on this machine? Tested, not assumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import torch
from torch import Tensor

from ostinato.arguments import counted

POSITIONS = (70, 330)  # in the second piece of the padded cache, and beyond several pieces


@dataclass(frozen=True)
class SelfTest:
    """The result of a self-test, and a sentence that explains it."""

    batch_invariant: bool
    sentence: str


def stored(result: SelfTest) -> dict[str, object]:
    """Return a result as it is remembered."""
    return asdict(result)


def recalled(value: object) -> SelfTest | None:
    """Return a remembered result; None for anything else."""
    if not isinstance(value, dict):
        return None
    batch_invariant, sentence = value.get("batch_invariant"), value.get("sentence")
    if not isinstance(batch_invariant, bool) or not isinstance(sentence, str):
        return None
    return SelfTest(batch_invariant, sentence)


class _Tested(Protocol):
    """What `compare_rows` needs of a backend with blocks."""

    slots: int
    block: int
    packed: bool
    dtype: torch.dtype
    vocab_size: int
    limit: int

    def prefill(self, slot: int, tokens: Sequence[int], start: int = 0) -> None: ...
    def copy(self, source: int, target: int, length: int) -> None: ...
    def feed(self, rows: Sequence[tuple[int, int, int]]) -> Tensor: ...
    def logits(self, hidden: Tensor) -> Tensor: ...


def probe_tokens(count: int, vocab_size: int) -> list[int]:
    """Return `count` varied tokens for a self-test, the same at every call."""
    return [(7 * i + 3) % vocab_size for i in range(count)]


def compare_rows(backend: _Tested) -> SelfTest:
    """Compare rows at several positions: alone, in several batches, and in other slots."""
    # A row's companions reach 64 positions further; a shorter model is tested at position 1.
    positions = [p for p in POSITIONS if p + 65 < backend.limit] or [1]
    tokens = probe_tokens(positions[-1], backend.vocab_size)
    backend.prefill(0, tokens)
    comparisons = 0
    for position in positions:
        row = (0, tokens[position - 1], position)
        alone = backend.feed([row])
        expected = alone, backend.logits(alone)
        for rows, index in _batches(backend, row):
            if rows[index][0]:  # the row moved to another slot: so must its past
                backend.copy(0, rows[index][0], position)
            hidden = backend.feed(rows)
            found = hidden[index : index + 1], backend.logits(hidden)[index : index + 1]
            comparisons += 1
            if not all(map(torch.equal, expected, found)):
                return SelfTest(False, _failure(backend, position, len(rows)))
    return SelfTest(True, f"The same bits alone and beside other rows, in {comparisons} tries.")


def _batches(
    backend: _Tested, row: tuple[int, int, int]
) -> Iterator[tuple[list[tuple[int, int, int]], int]]:
    """Yield batches that contain `row`, perhaps in another slot, and its index."""
    _, token, position = row
    last = min(backend.slots, backend.block) - 1
    top = backend.limit - 1  # companions of a model with a short context stay within it
    others = [
        (p, (token + p) % backend.vocab_size, min((3 * p) % 60, top)) for p in range(1, last + 1)
    ]
    yield [row, *others], 0
    if last:
        moved = (last, token, position)
        yield [(0, 1, min(position + 1, top)), *others[:-1], moved], last
        # 64 positions further, the cache is read to another padded length.
        yield [(0, 1, min(position + 64, top)), moved], 1


def _failure(backend: _Tested, position: int, rows: int) -> str:
    kind = "packed" if backend.packed else "plain"
    dtype = str(backend.dtype).removeprefix("torch.")
    return (
        f"A row at position {position} gave other bits among {counted(rows, 'rows')} than alone "
        f"({dtype}, {kind} products in blocks of {backend.block}): results here depend on what "
        "is computed together. Use another block, or packed=False."
    )
