"""What rows may be: their places, tokens and positions, refused with a mend. Knows no tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ostinato.errors import InputError
from ostinato.models.blocks import Row


def check_places(places: Iterable[int], count: int) -> None:
    """Refuse a place that is none of the first `count`."""
    for place in places:
        if not 0 <= place < count:
            raise InputError(
                f"place must be from 0 to {count - 1}, got {place}. "
                "Build the inference with more places."
            )


def top_position(rows: Sequence[Row]) -> int:
    """Return the highest position, -1 without rows; refuse one that is negative or comes twice."""
    if len({(row.place, row.position) for row in rows}) < len(rows):
        raise InputError("a place must get one token at a position, got two. Feed them in turn.")
    positions = [row.position for row in rows]
    if min(positions, default=0) < 0:
        raise InputError(f"position must be at least 0, got {min(positions)}. Count from 0.")
    return max(positions, default=-1)


def check_start(start: int, chunk: int) -> None:
    """Refuse a prompt that begins within a chunk."""
    if start % chunk:
        raise InputError(
            f"start must be a multiple of the chunk ({chunk}), got {start}. "
            "Round it down, and give the tokens from there."
        )


def check_tokens(tokens: Sequence[int], size: int) -> None:
    """Refuse a token outside a vocabulary of `size`."""
    if tokens and not 0 <= min(tokens) <= max(tokens) < size:
        raise InputError(
            f"token must be from 0 to {size - 1}, got {min(tokens)} to {max(tokens)}. "
            "Take the tokenizer that belongs to the model."
        )


def check_length(wanted: int, limit: int, bounded: str = "") -> None:
    """Refuse a sequence that is longer than the model reads; `bounded` is a sentence on why."""
    if wanted > limit:
        raise InputError(
            f"a sequence must have at most {limit} tokens for this model, got {wanted}. Shorten it."
            f" {bounded}".rstrip()
        )
