"""The check agrees with `jsonschema` on every keyword, and its prefix verdicts and masks with it.

It differs on purpose where numbers are decimals, patterns are those of ECMA-262, and where
`jsonschema` itself departs from the specification; those have their own table.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema.validators import Draft202012Validator, validator_for
from jsonschema_specifications import REGISTRY

from ostinato.checks import JsonSchema, judge_all
from ostinato.loop import PrefixStatus

D3 = "http://json-schema.org/draft-03/schema#"
D4 = "http://json-schema.org/draft-04/schema#"
D6 = "http://json-schema.org/draft-06/schema#"
D7 = "http://json-schema.org/draft-07/schema#"
D2019 = "https://json-schema.org/draft/2019-09/schema"
TREE = {
    "$id": "https://example.com/strict",
    "$dynamicAnchor": "node",
    "$ref": "tree",
    "unevaluatedProperties": False,
    "$defs": {
        "tree": {
            "$id": "https://example.com/tree",
            "$dynamicAnchor": "node",
            "type": "object",
            "properties": {"data": True, "children": {"items": {"$dynamicRef": "#node"}}},
        }
    },
}

# A schema, texts that are valid, texts that are not.
CASES: list[tuple[Any, list[str], list[str]]] = [
    ({"type": "integer"}, ["1", "1.0", "-0.0", "1e2", "10000000000000000000000"], ["1.5", "true"]),
    ({"$schema": D4, "type": "integer"}, ["1"], ["1.0", "true"]),
    ({"type": "number"}, ["1", "1.5", "1e-400"], ["true", '"1"', "null"]),
    ({"type": ["string", "null"]}, ["null", '"a"'], ["0", "false"]),
    (
        {"enum": [1, "a", None, [1], {"a": 1}]},
        ["1", "1.0", "[1]", '{"a": 1.0}'],
        ["true", "[true]"],
    ),
    ({"enum": [True, 0]}, ["true", "0", "0.0", "-0.0"], ["1", "false"]),
    ({"enum": [False]}, ["false"], ["0", "0.0"]),
    ({"const": 1}, ["1", "1.0", "10e-1"], ["true", '"1"']),
    ({"const": [False]}, ["[false]"], ["[0]", "[0.0]"]),
    ({"const": {"a": 1, "b": 2}}, ['{"b": 2, "a": 1}'], ['{"a": 1}']),
    ({"$schema": D4, "const": 1}, ["2"], []),
    ({"minimum": 0.1, "maximum": 20}, ["0.1", "20", "20.0", '"x"'], ["0.09", "20.001", "1e300"]),
    ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, ["0.5"], ["0", "-0.0", "1", "1.0"]),
    ({"$schema": D4, "minimum": 3, "exclusiveMinimum": True}, ["4"], ["3", "3.0"]),
    ({"maximum": 9007199254740992}, ["9007199254740992"], ["9007199254740993"]),
    ({"multipleOf": 3}, ["9", "0", "9.0", "-3", "3" * 400], ["10", "9.5", "1" + "0" * 400]),
    ({"multipleOf": 0.5}, ["1.5", "1e300", "-0.0"], ["1.25"]),
    ({"$schema": D3, "divisibleBy": 2}, ["4"], ["3"]),
    (
        {"minLength": 2, "maxLength": 3},
        ['"ab"', '"😀😀"', r'"\ud83d\ude00\u00e9"'],
        ['"😀"', '"abcd"'],
    ),
    ({"minItems": 1, "maxItems": 2}, ["[1]", "{}"], ["[]", "[1,2,3]"]),
    ({"uniqueItems": True}, ["[1, true]", "[0, false]", "[[1], [true]]", '["1", 1]'], ["[1, 1.0]"]),
    (
        {"uniqueItems": True},
        ['[{"a": 1}, {"a": true}]'],
        ['[{"a": 1, "b": 2}, {"b": 2.0, "a": 1}]'],
    ),
    ({"minProperties": 1, "maxProperties": 1}, ['{"a": 1}'], ["{}", '{"a": 1, "b": 2}']),
    ({"required": ["a"]}, ['{"a": null}', "[]"], ["{}"]),
    ({"properties": {"a": False}}, ["{}"], ['{"a": 1}']),
    ({"properties": {"a": {"type": "string"}}}, ['{"a": "x"}', "{}"], ['{"a": 1}']),
    ({"patternProperties": {"^a": {"type": "string"}}}, ['{"ab": "x", "b": 1}'], ['{"ab": 1}']),
    (
        {"properties": {"a": {}}, "patternProperties": {"^x-": {}}, "additionalProperties": False},
        ['{"a": 1, "x-b": 2}'],
        ['{"b": 1}'],
    ),
    ({"additionalProperties": {"type": "integer"}}, ['{"a": 1}'], ['{"a": "x"}']),
    ({"propertyNames": {"maxLength": 2}}, ['{"ab": 1}'], ['{"abc": 1}']),
    ({"propertyNames": False}, ["{}"], ['{"a": 1}']),
    ({"dependentRequired": {"a": ["b"]}}, ['{"b": 1}', '{"a": 1, "b": 2}'], ['{"a": 1}']),
    ({"dependentSchemas": {"a": {"required": ["b"]}}}, ["{}"], ['{"a": 1}']),
    ({"$schema": D7, "dependencies": {"a": ["b"], "c": {"required": ["d"]}}}, ["{}"], ['{"c": 1}']),
    ({"dependencies": {"a": ["b"]}}, ['{"a": 1}'], []),
    ({"items": {"type": "integer"}}, ["[1]", "[]"], ['[1, "a"]']),
    ({"prefixItems": [{"type": "string"}], "items": False}, ['["a"]', "[]"], ['["a", 1]', "[1]"]),
    ({"$schema": D7, "items": [{}], "additionalItems": False}, ["[1]"], ["[1, 2]"]),
    ({"contains": {"const": 1}}, ["[2, 1]", "{}"], ["[]", "[true]"]),
    (
        {"contains": {"const": 1}, "minContains": 2, "maxContains": 3},
        ["[1, 1]"],
        ["[1]", "[1,1,1,1]"],
    ),
    ({"contains": {"const": 1}, "minContains": 0}, ["[]", "[2]"], []),
    ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, ["1.5"], ["0", "3"]),
    ({"anyOf": [{"type": "string"}, {"minimum": 2}]}, ['"a"', "2"], ["1"]),
    ({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}]}, ["2", "3"], ["6", "5"]),
    ({"not": {"type": "string"}}, ["1"], ['"a"']),
    (
        {"if": {"type": "string"}, "then": {"maxLength": 1}, "else": {"minimum": 1}},
        ['"a"', "1", "null"],
        ['"ab"', "0"],
    ),
    ({"then": {"maxLength": 1}}, ['"ab"'], []),
    ({"$schema": D4, "if": {}, "then": False}, ["1"], []),
    (
        True and {"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a", "maxLength": 1},
        ['"a"'],
        ["1", '"ab"'],
    ),
    (
        {
            "$schema": D7,
            "definitions": {"a": {"type": "string"}},
            "$ref": "#/definitions/a",
            "maxLength": 1,
        },
        ['"ab"'],
        ["1"],
    ),
    ({"type": "array", "items": {"$ref": "#"}}, ["[[], [[]]]"], ["[[1]]"]),
    ({"$defs": {"a": {"$anchor": "n", "type": "string"}}, "$ref": "#n"}, ['"a"'], ["1"]),
    (
        {
            "$id": "https://example.com/r",
            "$defs": {"a": {"$id": "a", "type": "string"}},
            "$ref": "a",
        },
        ['"a"'],
        ["1"],
    ),
    (
        {
            "$id": "https://example.com/r",
            "properties": {"a": {"$id": "d/", "$ref": "e"}},
            "$defs": {"e": {"$id": "d/e", "type": "null"}},
        },
        ['{"a": null}'],
        ['{"a": 1}'],
    ),
    ({"allOf": [{"type": "string"}, {"$ref": "#/allOf/0"}]}, ['"a"'], ["1"]),
    ({"$ref": "#/$defs/a~1b/c%25", "$defs": {"a/b": {"c%": {"type": "string"}}}}, ['"a"'], ["1"]),
    (
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        ['{"type": "null"}'],
        ['{"type": 1}'],
    ),
    (TREE, ['{"children": [{"data": 1}]}'], ['{"children": [{"daat": 1}]}']),
    (
        {
            "$schema": D2019,
            "$recursiveAnchor": True,
            "properties": {"a": {"$recursiveRef": "#"}},
            "additionalProperties": False,
        },
        ['{"a": {"a": {}}}'],
        ['{"a": {"b": 1}}'],
    ),
    (
        {
            "properties": {"a": {}},
            "allOf": [{"properties": {"b": {}}}],
            "unevaluatedProperties": False,
        },
        ['{"a": 1, "b": 2}'],
        ['{"c": 1}'],
    ),
    (
        {"patternProperties": {"^x": {}}, "unevaluatedProperties": {"type": "integer"}},
        ['{"xa": "s", "b": 1}'],
        ['{"b": "s"}'],
    ),
    (
        {
            "if": {"required": ["a"], "properties": {"a": {}}},
            "then": {"properties": {"b": {}}},
            "unevaluatedProperties": False,
        },
        ['{"a": 1, "b": 2}', "{}"],
        ['{"b": 2}'],
    ),
    (
        {
            "dependentSchemas": {"a": {"properties": {"a": {}, "b": {}}}},
            "unevaluatedProperties": False,
        },
        ['{"a": 1, "b": 1}'],
        ['{"b": 1}'],
    ),
    ({"prefixItems": [{}], "unevaluatedItems": False}, ["[1]"], ["[1, 2]"]),
    (
        {"contains": {"type": "string"}, "unevaluatedItems": {"type": "null"}},
        ['["a", null]'],
        ['["a", 1]'],
    ),
    (
        {"anyOf": [{"prefixItems": [{}, {}]}, {}], "unevaluatedItems": False},
        ["[1, 2]"],
        ["[1, 2, 3]"],
    ),
    ({"format": "date"}, ['"no date"', "1"], []),
    ({"type": "string", "contentEncoding": "base64"}, ['"%"'], []),
    ({"pattern": "b"}, ['"abc"', "1"], ['"ac"']),
    ({"pattern": "^a|c$"}, ['"ab"', '"bc"'], ['"b"']),
    ({"$schema": D3, "properties": {"a": {"required": True}}}, ['{"a": 1}'], ["{}"]),
    ({"$schema": D3, "extends": {"type": "string"}, "disallow": ["null"]}, ['"a"'], ["1"]),
    ({"$schema": D3, "type": ["integer", {"enum": ["a"]}]}, ["1", '"a"'], ['"b"', "1.0"]),
    ({"$schema": D6, "propertyNames": {"enum": ["a"]}}, ['{"a": 1}'], ['{"b": 1}']),
    ({"$schema": D7, "contains": {"const": 1}, "minContains": 2}, ["[1]"], ["[]"]),
    ({}, ["1", "[[[]]]", r'"\ud800"'], []),
]
ROWS = [
    (s, t, right)
    for s, good, bad in CASES
    for t, right in [*((t, True) for t in good), *((t, False) for t in bad)]
]


def peer(schema: Any, value: object) -> bool:
    kind = validator_for(schema, default=Draft202012Validator)
    return bool(kind(schema, registry=REGISTRY).is_valid(value))


def assert_prefixes_agree(check: JsonSchema, text: str, passed: bool) -> None:
    for end in range(len(text) + 1):
        status = check.check_prefix(text[:end], {}).status
        assert status is PrefixStatus.POSSIBLE or passed == (status is PrefixStatus.CERTAIN), text[
            :end
        ]


@pytest.mark.parametrize(("schema", "text", "right"), ROWS)
def test_a_text_is_judged_as_by_jsonschema(schema: Any, text: str, right: bool) -> None:
    check = JsonSchema(schema=schema)
    (verdict,) = judge_all([check], text, {})
    assert not verdict.error
    assert verdict.passed == right == peer(schema, json.loads(text)), verdict
    assert_prefixes_agree(check, text, right)


# Any schema ---------------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "b", "xa", ""])
NUMBERS = st.sampled_from([0, 1, 2, 3, -1, 1.0, 0.5, 2.5, -0.0, 10**20, 1e20])
SCALARS = st.none() | st.booleans() | NUMBERS | st.sampled_from(["", "a", "ab", "xa", "é", "😀b"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
COUNTS = st.integers(0, 3)
PATTERNS = st.sampled_from(["^a", "b$", "x", "^$", "^(a|é)+$", "^.$"])
TYPES = st.sampled_from(["array", "boolean", "integer", "null", "number", "object", "string"])


def keywords(inner: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """Return what may stand under each keyword of the newest draft."""
    several, table = (
        st.lists(inner, min_size=1, max_size=2),
        st.dictionaries(KEYS, inner, max_size=2),
    )
    one = (
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
    )
    return {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "const": VALUES,
        **dict.fromkeys(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"], NUMBERS),
        "multipleOf": st.sampled_from([1, 2, 0.5, 2.5]),
        **dict.fromkeys(["minLength", "maxLength", "minItems", "maxItems"], COUNTS),
        **dict.fromkeys(["minProperties", "maxProperties", "minContains", "maxContains"], COUNTS),
        "pattern": PATTERNS,
        "uniqueItems": st.booleans(),
        "required": st.lists(KEYS, max_size=2, unique=True),
        "dependentRequired": st.dictionaries(
            KEYS, st.lists(KEYS, max_size=2, unique=True), max_size=2
        ),
        **dict.fromkeys(["properties", "dependentSchemas"], table),
        "patternProperties": st.dictionaries(PATTERNS, inner, max_size=2),
        **dict.fromkeys(["allOf", "anyOf", "oneOf", "prefixItems"], several),
        **dict.fromkeys([*one, "unevaluatedItems", "unevaluatedProperties"], inner),
        "$ref": st.sampled_from(["#/$defs/text", "#/$defs/list", "#tree"]),
        "format": st.sampled_from(["date", "unknown"]),
    }


def some_keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    known = keywords(inner)
    names = st.lists(st.sampled_from(sorted(known)), max_size=3, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({n: known[n] for n in chosen}))


SCHEMAS = st.recursive(st.booleans() | st.just({}), some_keywords, max_leaves=6).filter(
    lambda schema: isinstance(schema, dict)
)
DEFS = {
    "text": {"type": "string", "maxLength": 2},
    "list": {"type": "array", "items": {"$ref": "#/$defs/text"}},
    "tree": {
        "$anchor": "tree",
        "additionalProperties": {"$ref": "#tree"},
        "type": ["object", "null"],
    },
}


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(SCHEMAS, st.lists(VALUES, min_size=3, max_size=3))
def test_any_schema_judges_as_jsonschema_does(schema: dict[str, Any], values: list[object]) -> None:
    schema = {**schema, "$defs": DEFS}
    check = JsonSchema(schema=schema)
    for value in values:
        text = json.dumps(value)
        (verdict,) = judge_all([check], text, {})
        assert not verdict.error
        assert verdict.passed == peer(schema, json.loads(text)), (text, verdict)
        assert_prefixes_agree(check, text, verdict.passed)
