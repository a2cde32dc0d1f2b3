"""Which values the edits of a lane of tokens may have. Knows no lane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ostinato.decode.sampling import SamplingParams
from ostinato.errors import EditError, InputError

OF_TOKENS = frozenset({"forbid", "force"})
OF_SHIFTS = frozenset({"bias", "logit_bias"})
WHOLE = frozenset({"top_k", "end_within"})


def check_edit(name: str, value: object, sampling: SamplingParams, size: int) -> None:
    """Raise `EditError` for a value that cannot be; `size` is that of the vocabulary.

    `forbid` and `force` hold tokens, `bias` and `logit_bias` what is added to the logits of tokens,
    all others a setting of `SamplingParams`.
    """
    last = size - 1
    if name in OF_TOKENS:
        if not isinstance(value, list | tuple) or not all(_is_token(one, size) for one in value):
            raise EditError(f"{name} must be a list of tokens from 0 to {last}, got {value!r}.")
    elif name in OF_SHIFTS:
        if not _are_shifts(value, size):
            raise EditError(
                f"{name} must map tokens from 0 to {last} to what is added to their logits, got "
                f"{value!r}."
            )
    else:
        _check_setting(name, value, sampling)


def shifts(value: Mapping[object, float]) -> dict[int, float]:
    """Return what is added to the logits of tokens: out of JSON the tokens come as text."""
    return {int(str(token)): shift for token, shift in value.items()}


def _check_setting(name: str, value: object, sampling: SamplingParams) -> None:
    whole = name in WHOLE
    if not _is_number(value) or (whole and not isinstance(value, int)):
        kind = "whole number" if whole else "number"
        raise EditError(f"{name} must be a {kind}, got {value!r}.")
    try:
        replace(sampling, **{name: value})  # type: ignore[arg-type]
    except InputError as error:
        raise EditError(f"The edit cannot be applied: {error}") from None


def _are_shifts(value: object, size: int) -> bool:
    if not isinstance(value, Mapping) or not all(_is_number(shift) for shift in value.values()):
        return False
    try:
        return all(_is_token(token, size) for token in shifts(value))
    except ValueError:
        return False


def _is_token(value: object, size: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < size


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
