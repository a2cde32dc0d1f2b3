"""Writes reports, results and events as JSON text, and reads them back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

from ostinato.errors import InputError
from ostinato.journal.artifacts.artifact import as_json
from ostinato.journal.artifacts.recorded_tensor import recorded, shortened
from ostinato.journal.fields import read_json

Entry = tuple[int, int, Mapping[str, object]]
"""A step as the driver takes it: tick, position, report."""


def to_json(value: object, stand_in: Callable[[Any], object] = recorded) -> object:
    """Return a substitute for a value that JSON does not know; the encoder calls this for each.

    `stand_in` returns that of a tensor, array or sound.
    """
    method = getattr(value, "to_json", None)
    if method is not None:
        return method()
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):  # torch, numpy or a sound; neither library need be loaded
        return stand_in(value)
    if isinstance(value, Sequence | AbstractSet) and not isinstance(value, bytes | bytearray):
        return list(value)
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def encoder(stand_in: Callable[[Any], object]) -> Callable[[object], str]:
    """Return the function that writes any value, with `stand_in` for tensors.

    What is no number, text, list or mapping is written as its type's name in <>. Not-a-number and
    infinities are written as NaN and Infinity, which Python reads back.
    """
    # The check for circles would cost a tenth; a circle ends in RecursionError without it.
    json_encoder = json.JSONEncoder(
        check_circular=False,
        separators=(",", ":"),
        default=partial(to_json, stand_in=stand_in),
    )
    encode_plain = json_encoder.encode

    def encode(value: object) -> str:
        try:
            return encode_plain(value)
        except TypeError:  # a key that is no text and no number
            return encode_plain(_with_text_keys(value))
        except RecursionError:
            raise InputError("A report must not hold itself, got a value without end.") from None

    return encode


_encode_whole = encoder(recorded)
_encode_references = encoder(as_json)


def encode(value: object) -> str:
    """Write any value outside a journal; in one, larger tensors are artifacts."""
    return _encode_whole(value)


def _with_text_keys(value: object) -> object:
    if hasattr(value, "to_json") and not isinstance(value, type):
        return _with_text_keys(to_json(value))
    if isinstance(value, Mapping):
        return {_key(key): _with_text_keys(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_keys(each) for each in value]
    return value


def _key(key: object) -> object:
    return key if isinstance(key, str | int | float) else str(key)


_encode_json = json.JSONEncoder(separators=(",", ":")).encode


def encode_exactly(
    value: object,
    what: str,
    stand_in: Callable[[Any], object] = lambda value: value.tolist(),
) -> str:
    """Write a value that must come back as it is; tensors and arrays by default as lists.

    Raises `InputError` where JSON cannot hold it.
    """

    def substitute(value: object) -> object:
        method = getattr(value, "to_json", None)
        if method is not None:
            return method()
        if hasattr(value, "tolist"):
            return stand_in(value)
        raise TypeError(f"a {type(value).__qualname__}")

    try:
        return _encode_json(value)  # an encoder that is made already: most values need no other
    except (TypeError, ValueError):
        pass
    try:
        return json.dumps(value, separators=(",", ":"), default=substitute)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{what} must be made of numbers, text, lists and mappings, got: {error}."
        ) from None


def decode(text: str) -> Any:
    """Read back what `encode` wrote. Raises `RunError` for what it did not write."""
    return read_json(text)


def valid(value: object) -> object:
    """Return a value without NaN and infinities (as text instead), for JSON that others read."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: valid(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [valid(each) for each in value]
    return value


def is_clock(name: str) -> bool:
    """Whether a metric measures time, which no repetition reproduces."""
    return name == "seconds" or name.startswith("time/") or name.endswith(("_seconds", "_per_s"))


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Return the top-level names under which two reports differ, clocks excepted."""
    names = [name for name in {**old, **new} if not is_clock(name)]
    return [
        name
        for name in names
        if (name in old) != (name in new) or not _same(old.get(name), new.get(name))
    ]


def _same(old: object, new: object) -> bool:
    before = encode(old)
    if before == _encode_references(new):
        return True
    # Journals up to schema 4: in steps the bytes or the shape of a large tensor, in results lists.
    now = encode(new)
    return before in (now, encode(shortened(decode(now))), _with_lists(new))


def _with_lists(value: object) -> str:
    return encoder(lambda tensor: tensor.tolist())(value)
