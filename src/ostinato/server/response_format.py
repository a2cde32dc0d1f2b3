"""The form that a request asks for (`response_format`), as a check. Knows no tokens."""

from __future__ import annotations

from collections.abc import Mapping

from ostinato.checks import JsonSchema, refers_outside
from ostinato.errors import InputError
from ostinato.server.body_fields import BodyFields, RequestError, wrong

FORM = "response_format"
FORMS = ("text", "json_object", "json_schema")


def read_form(keys: BodyFields) -> JsonSchema | None:
    """Read what the whole answer must be; None where it is any text. Raises `RequestError`."""
    table = keys.table(FORM)
    kind = table.value("type")
    if kind is None and not keys.value(FORM):
        return None
    if kind not in FORMS:
        raise wrong(f"{FORM}.type", f"one of {', '.join(FORMS)}", kind)
    schema = _schema(table.table("json_schema")) if kind == "json_schema" else {"type": "object"}
    table.close()
    return None if kind == "text" else _checked(schema)


def _schema(table: BodyFields) -> Mapping[str, object]:
    """Read a schema; `strict` or not, it is held to."""
    schema = table.mapping("schema")
    if schema is None:
        raise wrong(f"{FORM}.json_schema.schema", "a JSON schema", schema, "Add it.")
    table.flag("strict")
    for told in ("name", "description"):
        table.value(told)
    table.close()
    return schema


def _checked(schema: Mapping[str, object]) -> JsonSchema:
    where = f"{FORM}.json_schema.schema"
    if refers_outside(schema):
        raise RequestError(
            400, f"{where!r} must refer to itself only ('$ref': '#/…'), got another.", where
        )
    try:
        return JsonSchema(name=FORM, schema=schema)
    except InputError as error:
        raise RequestError(400, f"{where!r}: {error}", where) from None
