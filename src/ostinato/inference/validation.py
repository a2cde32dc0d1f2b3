"""Checks of rows: their slots, tokens and positions. Every refusal names the fix. Knows no tensors.

These run at every step, so each is one comparison and builds its message on failure only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ostinato.arguments import counted
from ostinato.errors import InputError
from ostinato.inference.row_blocks import TokenRow


def check_slots(slots: Iterable[int], count: int) -> None:
    """Refuse a slot outside 0 to `count - 1`."""
    for slot in slots:
        if not 0 <= slot < count:
            raise InputError(
                f"slot must be from 0 to {count - 1}, got {slot}. Open the backend with more slots."
            )


def top_position(rows: Sequence[TokenRow]) -> int:
    """Return the highest position, -1 without rows; refuse negative and repeated ones."""
    if len({(row.slot, row.position) for row in rows}) < len(rows):
        raise InputError("a slot must get one token per position, got two. Feed them in turn.")
    positions = [row.position for row in rows]
    if min(positions, default=0) < 0:
        raise InputError(f"position must be 0 or more, got {min(positions)}. Count from 0.")
    return max(positions, default=-1)


def check_start(start: int, chunk: int) -> None:
    """Refuse a prompt that starts within a chunk."""
    if start % chunk:
        raise InputError(
            f"start must be a multiple of the chunk ({chunk}), got {start}. "
            "Round it down, and pass the tokens from there."
        )


def check_tokens(tokens: Sequence[int], vocab_size: int) -> None:
    """Refuse a token outside 0 to `vocab_size - 1`."""
    if tokens and not 0 <= min(tokens) <= max(tokens) < vocab_size:
        raise InputError(
            f"token must be from 0 to {vocab_size - 1}, got {min(tokens)} to {max(tokens)}. "
            "Use the tokenizer that belongs to the model."
        )


def check_length(length: int, limit: int, reason: str = "") -> None:
    """Refuse a sequence longer than `limit` tokens; `reason` is a sentence on that limit."""
    if length > limit:
        raise InputError(
            f"a sequence must have at most {counted(limit, 'tokens')} for this model, got "
            f"{length}. Shorten it."
            f" {reason}".rstrip()
        )


def check_held(length: int, held: int) -> None:
    """Refuse to continue at `length` a slot that holds only `held` positions."""
    if not 0 <= length <= held:
        raise InputError(
            f"position must be from 0 to {held}, which the slot holds, got {length}. "
            "Compute the positions before it first."
        )
