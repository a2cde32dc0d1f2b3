"""Refuses a JSON schema that cannot be used, before any work: what is wrong, and where.

Checks the values it holds, its depth, its dialect, its metaschema, its references and its patterns.
Nothing is ever fetched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from ostinato.arguments import did_you_mean
from ostinato.errors import InputError
from ostinato.schemas.ecma import ecma_pattern

DEEPEST = 64  # levels of a schema; `jsonschema` recurses into each

# Where a schema holds other schemas: as a value, in a list, or in a table.
_VALUES = (
    *("additionalItems", "additionalProperties", "contains", "contentSchema", "else", "extends"),
    *("if", "items", "not", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
)
_LISTS = ("allOf", "anyOf", "disallow", "extends", "items", "oneOf", "prefixItems", "type")
_TABLES = (
    *("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties"),
    "properties",
)
# Those that judge the same value again: a circle of them never ends.
_SAME_VALUE = (
    *("allOf", "anyOf", "dependencies", "dependentSchemas", "disallow", "else", "extends", "if"),
    *("not", "oneOf", "then", "type"),
)
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_WITHOUT_FUNCTION = ("$defs", "contentSchema", "definitions", "else", "then")
_HOME = "json-schema.org/"


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise `InputError` for a schema that cannot be used, which says where it is wrong."""
    from jsonschema.exceptions import SchemaError

    copied: dict[str, Any] = json_copy(schema)
    validator = validator_class(copied)
    try:
        # Without its format checker: it would have patterns in Python's dialect.
        validator.check_schema(copied, format_checker=None)
    except SchemaError as error:
        raise InputError(
            f"It must be a JSON schema, got {error.instance!r}{_at(error.absolute_path)}: "
            f"{error.message}. Fix it there."
        ) from error
    subschemas(copied, validator)


def validator_class(schema: Mapping[str, Any]) -> Any:
    """Return the class of `jsonschema` for the schema's dialect, by default the newest."""
    from jsonschema.validators import Draft202012Validator, validator_for

    named = schema.get("$schema", "")
    if not isinstance(named, str):
        raise InputError(f"'$schema' must be a text, got {named!r}. Leave it out.")
    found = validator_for(schema, default=Draft202012Validator)
    home = named.split("://")[-1].strip("#").startswith(_HOME)
    if found is Draft202012Validator and home and not _is_newest(named):
        raise InputError(
            f"'$schema' must be a dialect of JSON Schema, got {named!r}. Write for example "
            "'https://json-schema.org/draft/2020-12/schema'."
        )
    return found


def _is_newest(named: str) -> bool:
    return named.split("://")[-1].strip("#") in (f"{_HOME}draft/2020-12/schema", f"{_HOME}schema")


def json_copy(schema: Any) -> Any:
    """Return a schema as JSON holds it. Raises `InputError` for its depth, or for other values."""
    deep = max(depth for depth, _ in nested(schema))
    if deep > DEEPEST:
        raise InputError(
            f"A schema must be nested at most {DEEPEST} levels deep, got {deep}. Name its inner "
            "parts under '$defs', and refer to them."
        )
    return _copied(schema)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(inner) for inner in value]
    if not (value is None or isinstance(value, bool | int | float | str)):
        raise InputError(
            f"A schema must hold what JSON can hold, got {type(value).__name__}: {value}. Write it "
            "as a text."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"A schema must hold finite numbers, got {value}. Write a smaller one.")
    return value


def nested(value: Any) -> Iterator[tuple[int, Any]]:
    """Yield a value and everything in it with its level. Not recursive, so no depth breaks it."""
    rest = [(0, value)]
    while rest:
        depth, part = rest.pop()
        yield depth, part
        if isinstance(part, Mapping):
            rest += [(depth + 1, inner) for inner in part.values()]
        elif isinstance(part, list | tuple):
            rest += [(depth + 1, inner) for inner in part]


# References ---------------------------------------------------------------------------------------


def offline_references() -> Any:
    """Return what references may lead to beside the schema itself: the dialects' own schemas."""
    from jsonschema_specifications import REGISTRY

    return REGISTRY


class _Place(NamedTuple):
    """A schema in a schema: its keys from the root, and what its references are relative to."""

    path: tuple[str, ...]
    schema: dict[str, Any]
    resolver: Any


def subschemas(root: dict[str, Any], validator: Any) -> list[dict[str, Any]]:
    """Return every schema in a copied schema, itself and those referred to among them.

    Raises `InputError` for a reference that leads nowhere or in a circle, for another dialect
    inside, and for a pattern that is none.
    """
    return _Reader(root, validator).read()


class _Reader:
    """Goes through a schema once, along its keywords and its references."""

    def __init__(self, root: dict[str, Any], validator: Any) -> None:
        from referencing.jsonschema import specification_with

        self.root, self.validator = root, validator
        dialect = validator.ID_OF(validator.META_SCHEMA)
        self.specification = specification_with(dialect)
        self.ref_is_alone = "/draft-0" in dialect  # older drafts ignore what is beside a $ref
        self.known = {*validator.VALIDATORS, *_WITHOUT_FUNCTION}
        self.found: dict[int, _Place] = {}
        self.same_value: dict[int, list[int]] = {}  # from a schema to those that judge its value

    def read(self) -> list[dict[str, Any]]:
        resource = self.specification.create_resource(self.root)
        rest = [_Place((), self.root, offline_references().resolver_with_root(resource))]
        referring: list[_Place] = []
        while rest or referring:
            if not rest:  # last, as only references find what stands under no keyword
                rest = list(self._referred(referring.pop()))
                continue
            place = rest.pop()
            if id(place.schema) in self.found:
                continue
            self.found[id(place.schema)] = place
            self._check(place)
            rest += self._inner(place)
            if not place.schema.keys().isdisjoint(REFERENCES):
                referring.append(place)
        self._refuse_circles()
        return [place.schema for place in self.found.values()]

    def _check(self, place: _Place) -> None:
        if "$schema" in place.schema and validator_class(place.schema) is not self.validator:
            raise _wrong(place, "$schema", "the dialect of the whole schema", "Remove it.")
        patterns = place.schema.get("patternProperties")
        for pattern in patterns if isinstance(patterns, dict) else ():
            _check_pattern((*place.path, "patternProperties", pattern), pattern)
        if isinstance(pattern := place.schema.get("pattern"), str):
            _check_pattern((*place.path, "pattern"), pattern)

    def _inner(self, place: _Place) -> Iterator[_Place]:
        alone = self.ref_is_alone and "$ref" in place.schema
        for keys, schema in _parts(place.schema):
            if not isinstance(schema, dict) or keys[0] not in self.known:
                continue
            try:
                resource = self.specification.create_resource(schema)
                resolver = place.resolver.in_subresource(resource)
            except ValueError as error:  # its $id is no address
                raise _wrong(place, keys[0], "a schema", f"{error}.") from error
            if keys[0] in _SAME_VALUE and not alone:
                self._connect(place.schema, schema)
            yield _Place((*place.path, *keys), schema, resolver)

    def _referred(self, place: _Place) -> Iterator[_Place]:
        """Yield what a schema refers to, where it was not found yet."""
        for key in REFERENCES:
            if key not in place.schema or key not in self.validator.VALIDATORS:
                continue
            resolved = self._lookup(place, key)
            target = resolved.contents
            if isinstance(target, dict):
                self._connect(place.schema, target)
                if id(target) not in self.found:
                    self._check_unknown(place, key, target)
                    yield _Place((*place.path, key), target, resolved.resolver)
            elif not isinstance(target, bool):
                raise _wrong(place, key, "a reference to a schema", "Fix it.")

    def _lookup(self, place: _Place, key: str) -> Any:
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import lookup_recursive_ref

        ref = place.schema[key]
        if not isinstance(ref, str):
            raise _wrong(place, key, "a text", "Fix it.")
        try:
            if key == "$recursiveRef":
                return lookup_recursive_ref(place.resolver)
            return place.resolver.lookup(ref)
        except (Unresolvable, ValueError, TypeError, LookupError, AttributeError):
            mend = "Nothing is fetched: copy what it refers to under '$defs'."
            if ref.startswith("#"):
                names = [n for table in ("$defs", "definitions") for n in self.root.get(table, {})]
                mend = did_you_mean(ref.rpartition("/")[2], names).strip() or "Fix it there."
            raise _wrong(place, key, "a reference to a part of the schema", mend) from None

    def _check_unknown(self, place: _Place, key: str, target: dict[str, Any]) -> None:
        """Check a part that stands under no keyword, which the metaschema has not seen."""
        from jsonschema.exceptions import SchemaError

        try:
            self.validator.check_schema(target, format_checker=None)
        except SchemaError as error:
            raise _wrong(place, key, "a reference to a schema", f"{error.message}.") from error

    def _connect(self, schema: dict[str, Any], target: dict[str, Any]) -> None:
        self.same_value.setdefault(id(schema), []).append(id(target))

    def _refuse_circles(self) -> None:
        try:
            TopologicalSorter(self.same_value).prepare()
        except CycleError as error:
            circle = [self.found[number] for number in error.args[1]]
            place = next(p for p in circle if not p.schema.keys().isdisjoint(REFERENCES))
            key = next(key for key in REFERENCES if key in place.schema)
            mend = "Refer to it from inside a property or an item."
            raise _wrong(
                place, key, "a reference that does not lead back to itself", mend
            ) from None


def _check_pattern(keys: tuple[str, ...], pattern: str) -> None:
    try:
        ecma_pattern(pattern)
    except InputError as error:
        raise InputError(
            f"{error} It is{_at(keys[:-1] if keys[-1] == pattern else keys)}."
        ) from error


def _parts(schema: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what stands directly inside a schema where schemas stand, with its keys."""
    for key, value in schema.items():
        if isinstance(value, dict) and key in _TABLES:
            yield from (((key, name), inner) for name, inner in value.items())
        elif isinstance(value, list) and key in _LISTS:
            yield from (((key, str(number)), inner) for number, inner in enumerate(value))
        elif key in _VALUES:
            yield (key,), value


def _at(keys: Iterable[object]) -> str:
    path = ".".join(map(str, keys))
    return f" at {path}" if path else ""


def _wrong(place: _Place, key: str, expected: str, mend: str) -> InputError:
    where = ".".join((*place.path, key))
    got = place.schema[key]
    return InputError(f"'{where}' of the schema must be {expected}, got {got!r}. {mend}")
