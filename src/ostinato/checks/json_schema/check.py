"""The whole output is JSON, and valid under a schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

from ostinato.checks.base import POSSIBLE, BaseCheck, impossible
from ostinato.checks.constraint_spec import ConstraintSpec
from ostinato.checks.deadline import within
from ostinato.checks.json_schema.deadline import REFERENCES, clocked, keywords
from ostinato.checks.json_schema.prefix import JsonMember, Reading, begun_string, read
from ostinato.checks.patterns import FORESEE_SECONDS, JUDGE_SECONDS
from ostinato.errors import InputError
from ostinato.loop import Item, PrefixVerdict, Span, Verdict

LONGEST = 1 << 15  # characters of an item's own schema: all wait for its compiling
DEEPEST = 64  # levels of a schema: what reads one calls itself for each
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

    The `schema` is that of all items, or each item's own in its `column`: an object, or its JSON
    as a text. Keys may not be said twice, NaN and Infinity are no JSON.
    """

    kind: ClassVar[str] = "json_schema"

    schema: Mapping[str, Any] | None = field(default=None, hash=False)
    column: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.schema is None) != bool(self.column):
            raise self.refuse(
                "schema", "given, or 'column'", self.schema, "Give one of the two, not both."
            )
        if self.schema is not None:
            self._check_schema()

    @property
    def columns(self) -> tuple[str, ...]:
        """The column that holds an item's schema."""
        return (self.column,) if self.column else ()

    def _check_schema(self) -> None:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for

        with self.about("schema"):
            _check_depth(self._own)
        try:
            validator_for(self._own).check_schema(dict(self._own))
        except SchemaError as error:
            raise self.refuse(
                "schema", "a JSON schema", error.instance, f"{error.message}. Mend it there."
            ) from error
        if {"patternProperties", "unevaluatedProperties"} <= keywords(self._own):
            raise self.refuse(
                "schema",
                "without unevaluatedProperties beside patternProperties",
                "both",
                "Such patterns cannot be held to a time limit: use additionalProperties.",
            )

    def judge(self, output: object, item: Item) -> Verdict:
        """Parse and validate; the place is where the text departs from JSON, or a wrong member.

        Raises `InputError` where the item's column holds no schema.
        """
        if self.column:
            return self._of(item).judge(output, item)
        text = self.text(output)
        try:
            value = _parse(text)
        except (ValueError, RecursionError) as error:
            wrong = read(text).wrong
            place = None if wrong is None else Span(wrong, len(text))
            return self.verdict(
                False, f"Write one JSON document, nothing else: {error}.", place=place
            )
        try:
            with within(JUDGE_SECONDS):
                broken = next(iter(self._validator.iter_errors(value)), None)
        except TimeoutError:
            return self.error(
                f"The schema must be compared within {JUDGE_SECONDS:g} seconds, got no answer on "
                f"{len(text)} characters. Avoid nested repetitions such as (a+)+ in its patterns."
            )
        if broken is None:
            return self.verdict(True)
        return self.verdict(False, _mend(broken), place=self._place(read(text), broken, text))

    def check_prefix(self, output: object, item: Item) -> PrefixVerdict:
        """Impossible where no JSON begins so, or a member breaks the schema.

        A member is looked at once it is complete; a key, and a text that may be too long or no
        choice, while they are written.
        """
        if self.column:
            held = self._of_if_any(item)
            return POSSIBLE if held is None else held.check_prefix(output, item)
        text = self.text(output)
        reading = read(text)
        if reading.wrong is not None:
            return impossible("Write JSON, nothing else.", reading.wrong, len(text))
        if reading.start is None:
            return POSSIBLE
        if not self._may_open(text[reading.start]):
            message = f"Write JSON of the type {self._own['type']}."
            return impossible(message, reading.start, len(text))
        return self._foresee_members(reading, text)

    def languages(self, item: Item) -> tuple[ConstraintSpec, ...]:
        """Return the JSON of the schema; nothing where the item's column holds none."""
        held = self._of_if_any(item) if self.column else self
        if held is None:
            return ()
        return (ConstraintSpec("json_schema", json.dumps(held.schema, ensure_ascii=False)),)

    @property
    def _own(self) -> Mapping[str, Any]:
        return self.schema or {}

    def _of(self, item: Item) -> JsonSchema:
        """Return the check of an item's own schema. Raises `InputError` where it is none."""
        value = item.get(self.column)
        try:
            _check_depth(value)
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            return _held(self.name, text)
        except InputError as error:
            raise InputError(f"The column '{self.column}': {error}") from None

    def _of_if_any(self, item: Item) -> JsonSchema | None:
        try:
            return self._of(item)
        except InputError:  # it is told when the whole text is judged
            return None

    def _may_open(self, char: str) -> bool:
        wanted = self._own.get("type")
        if wanted is None or "$ref" in self._own:
            return True
        kinds = [wanted] if isinstance(wanted, str) else wanted
        return any(char in _OPENERS[kind] for kind in kinds)

    def _foresee_members(self, reading: Reading, text: str) -> PrefixVerdict:
        if "$ref" in self._own:  # older drafts take a reference for all that there is
            return POSSIBLE
        seen: set[str] = set()
        for member in reading.members:
            key = json.loads(text[member.key_start : member.key_end])
            if key in seen:
                return impossible(f"Say the key {key!r} once.", member.key_start, member.key_end)
            seen.add(key)
            if not self._allows(key):
                message = f"Leave out the key {key!r}: the schema does not know it."
                return impossible(message, member.key_start, member.key_end)
            if member.value_end >= 0 and (found := self._breaks(key, member, text)):
                return found
        if reading.key_begun is not None:
            return self._foresee_key(reading.key_begun, seen, text)
        return self._foresee_value(reading.members, text) or POSSIBLE

    def _foresee_key(self, start: int, seen: Set[str], text: str) -> PrefixVerdict:
        """Return the prefix verdict of a key that is being written."""
        begun = begun_string(text, start)
        if not self._is_closed or any(
            key.startswith(begun) and key not in seen for key in self._own.get("properties", {})
        ):
            return POSSIBLE
        return impossible(
            f"Leave out the key that begins {begun!r}: the schema knows no other such.",
            start,
            len(text),
        )

    def _foresee_value(self, members: Sequence[JsonMember], text: str) -> PrefixVerdict | None:
        """Return the prefix verdict of a text that is being written, where its schema refuses it."""
        if not members or (start := members[-1].value_start) < 0 or members[-1].value_end >= 0:
            return None
        key = json.loads(text[members[-1].key_start : members[-1].key_end])
        schema = self._own.get("properties", {}).get(key)
        if text[start] != '"' or not isinstance(schema, Mapping) or "$ref" in schema:
            return None
        begun = begun_string(text, start)
        if len(begun) > schema.get("maxLength", len(begun)):
            return impossible(
                f"Mend {key}: at most {schema['maxLength']} characters.", start, len(text)
            )
        choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if choices is None or any(isinstance(c, str) and c.startswith(begun) for c in choices):
            return None
        return impossible(f"Mend {key}: it is none of its choices.", start, len(text))

    @property
    def _is_closed(self) -> bool:
        """Whether an object may have the known properties only."""
        closed = self._own.get("additionalProperties") is False
        return closed and "patternProperties" not in self._own

    def _allows(self, key: str) -> bool:
        return not self._is_closed or key in self._own.get("properties", {})

    def _breaks(self, key: str, member: JsonMember, text: str) -> PrefixVerdict | None:
        """Return the prefix verdict of a complete member that its own schema refuses."""
        schema = self._own.get("properties", {}).get(key)
        ends_text = member.value_end == len(text)
        if schema is None or (ends_text and text[member.value_start] in "-0123456789"):
            return None  # a number at the end of the text may go on
        try:
            value = _parse(text[member.value_start : member.value_end])
            with within(FORESEE_SECONDS):
                error = next(iter(self._validator.descend(value, schema, path=key)), None)
        except (ValueError, RecursionError, TimeoutError):
            return None
        if error is None:
            return None
        return impossible(_mend(error), member.value_start, member.value_end)

    def _place(self, reading: Reading, error: Any, text: str) -> Span | None:
        """Return the place of the outermost member in which the error is."""
        if not error.absolute_path:
            return None
        for member in reading.members:
            if json.loads(text[member.key_start : member.key_end]) == error.absolute_path[0]:
                return Span(member.value_start, member.value_end)
        return None

    @cached_property
    def _validator(self) -> Any:
        from jsonschema.validators import validator_for

        return clocked(validator_for(self._own))(self._own)


@lru_cache(maxsize=256)
def _held(name: str, text: str) -> JsonSchema:
    """Return the check of a schema that comes with an item, as JSON."""
    if len(text) > LONGEST:
        raise InputError(
            f"An item's schema must have at most {LONGEST} characters, got {len(text)}. Shorten it."
        )
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"An item's schema must be JSON, got {error}. Mend it.") from None
    if not isinstance(schema, Mapping):
        raise InputError(
            f"An item's schema must be an object, got {type(schema).__name__}. Write a schema."
        )
    if refers_outside(schema):
        raise InputError("An item's schema must refer to itself only, got another. Take it in.")
    return JsonSchema(name=name, schema=schema)


def refers_outside(value: Any) -> bool:
    """Tell whether a schema refers to what would have to be fetched."""
    tables = (part for _, part in _nested(value) if isinstance(part, Mapping))
    refs = (table.get(key) for table in tables for key in REFERENCES)
    return any(isinstance(ref, str) and not ref.startswith("#") for ref in refs)


def _check_depth(schema: Any) -> None:
    deep = max(depth for depth, _ in _nested(schema))
    if deep > DEEPEST:
        raise InputError(
            f"A schema must be nested at most {DEEPEST} levels deep, got {deep}. Name its inner "
            "parts under '$defs', and refer to them."
        )


def _nested(value: Any) -> Iterator[tuple[int, Any]]:
    """Yield a value and all that is in it, each with its level; however deep that is."""
    rest = [(0, value)]
    while rest:
        depth, part = rest.pop()
        yield depth, part
        if isinstance(part, Mapping):
            rest += [(depth + 1, inner) for inner in part.values()]
        elif isinstance(part, list | tuple):
            rest += [(depth + 1, inner) for inner in part]


def read_schema(path: Path) -> Mapping[str, Any]:
    """Read a schema from a file."""
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name} must be JSON, got {error}. Mend it there.") from error
    if not isinstance(schema, Mapping):
        raise InputError(
            f"{path.name} must hold a JSON object, got {type(schema).__name__}. Write a schema."
        )
    return schema


def _mend(error: Any) -> str:
    at = ".".join(map(str, error.absolute_path))
    return f"Mend {at or 'the document'}: {error.message}."


def _parse(text: str) -> object:
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key is said twice")
    return table


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")
