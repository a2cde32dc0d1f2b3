"""What token masks can follow of a JSON schema: the schema as llguidance reads it.

Knows no tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostinato.errors import InputError
from ostinato.schemas.ecma import ecma_pattern
from ostinato.schemas.schema import json_copy, subschemas, validator_class

_LENIENT = ("lenient", "coerce_one_of")


def mask_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema whose patterns are those of Rust's `regex`, for whole texts.

    Raises `InputError` for one that cannot be used, or that masks cannot follow. llguidance itself
    refuses the keywords that it does not know.
    """
    copied: dict[str, Any] = json_copy(schema)
    validator = validator_class(copied)
    if "divisibleBy" in validator.VALIDATORS:
        # llguidance ignores keywords that exist in draft 3 only.
        raise InputError(
            "A mask can follow a schema of draft 4 or newer, got draft 3. Change its '$schema'."
        )
    # With these, llguidance would leave out the keywords that it does not know.
    if isinstance(options := copied.get("x-guidance"), dict):
        copied["x-guidance"] = {k: v for k, v in options.items() if k not in _LENIENT}
    for part in subschemas(copied, validator):
        if isinstance(pattern := part.get("pattern"), str):
            part["pattern"] = _mask_pattern(pattern)
        if isinstance(patterns := part.get("patternProperties"), dict):
            part["patternProperties"] = {_mask_pattern(p): inner for p, inner in patterns.items()}
    return copied


def _mask_pattern(pattern: str) -> str:
    language = ecma_pattern(pattern).language
    if language is None:
        raise InputError(
            "A mask can follow a pattern that does not look around or refer back, got "
            f"{pattern!r}. Write it without (?=…), (?<=…), \\b and \\1, and '^' and '$' only at "
            "its ends."
        )
    return f"^(?:{language})$"
