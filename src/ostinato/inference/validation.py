"""What rows may be: their slots, tokens and positions, refused with a mend. Knows no tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ostinato.errors import InputError
from ostinato.inference.row_blocks import TokenRow


def check_slots(slots: Iterable[int], count: int) -> None:
    """Refuse a slot that is none of the first `count`."""
    for slot in slots:
        if not 0 <= slot < count:
            raise InputError(
                f"slot must be from 0 to {count - 1}, got {slot}. "
                "Build the inference with more slots."
            )


def top_position(rows: Sequence[TokenRow]) -> int:
    """Return the highest position, -1 without rows; refuse one that is negative or comes twice."""
    if len({(row.slot, row.position) for row in rows}) < len(rows):
        raise InputError("a slot must get one token at a position, got two. Feed them in turn.")
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
