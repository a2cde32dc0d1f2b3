"""Validators of `jsonschema` with exact numbers, patterns of ECMA-262, and a deadline.

Patterns are matched by `regex`, which has a timeout; `re` holds the interpreter until it is done.
Knows no check.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any

from ostinato.checks.deadline import left
from ostinato.checks.json_schema.numbers import Number, identity, is_multiple
from ostinato.schemas import ecma_pattern, json_copy, offline_references, validator_class

Keyword = Callable[[Any, Any, Any, Any], Iterable[Any] | None]
"""A keyword's function in `jsonschema`: validator, keyword's value, instance, schema."""

SHOWN = 20  # choices of an enum in a message


def validator_of(schema: Mapping[str, Any]) -> Any:
    """Return the validator of a schema that was checked before."""
    extended = _extended(validator_class(schema))
    return extended(_exact(json_copy(schema)), registry=offline_references())


class _Choices(list[Any]):
    """The values of an `enum`, found by what they equal."""

    @cached_property
    def identities(self) -> frozenset[Hashable]:
        return frozenset(map(identity, self))


def _exact(value: Any) -> Any:
    """Return a copied schema with decimals for its fractions."""
    if isinstance(value, dict):
        return {key: _choices(key, _exact(inner)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_exact(inner) for inner in value]
    return Number(repr(value)) if isinstance(value, float) else value


def _choices(key: str, value: Any) -> Any:
    return _Choices(value) if key == "enum" and isinstance(value, list) else value


@lru_cache(maxsize=16)
def _extended(validator: Any) -> Any:
    """Return a class of `jsonschema` whose keywords are ours where its own do not fit."""
    from jsonschema.validators import extend

    known: Mapping[str, Keyword] = validator.VALIDATORS
    ours: dict[str, Keyword] = {
        "additionalProperties": _without_matched(known["additionalProperties"]),
        "divisibleBy": _multiple_of,
        "enum": _enum,
        "multipleOf": _multiple_of,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "unevaluatedProperties": _unevaluated_properties,
        "uniqueItems": _unique_items,
    }
    types = validator.TYPE_CHECKER
    if types.is_type(1.0, "integer"):  # from draft 6 on
        types = types.redefine("integer", _is_integer)
    extended: Any = extend(  # type: ignore[no-untyped-call]
        validator, {name: ours[name] for name in ours if name in known}, type_checker=types
    )
    fields = [(field.name, field.alias) for field in extended.__attrs_attrs__ if field.init]

    def evolve(self: Any, **changes: Any) -> Any:
        # The original takes its own classes, without all this, wherever a part names its dialect.
        left(math.inf)  # raises where no time is left: through references schemas can recurse
        kept = {alias: getattr(self, name) for name, alias in fields if alias not in changes}
        return extended(**changes, **kept)

    extended.evolve = evolve
    return extended


def _is_integer(_: Any, value: object) -> bool:
    if isinstance(value, Number):
        return value.is_whole
    return isinstance(value, int) and not isinstance(value, bool)


def _found(pattern: str, text: str) -> bool:
    seconds = left(math.inf)
    timeout = None if seconds == math.inf else seconds
    return ecma_pattern(pattern).compiled.search(text, timeout=timeout) is not None


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


def _multiple_of(validator: Any, of: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if validator.is_type(instance, "number") and not is_multiple(instance, of):
        yield ValidationError(f"{instance!r} is not a multiple of {of!r}")


def _enum(validator: Any, choices: list[Any], instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if not isinstance(choices, _Choices):  # of a dialect's own schema
        choices = _Choices(choices)
    if identity(instance) not in choices.identities:
        more = len(choices) - SHOWN
        shown = ", ".join(map(repr, choices[:SHOWN])) + (f" and {more} more" if more > 0 else "")
        yield ValidationError(f"{instance!r} is not one of [{shown}]")


def _unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if not wanted or not validator.is_type(instance, "array"):
        return
    # The original compares each with each where they cannot be sorted, without a time limit.
    if len(set(map(identity, instance))) < len(instance):
        yield ValidationError(f"{instance!r} has non-unique elements")


def _unevaluated_properties(
    validator: Any, inner: Any, instance: Any, schema: Any
) -> Iterator[Any]:
    from jsonschema import ValidationError

    if not validator.is_type(instance, "object"):
        return
    evaluated = _evaluated(validator, instance, schema)
    wrong = [
        key
        for key, value in instance.items()
        if key not in evaluated and not _is_valid(validator, value, inner)
    ]
    if wrong:
        names = ", ".join(map(repr, sorted(wrong)))
        yield ValidationError(f"Unevaluated properties are not allowed: {names}")


def _evaluated(validator: Any, instance: Mapping[str, Any], schema: Any) -> set[str]:
    """Return the keys of an object that keywords of the schema, or of parts of it, judge."""
    if not isinstance(schema, dict):
        return set()
    keys = {key for key in schema.get("properties", {}) if key in instance}
    for pattern in schema.get("patternProperties", {}):
        keys |= {key for key in instance if _found(pattern, key)}
    for keyword in ("additionalProperties", "unevaluatedProperties"):
        if keyword in schema:
            inner = schema[keyword]
            keys |= {k for k, value in instance.items() if _is_valid(validator, value, inner)}
    for part, resolver in _parts_of(validator, instance, schema):
        evolved = validator.evolve(schema=part, _resolver=resolver)
        keys |= _evaluated(evolved, instance, part)
    return keys


def _parts_of(validator: Any, instance: Any, schema: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the schemas in a schema that judge the same object and accept it."""
    from referencing.jsonschema import lookup_recursive_ref

    here = validator._resolver
    for key in ("$ref", "$dynamicRef"):
        if key in schema and key in validator.VALIDATORS:
            resolved = here.lookup(schema[key])
            yield resolved.contents, resolved.resolver
    if "$recursiveRef" in schema and "$recursiveRef" in validator.VALIDATORS:
        resolved = lookup_recursive_ref(here)
        yield resolved.contents, resolved.resolver
    dependent = schema.get("dependentSchemas", {})
    parts = [inner for key, inner in dependent.items() if key in instance]
    for keyword in ("allOf", "oneOf", "anyOf"):
        parts += [p for p in schema.get(keyword, []) if _is_valid(validator, instance, p)]
    if "if" in schema:
        holds = _is_valid(validator, instance, schema["if"])
        parts += [schema["if"], schema.get("then", True)] if holds else [schema.get("else", True)]
    yield from ((part, here) for part in parts)


def _is_valid(validator: Any, value: Any, schema: Any) -> bool:
    return next(iter(validator.descend(value, schema)), None) is None
