"""Edits of a lane of tokens: which values they may have, and which hold at a position.

Knows no cache and no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial

from ostinato.arguments import SAMPLING_RANGES
from ostinato.decode.sampling import SHIFT, SamplingParams
from ostinato.errors import EditError
from ostinato.journal import EditKind
from ostinato.loop import Edits, Lane

TOKEN_LISTS = frozenset({"forbid", "force"})
LOGIT_SHIFTS = frozenset({"bias", "logit_bias"})
WHOLE_NUMBERS = frozenset(name for name, numbers in SAMPLING_RANGES.items() if numbers.whole)
EDIT_KINDS: dict[str, EditKind] = {
    **{spec.name: "number" for spec in fields(SamplingParams)},
    **dict.fromkeys(WHOLE_NUMBERS, "integer"),
    **dict.fromkeys(TOKEN_LISTS, "list"),
    **dict.fromkeys(LOGIT_SHIFTS, "object"),
}
"""The edits of a lane of tokens, with the type of their values."""


def check_edits(
    lane: Lane,
    process: str,
    known: frozenset[str],
    sampling: SamplingParams,
    vocab_size: int,
    prompt_edits: frozenset[str] = frozenset(),
) -> dict[str, object]:
    """Check all edits of a lane of the `process`; return those at its start for its prompt.

    Raises `EditError` for a name that is not `known`, and for a value that cannot be applied.
    """
    check = partial(_check_edit, sampling=sampling, vocab_size=vocab_size)
    lane.edits.check(f"a lane of {process}", known, check, at_start=prompt_edits)
    return lane.edits.in_force(0, prompt_edits)


def forbidden_at(lane: Lane, position: int) -> list[int]:
    """Return the tokens that edits forbid at a position."""
    return _forbidden(lane.edits.at(position))


def forced_at(lane: Lane, position: int, tokens: list[int]) -> int | None:
    """Return the token that edits force after a draft's `tokens`; None where none does.

    A sequence that the draft has left, by going back into it, is not continued. A newer edit at
    the position may forbid its token again.
    """
    for start, forced in lane.edits.covering(position, "force"):
        if tokens[start:position] == list(forced[: position - start]):
            token: int = forced[position - start]
            return None if token in _forbidden_since(lane, start, position) else token
    return None


def _forbidden_since(lane: Lane, start: int, position: int) -> list[int]:
    """Return the tokens forbidden at a position by edits that came after the `force` at a start."""
    here = lane.edits.at(position)
    if start == position:
        here = here[1 + max(n for n, edits in enumerate(here) if "force" in edits) :]
    return _forbidden(here)


def _forbidden(here: Sequence[Edits]) -> list[int]:
    return [token for edits in here for token in token_list(edits.get("forbid", ()))]


def token_list(value: object) -> list[int]:
    """Return the tokens of a checked `forbid` or `force`."""
    assert isinstance(value, list | tuple)
    return list(value)


def logit_shifts(value: object) -> dict[int, float]:
    """Return what a checked `bias` or `logit_bias` adds to logits, by token.

    JSON turns the tokens, which are keys, into texts.
    """
    assert isinstance(value, Mapping)
    return {int(str(token)): shift for token, shift in value.items()}


def _check_edit(name: str, value: object, sampling: SamplingParams, vocab_size: int) -> None:
    last = vocab_size - 1
    if name in TOKEN_LISTS:
        is_list = isinstance(value, list | tuple)
        if not is_list or not all(_is_token(token, vocab_size) for token in token_list(value)):
            raise EditError(f"{name} must be a list of tokens from 0 to {last}, got {value!r}.")
    elif name in LOGIT_SHIFTS:
        if not _are_shifts(value, vocab_size):
            raise EditError(
                f"{name} must map tokens from 0 to {last} to what is added to their logits, got "
                f"{value!r}."
            )
    else:
        # `SamplingParams` knows the ranges: what it refuses, no edit can set.
        replace(sampling, **{name: value})  # type: ignore[arg-type]


def _are_shifts(value: object, vocab_size: int) -> bool:
    if not isinstance(value, Mapping):
        return False
    try:
        shifts = logit_shifts(value)
        for token, shift in shifts.items():
            SHIFT.require(str(token), shift)
    except ValueError:
        return False
    return all(_is_token(token, vocab_size) for token in shifts)


def _is_token(value: object, vocab_size: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < vocab_size
