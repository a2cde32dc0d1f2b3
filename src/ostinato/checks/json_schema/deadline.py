"""JSON schemas validated under a deadline, which `jsonschema` itself does not have.

Patterns are matched by `regex`, which has a timeout; `re` holds the interpreter until it is done.
Knows no check.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import regex

from ostinato.checks.deadline import left

Keyword = Callable[[Any, Any, Any, Any], Iterable[Any] | None]
"""A keyword's function in `jsonschema`: validator, keyword's value, instance, schema."""

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def keywords(schema: object) -> set[str]:
    """Return every key anywhere in the schema."""
    if isinstance(schema, Mapping):
        return set(schema).union(*map(keywords, schema.values()))
    if isinstance(schema, list | tuple):
        return set().union(*map(keywords, schema))
    return set()


@lru_cache(maxsize=16)
def clocked(validator: type) -> type:
    """Return a validator class whose patterns and references obey `checks.deadline`.

    Through references a schema can recurse without end. `unevaluatedProperties` beside
    `patternProperties` is not covered, as it matches the patterns with `re` itself: `JsonSchema`
    refuses such a schema.
    """
    from jsonschema.validators import extend

    known: Mapping[str, Keyword] = validator.VALIDATORS  # type: ignore[attr-defined]
    ours: dict[str, Keyword] = {"pattern": _pattern, "patternProperties": _pattern_properties}
    ours["additionalProperties"] = _without_matched(known["additionalProperties"])
    ours |= {name: _timed(known[name]) for name in REFERENCES if name in known}
    extended: type = extend(validator, ours)  # type: ignore[no-untyped-call]
    return extended


def _found(pattern: str, text: str) -> bool:
    seconds = left(math.inf)
    timeout = None if seconds == math.inf else seconds
    return regex.search(pattern, text, timeout=timeout) is not None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if validator.is_type(instance, "string") and not _found(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any
) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, inner in patterns.items():
        for key, value in instance.items():
            if _found(pattern, key):
                yield from validator.descend(value, inner, path=key, schema_path=pattern)


def _without_matched(keyword: Keyword) -> Keyword:
    """Return `additionalProperties` without the keys that a pattern matches.

    The original would match the patterns itself, with `re`.
    """

    def additional(validator: Any, value: Any, instance: Any, schema: Any) -> Iterable[Any] | None:
        patterns = schema.get("patternProperties")
        if not patterns or not validator.is_type(instance, "object"):
            return keyword(validator, value, instance, schema)
        rest = {
            key: member
            for key, member in instance.items()
            if not any(_found(pattern, key) for pattern in patterns)
        }
        plain = {name: part for name, part in schema.items() if name != "patternProperties"}
        return keyword(validator, value, rest, plain)

    return additional


def _timed(keyword: Keyword) -> Keyword:
    def timed(validator: Any, value: Any, instance: Any, schema: Any) -> Iterable[Any] | None:
        left(math.inf)  # raises where no time is left
        return keyword(validator, value, instance, schema)

    return timed
