"""Reads the `response_format` of a request as a check. Knows no tokens."""

from __future__ import annotations

from collections.abc import Mapping

from ostinato.checks import JsonSchema
from ostinato.errors import InputError
from ostinato.server.body_fields import BodyFields, RequestError, wrong

FIELD = "response_format"
TYPES = ("text", "json_object", "json_schema")


def read_response_format(fields: BodyFields) -> JsonSchema | None:
    """Read the schema of the whole answer, None for any text. Raises `RequestError`."""
    options = fields.table(FIELD)
    kind = options.value("type")
    # null and {} mean any text; an object without a type is wrong.
    if kind is None and not fields.value(FIELD):
        return None
    if kind not in TYPES:
        raise wrong(f"{FIELD}.type", f"one of {', '.join(TYPES)}", kind)
    schema = _schema(options.table("json_schema")) if kind == "json_schema" else {"type": "object"}
    options.close()
    return None if kind == "text" else _as_check(schema)


def _schema(options: BodyFields) -> Mapping[str, object]:
    """Read a schema; it is enforced whether `strict` is set or not."""
    schema = options.mapping("schema")
    if schema is None:
        raise wrong(f"{FIELD}.json_schema.schema", "a JSON schema", schema, "Add it.")
    options.flag("strict")
    # Read, so that `close` does not refuse them.
    for ignored in ("name", "description"):
        options.value(ignored)
    options.close()
    return schema


def _as_check(schema: Mapping[str, object]) -> JsonSchema:
    where = f"{FIELD}.json_schema.schema"
    try:
        return JsonSchema(name=FIELD, schema=schema)
    except InputError as error:
        raise RequestError(400, f"{where!r}: {error}", where) from None
