"""JSON parsed so that numbers are what was written: decimals, never binary fractions.

Knows no schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from decimal import Decimal, InvalidOperation

DEEPEST = 128  # levels of a document; `jsonschema` recurses into each
LONGEST = 4300  # digits of a number; Python's own limit for whole numbers


class Number(Decimal):
    """A decimal number that is shown as JSON shows it. Comparisons of decimals are exact."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self).replace("E", "e")

    @property
    def is_whole(self) -> bool:
        """Whether nothing stands behind the decimal point: 3.0 is whole."""
        return bool(self == self.to_integral_value())


def parse(text: str) -> object:
    """Parse one JSON document. Raises `ValueError` for any other text, and for too deep a one.

    A key that occurs twice, NaN and Infinity are refused, also a fraction too large for a float.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_once,
            parse_constant=_no_constant,
            parse_float=_decimal,
            parse_int=_integer,
        )
    except RecursionError:
        value = None
    else:
        if _is_shallow(value):
            return value
    raise ValueError(f"it is nested more than {DEEPEST} levels deep")


def is_multiple(value: int | Decimal, of: int | Decimal) -> bool:
    """Return whether a number is a whole multiple of another, exactly."""
    (digits, power), (divisor, divisor_power) = _scaled(value), _scaled(of)
    shift = power - divisor_power
    if shift >= 0:
        return digits * pow(10, shift, divisor) % divisor == 0
    if -shift > LONGEST:  # more places than a number has digits
        return digits == 0
    return bool(digits % (divisor * 10**-shift) == 0)


def identity(value: object) -> Hashable:
    """Return a key that two JSON values share if they are equal: 1 is 1.0, and not true."""
    if isinstance(value, dict):
        return "object", frozenset((key, identity(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return "array", tuple(map(identity, value))
    kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
    return None if value is None else (kind, value)


def _scaled(number: int | Decimal) -> tuple[int, int]:
    """Return whole digits without sign and a power of ten, without zeros at the end."""
    if isinstance(number, int):
        return abs(number), 0
    _, digits, power = number.as_tuple()
    assert isinstance(power, int)  # a text stands for NaN and Infinity, which are not JSON
    text = "".join(map(str, digits))
    short = text.rstrip("0")
    return (int(short), power + len(text) - len(short)) if short else (0, 0)


def _is_shallow(value: object) -> bool:
    level = [value]
    for _ in range(DEEPEST + 1):
        holders = [part for part in level if isinstance(part, dict | list)]
        if not holders:
            return True
        level = [
            inner
            for holder in holders
            for inner in (holder.values() if isinstance(holder, dict) else holder)
        ]
    return False


def _decimal(text: str) -> Number:
    if math.isinf(float(text)):
        raise ValueError(f"{text[:20]} is Infinity for those who read it")
    try:
        if len(text) <= LONGEST:
            return Number(text)
    except InvalidOperation:  # an exponent of more than 18 digits
        pass
    raise ValueError(f"the number {text[:20]}… is too long")


def _integer(text: str) -> int:
    if len(text) > LONGEST:
        raise ValueError(f"the number {text[:20]}… has more than {LONGEST} digits")
    return int(text)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key occurs twice")
    return table


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
