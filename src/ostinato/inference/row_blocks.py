"""How rows are arranged in blocks of one size. Knows no tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass
class Counts:
    """Rows that went through the network, padding excluded."""

    prompt: int = 0
    generated: int = 0


class TokenRow(NamedTuple):
    """A token to compute, at `position` of the sequence in `slot`."""

    slot: int
    token: int
    position: int


def by_slot(rows: Sequence[tuple[int, int, int]]) -> list[int]:
    """Return the indices of rows (slot, token, position), sorted by slot and position."""
    return sorted(range(len(rows)), key=lambda i: (rows[i][0], rows[i][2]))


def blocks(rows: list[TokenRow], block: int) -> Iterator[tuple[list[int], list[int], int | None]]:
    """Cut sorted rows into blocks: (indices of rows, their lines, first slot or None).

    With a first slot, line n of the block reads slot `first + n` of the cache in place. With None,
    the caches of the rows are gathered, which copies them.
    """
    windows = list(_windows(rows, block))
    fewest = -(-len(rows) // block)
    repeated = len({row.slot for row in rows}) < len(rows)
    # Reading in place saves the copies, so it is preferred unless it needs more blocks. A slot that
    # occurs twice has two lines, which consecutive slots cannot express.
    if not repeated and len(windows) <= fewest:
        for members in windows:
            first = rows[members[0]].slot
            yield members, [rows[m].slot - first for m in members], first
        return
    for start in range(0, len(rows), block):
        members = list(range(start, min(start + block, len(rows))))
        yield members, list(range(len(members))), None


def _windows(rows: list[TokenRow], block: int) -> Iterator[list[int]]:
    """Cut sorted rows wherever the next slot is `block` or more past the first."""
    members: list[int] = []
    for i, row in enumerate(rows):
        if members and row.slot - rows[members[0]].slot >= block:
            yield members
            members = []
        members.append(i)
    if members:
        yield members
