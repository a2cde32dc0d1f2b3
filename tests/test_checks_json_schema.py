"""JSON schemas: a time limit, patterns under it, and a schema of each item."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from lane_rows import lane_rows
from tiny import tiny_model

from ostinato.checks import JsonSchema, from_spec, judge_all, to_spec
from ostinato.checks.json_schema import check as structure
from ostinato.errors import InputError
from ostinato.loop import PrefixStatus
from ostinato.refine import Constrain
from ostinato.refine.refine import Refine
from ostinato.schemas.schema import DEEPEST

SLOW = "^(a|aa)+$"
LONG = "a" * 60 + "!"
DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"


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
        ({"patternProperties": {SLOW: {}}, "unevaluatedProperties": False}, {LONG: ""}),
        ({"properties": {"a": {"$schema": DRAFT_2020, "pattern": SLOW}}}, {"a": LONG}),
        ({"$schema": DRAFT_2020, "items": {"$ref": "#"}, "pattern": SLOW}, [LONG]),
    ],
)
def test_a_text_on_which_a_pattern_takes_too_long_has_not_passed(
    schema: dict[str, Any], value: object
) -> None:
    check = JsonSchema(schema=schema)
    began = time.process_time()
    verdict = check.judge(json.dumps(value), {})
    assert time.process_time() - began < 1
    assert not verdict.passed and not verdict.error  # another draft may pass
    assert "not validated within 0.1 seconds" in verdict.message


def test_a_schema_that_branches_at_every_level_obeys_the_limit() -> None:
    schema = {"type": "array", "items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}
    began = time.process_time()
    verdict = JsonSchema(schema=schema).judge("[" * 40 + "1" + "]" * 40, {})
    assert time.process_time() - began < 1
    assert "not validated within" in verdict.message


def test_a_slow_pattern_leaves_a_prefix_possible() -> None:
    check = JsonSchema(schema={"properties": {"name": {"pattern": SLOW}}})
    began = time.process_time()
    verdict = check.check_prefix(json.dumps({"name": LONG})[:-1], {})
    assert time.process_time() - began < 1
    assert verdict.status is PrefixStatus.POSSIBLE


def test_patterns_in_a_schema_mean_what_they_mean_without_a_limit() -> None:
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


OWN = JsonSchema(column="wanted")
DEEP: list[Any] = json.loads("[" * 600 + "]" * 600)
CITY = {"type": "object", "properties": {"city": {"maxLength": 4}}, "additionalProperties": False}


@pytest.mark.parametrize("value", [CITY, json.dumps(CITY)])
def test_an_items_own_schema_does_what_a_fixed_one_does(value: object) -> None:
    fixed, item = JsonSchema(schema=CITY), {"wanted": value, "other": 1}
    for text in ('{"city": "Rome"}', '{"city": "Paris"}', '{"town": "Rome"}', "[]", "{", "no"):
        assert OWN.judge(text, item) == fixed.judge(text, {})
        assert OWN.check_prefix(text, item) == fixed.check_prefix(text, {})
    (language,), (wanted,) = OWN.constraint_specs(item), fixed.constraint_specs({})
    assert language.kind == "json_schema"
    assert json.loads(language.text) == json.loads(wanted.text)
    assert OWN.judge("[1]", {"wanted": {"type": "array"}}).passed
    assert OWN.columns == ("wanted",) and fixed.columns == ()
    assert from_spec("", to_spec(OWN)) == OWN and from_spec("", to_spec(fixed)) == fixed


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "must be an object, got NoneType"),
        ("{", "must be JSON, got"),
        ([CITY], "must be an object, got list"),
        ({"type": "obj"}, "must be a JSON schema"),
        ({"$ref": "http://127.0.0.1:1/x"}, "Nothing is fetched"),
        ({"enum": ["x" * 40_000]}, "must have at most 32768 characters"),
        ({"enum": DEEP}, "must be nested at most 64 levels deep, got 600"),
        (json.dumps({"enum": DEEP}), "must be nested at most 64 levels deep, got 600"),
    ],
)
def test_an_item_without_a_schema_is_an_error_of_that_item(value: object, message: str) -> None:
    item = {"wanted": value}
    (verdict,) = judge_all([OWN], "{}", item)
    assert message in verdict.error and "The column 'wanted'" in verdict.error
    assert OWN.check_prefix("no", item).status is PrefixStatus.POSSIBLE
    assert OWN.constraint_specs(item) == ()


@pytest.mark.parametrize("table", [{}, {"schema": {}, "column": "wanted"}])
def test_a_schema_comes_from_one_source(table: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be given, or 'column'"):
        from_spec("json_schema", table)


@pytest.mark.parametrize("key", ["items", "not", "additionalProperties"])
def test_a_schema_may_be_as_deep_as_its_limit_and_no_deeper(key: str) -> None:
    schema: dict[str, Any] = {}
    for _ in range(DEEPEST):
        schema = {key: schema}
    assert JsonSchema(schema=schema).judge("[[1]]", {}).error == ""
    with pytest.raises(InputError, match=r"at most 64 levels deep, got 65\. Name its inner parts"):
        JsonSchema(schema={key: schema})


def test_constrain_uses_each_item_s_own_schema() -> None:
    items: list[Any] = [
        {"id": "1", "wanted": {"enum": ["ready", "late"]}},
        {"id": "2", "wanted": {"enum": [1, 2]}},
        {"id": "3", "wanted": "{"},
        {"id": "4", "wanted": {"enum": DEEP}},
        {"id": "5", "wanted": json.dumps({"enum": DEEP})},
    ]
    refine = Refine(
        tiny_model(),
        items,
        prompt="{id}",
        checks=[OWN],
        strategy=Constrain(rounds=1),
        max_new_tokens=12,
    )
    rows: list[Any] = lane_rows(refine)
    assert [row["accepted"] for row in rows] == [True, True, False, False, False]
    assert rows[0]["output"].strip() in ('"ready"', '"late"')
    assert rows[1]["output"].strip() in ("1", "2")
    assert {row["stopped"]["kind"] for row in rows[2:]} == {"error"}
    assert "Name its inner parts under '$defs'" in rows[3]["stopped"]["sentence"]
