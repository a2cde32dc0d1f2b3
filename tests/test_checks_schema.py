"""A JSON schema is held to a time limit, and its patterns still say what they say."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ostinato.checks import JsonSchema, structure
from ostinato.errors import InputError
from ostinato.loop import Outlook

SLOW = "^(a|aa)+$"
LONG = "a" * 60 + "!"


@pytest.fixture(autouse=True)
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "JUDGE_SECONDS", 0.1)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "pattern": SLOW}, LONG),
        ({"items": {"pattern": SLOW}}, [LONG] * 30),
        ({"patternProperties": {SLOW: {"type": "string"}}}, {LONG: ""}),
        ({"patternProperties": {SLOW: {}}, "additionalProperties": False}, {LONG: ""}),
        ({"propertyNames": {"pattern": SLOW}}, {LONG: ""}),
    ],
)
def test_a_pattern_that_takes_too_long_is_an_error_of_the_check(
    schema: dict[str, Any], value: object
) -> None:
    check = JsonSchema(schema=schema)
    began = time.process_time()
    verdict = check.judge(json.dumps(value), {})
    assert time.process_time() - began < 1
    assert not verdict.passed
    assert "must be compared within 0.1 seconds" in verdict.error


def test_a_schema_that_branches_at_every_level_is_held_to_the_limit() -> None:
    schema = {"type": "array", "items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}
    began = time.process_time()
    verdict = JsonSchema(schema=schema).judge("[" * 40 + "1" + "]" * 40, {})
    assert time.process_time() - began < 1
    assert "must be compared within" in verdict.error


def test_a_slow_pattern_leaves_a_beginning_possible() -> None:
    check = JsonSchema(schema={"properties": {"name": {"pattern": SLOW}}})
    began = time.process_time()
    foresight = check.foresee(json.dumps({"name": LONG})[:-1], {})
    assert time.process_time() - began < 1
    assert foresight.outlook is Outlook.POSSIBLE


def test_patterns_in_a_schema_say_what_they_said() -> None:
    keys = JsonSchema(
        schema={
            "properties": {"id": {"pattern": r"^[A-ZÄ]\d+$"}},
            "patternProperties": {"^x-": {"type": "integer"}},
            "additionalProperties": False,
        }
    )
    assert keys.judge('{"id": "Ä12", "x-a": 1}', {}).passed
    assert "does not match" in keys.judge('{"id": "12"}', {}).message
    assert "is not of type 'integer'" in keys.judge('{"x-a": "1"}', {}).message
    assert "'y' was unexpected" in keys.judge('{"id": "A1", "x-a": 1, "y": 2}', {}).message
    allowed = {"patternProperties": {"^x-": {}}, "additionalProperties": {"type": "string"}}
    assert JsonSchema(schema=allowed).judge('{"x-a": 1, "y": "z"}', {}).passed
    assert not JsonSchema(schema=allowed).judge('{"x-a": 1, "y": 2}', {}).passed


def test_keys_whose_patterns_have_no_clock_are_refused() -> None:
    with pytest.raises(InputError, match="without unevaluatedProperties beside patternProperties"):
        JsonSchema(schema={"patternProperties": {"^x": {}}, "unevaluatedProperties": False})
