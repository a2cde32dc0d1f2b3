"""The whole output is JSON, and valid under a schema (the `jsonschema` library)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

from ostinato.arguments import counted
from ostinato.checks.base import POSSIBLE, BaseCheck, impossible
from ostinato.checks.constraint_spec import ConstraintSpec
from ostinato.checks.deadline import is_over, within
from ostinato.checks.json_schema.numbers import parse
from ostinato.checks.json_schema.prefix import JsonMember, Reading, open_string, read
from ostinato.checks.json_schema.validator import validator_of
from ostinato.checks.patterns import JUDGE_SECONDS, PREFIX_SECONDS
from ostinato.errors import InputError
from ostinato.loop import Item, PrefixVerdict, Span, Verdict
from ostinato.schemas import check_schema, json_copy
from ostinato.text_files import parse_json, read_object

LONGEST = 1 << 15  # characters of an item's own schema; all lanes wait while it is compiled
_OPENERS = {
    "object": "{",
    "array": "[",
    "string": '"',
    "number": "-0123456789",
    "integer": "-0123456789",
    "boolean": "tf",
    "null": "n",
}


@dataclass(frozen=True, kw_only=True)
class JsonSchema(BaseCheck):
    """The whole text is one JSON document, valid under the schema (`{}` allows any).

    `schema` holds for all items. `column` names the column with each item's own: an object, or its
    JSON as a text. Duplicate keys, NaN and Infinity are refused. Numbers are the decimals that were
    written; patterns are those of ECMA-262; `format` is no demand.
    """

    kind: ClassVar[str] = "json_schema"

    schema: Mapping[str, Any] | None = field(default=None, hash=False)
    column: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.schema is None) != bool(self.column):
            raise self.refuse(
                "schema", "given, or 'column'", self.schema, "Give exactly one of them."
            )
        if self.schema is not None:
            with self.about("schema"):
                check_schema(self.schema)

    @property
    def columns(self) -> tuple[str, ...]:
        """The column that holds an item's schema."""
        return (self.column,) if self.column else ()

    def check_item(self, item: Item) -> None:
        """Raise `InputError` where the item's column holds no schema."""
        if self.column:
            self._of(item)

    def judge(self, output: object, item: Item) -> Verdict:
        """Parse and validate; the span is where the text departs from JSON, or a wrong member.

        Raises `InputError` where the item's column holds no schema.
        """
        if self.column:
            return self._of(item).judge(output, item)
        text = self.text(output)
        try:
            value = parse(text)
        except ValueError as error:
            wrong = read(text).wrong
            span = None if wrong is None else Span(wrong, len(text))
            return self.verdict(
                False, f"Write one JSON document, nothing else: {error}.", span=span
            )
        try:
            with within(JUDGE_SECONDS):
                invalid = next(iter(self._validator.iter_errors(value)), None)
        except TimeoutError:
            if is_over():  # the time of all checks together
                raise
            return self.verdict(
                False,
                "Write simpler JSON: it was not validated within "
                f"{counted(JUDGE_SECONDS, 'seconds', 'g')} "
                "(nested repetitions such as (a+)+ in a pattern?).",
            )
        except RecursionError:
            return self.verdict(False, "Write JSON that is nested less deeply.")
        if invalid is None:
            return self.verdict(True)
        return self.verdict(False, _fix(invalid), span=self._span(read(text), invalid, text))

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible where no JSON starts like this, or a member breaks the schema.

        A member is checked once it is complete. A key, the length of a text and its choices are
        checked while they are written.
        """
        if self.column:
            own = self._of_if_any(item)
            return POSSIBLE if own is None else own.check_prefix(output, item)
        text = self.text(output)
        reading = read(text)
        if reading.wrong is not None:
            return impossible("Write JSON, nothing else.", reading.wrong, len(text))
        if reading.start is None:
            return POSSIBLE
        if not self._may_open(text[reading.start]):
            message = f"Write JSON of the type {self._own['type']}."
            return impossible(message, reading.start, len(text))
        return self._check_members(reading, text)

    def constraint_specs(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the schema; none where the item's column holds no schema."""
        own = self._of_if_any(item) if self.column else self
        if own is None:
            return ()
        return (ConstraintSpec("json_schema", json.dumps(own.schema, ensure_ascii=False)),)

    @property
    def _own(self) -> Mapping[str, Any]:
        return self.schema or {}

    def _of(self, item: Item) -> JsonSchema:
        """Return the check of an item's own schema. Raises `InputError` where it is none."""
        value = item.get(self.column)
        try:
            if not isinstance(value, str):
                value = json.dumps(json_copy(value), ensure_ascii=False)
            return _of_item(self.name, value)
        except InputError as error:
            raise InputError(f"The column '{self.column}': {error}") from None

    def _of_if_any(self, item: Item) -> JsonSchema | None:
        try:
            return self._of(item)
        except InputError:  # `judge` will raise it for the whole text
            return None

    def _may_open(self, char: str) -> bool:
        types = self._own.get("type")
        if types is None or "$ref" in self._own:  # older drafts ignore what is beside a $ref
            return True
        kinds = [types] if isinstance(types, str) else types
        # In draft 3 a type may also be "any", or a schema.
        return any(not isinstance(k, str) or char in _OPENERS.get(k, char) for k in kinds)

    def _check_members(self, reading: Reading, text: str) -> PrefixVerdict:
        if "$ref" in self._own:  # the named properties beside it may not count
            return POSSIBLE
        seen: set[str] = set()
        for member in reading.members:
            # Decoded, as a key can be spelled in many ways: "a" is "\u0061".
            key = json.loads(text[member.key_start : member.key_end])
            if key in seen:
                return impossible(f"Write the key {key!r} once.", member.key_start, member.key_end)
            seen.add(key)
            if not self._allows(key):
                message = f"Leave out the key {key!r}: the schema does not know it."
                return impossible(message, member.key_start, member.key_end)
            if member.value_end >= 0 and (found := self._check_member(key, member, text)):
                return found
        if reading.open_key is not None:
            return self._check_open_key(reading.open_key, seen, text)
        return self._check_open_value(reading.members, text) or POSSIBLE

    def _check_open_key(self, start: int, seen: Set[str], text: str) -> PrefixVerdict:
        """Judge a key that is being written."""
        prefix = open_string(text, start)
        if not self._is_closed or any(
            key.startswith(prefix) and key not in seen for key in self._own.get("properties", {})
        ):
            return POSSIBLE
        return impossible(
            f"Leave out the key that starts with {prefix!r}: the schema has no other such key.",
            start,
            len(text),
        )

    def _check_open_value(self, members: Sequence[JsonMember], text: str) -> PrefixVerdict | None:
        """Judge a text that is being written; None where its schema may still accept it."""
        if not members or (start := members[-1].value_start) < 0 or members[-1].value_end >= 0:
            return None
        key = json.loads(text[members[-1].key_start : members[-1].key_end])
        schema = self._own.get("properties", {}).get(key)
        if text[start] != '"' or not isinstance(schema, Mapping) or "$ref" in schema:
            return None
        prefix = open_string(text, start)
        if len(prefix) > schema.get("maxLength", len(prefix)):
            return impossible(
                f"Fix {key}: at most {schema['maxLength']} characters.", start, len(text)
            )
        # Draft 4 has no `const`.
        has_const = "const" in schema and "const" in self._validator.VALIDATORS
        choices = schema.get("enum", [schema["const"]] if has_const else None)
        if choices is None or any(isinstance(c, str) and c.startswith(prefix) for c in choices):
            return None
        return impossible(f"Fix {key}: it is none of its choices.", start, len(text))

    @property
    def _is_closed(self) -> bool:
        """Whether the outermost object may have its named properties only."""
        closed = self._own.get("additionalProperties") is False
        return closed and "patternProperties" not in self._own

    def _allows(self, key: str) -> bool:
        return not self._is_closed or key in self._own.get("properties", {})

    def _check_member(self, key: str, member: JsonMember, text: str) -> PrefixVerdict | None:
        """Judge a complete member; None where its own schema accepts it, or that is unknown."""
        schema = self._validator.schema.get("properties", {}).get(key)
        ends_text = member.value_end == len(text)
        if schema is None or (ends_text and text[member.value_start] in "-0123456789"):
            return None  # a number at the end of the text may get more digits
        try:
            value = parse(text[member.value_start : member.value_end])
            with within(PREFIX_SECONDS):
                error = next(iter(self._validator.descend(value, schema, path=key)), None)
        except (ValueError, RecursionError, TimeoutError):
            return None
        if error is None:
            return None
        return impossible(_fix(error), member.value_start, member.value_end)

    def _span(self, reading: Reading, error: Any, text: str) -> Span | None:
        """Return the span of the outermost member that contains the error."""
        if not error.absolute_path:
            return None
        for member in reading.members:
            if json.loads(text[member.key_start : member.key_end]) == error.absolute_path[0]:
                return Span(member.value_start, member.value_end)
        return None

    @cached_property
    def _validator(self) -> Any:
        return validator_of(self._own)


@lru_cache(maxsize=256)  # prefix verdicts are computed at every token, for few schemas
def _of_item(name: str, text: str) -> JsonSchema:
    """Return the check of an item's own schema, given as JSON."""
    if len(text) > LONGEST:
        raise InputError(
            f"An item's schema must have at most {LONGEST} characters, got {len(text)}. Shorten it."
        )
    try:
        schema = parse_json(text)
    except ValueError as error:
        raise InputError(f"An item's schema must be JSON, got {error}. Fix it.") from None
    if not isinstance(schema, Mapping):
        raise InputError(
            f"An item's schema must be an object, got {type(schema).__name__}. Write a schema."
        )
    return JsonSchema(name=name, schema=schema)


def read_schema(path: Path) -> Mapping[str, Any]:
    """Read a schema from a JSON file. Raises `InputError` where it holds no object."""
    return read_object(path)


def _fix(error: Any) -> str:
    at = ".".join(map(str, error.absolute_path))
    return f"Fix {at or 'the document'}: {error.message}."
