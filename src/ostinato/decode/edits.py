"""Edits of a lane of tokens: which values they may have, and which hold at a position.

Knows no cache and no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from ostinato.arguments import SAMPLING_RANGES, did_you_mean
from ostinato.decode.sampling import SHIFT, SamplingParams
from ostinato.errors import EditError, InputError
from ostinato.journal import EditKind
from ostinato.loop import Lane

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
    for_prompt: dict[str, object] = {}
    for position, edits in lane.edits:
        for name, value in edits.items():
            if name in prompt_edits and position == 0:
                for_prompt[name] = value
            elif name in known:
                _check_edit(name, value, sampling, vocab_size)
            else:
                names = sorted(known | prompt_edits)
                raise EditError(
                    f"Unknown edit {name!r} of a lane of {process}. Known: {', '.join(names)}."
                    f"{did_you_mean(name, names)}"
                )
    return for_prompt


def forbidden_at(lane: Lane, position: int) -> list[int]:
    """Return the tokens that edits forbid at a position."""
    edits_here = [edits for at, edits in lane.edits if at == position]
    return [token for edits in edits_here for token in token_list(edits.get("forbid", ()))]


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
        _check_setting(name, value, sampling)


def _check_setting(name: str, value: object, sampling: SamplingParams) -> None:
    try:
        # `SamplingParams` knows the ranges: what it refuses, no edit can set.
        replace(sampling, **{name: value})  # type: ignore[arg-type]
    except InputError as error:
        raise EditError(f"The edit cannot be applied: {error}") from None


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
