"""The check agrees with `jsonschema` on every keyword, and its prefix verdicts and masks with it.

It differs on purpose where numbers are decimals, patterns are those of ECMA-262, and where
`jsonschema` itself departs from the specification; those have their own table.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema.validators import Draft202012Validator, validator_for
from jsonschema_specifications import REGISTRY
from tiny import tiny_model

from ostinato.checks import JsonSchema, judge_all
from ostinato.decode import Constraint
from ostinato.decode.constraint import matcher
from ostinato.errors import InputError
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


def peer(schema: Any, value: Any) -> bool:
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


SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.just({}), some_keywords, max_leaves=6
).filter(lambda schema: isinstance(schema, dict))
DEFS = {
    "text": {"type": "string", "maxLength": 2},
    "list": {"type": "array", "items": {"$ref": "#/$defs/text"}},
    "tree": {
        "$anchor": "tree",
        "additionalProperties": {"$ref": "#tree"},
        "type": ["object", "null"],
    },
}


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(SCHEMAS, st.lists(VALUES, min_size=3, max_size=3))
def test_any_schema_judges_as_jsonschema_does(schema: dict[str, Any], values: list[Any]) -> None:
    schema = {**schema, "$defs": DEFS}
    check = JsonSchema(schema=schema)
    for value in values:
        text = json.dumps(value)
        (verdict,) = judge_all([check], text, {})
        assert not verdict.error
        assert verdict.passed == peer(schema, json.loads(text)), (text, verdict)
        assert_prefixes_agree(check, text, verdict.passed)


# Where it differs on purpose ----------------------------------------------------------------------


def test_every_price_is_a_multiple_of_a_cent() -> None:
    check = JsonSchema(schema={"multipleOf": 0.01})
    prices = [f"{cents // 100}.{cents % 100:02}" for cents in range(1, 10_000)]
    assert [price for price in prices if not check.judge(price, {}).passed] == []
    assert not any(check.judge(f"{price}5", {}).passed for price in prices[::100])


@pytest.mark.parametrize(
    ("schema", "text", "right"),
    [
        ({"multipleOf": 0.01}, "1e400", False),  # Infinity for those who read it
        ({"multipleOf": 0.01}, "1e300", True),
        ({"multipleOf": 0.01}, "1e-400", False),
        ({"multipleOf": 0.01}, "1" + "0" * 400, True),
        ({"multipleOf": 1e-7}, "0.0000003", True),
        ({"multipleOf": 0.1}, "-0.0", True),
        ({"multipleOf": 3}, "0.3e1", True),
        ({"maximum": 0.1}, "0.10000000000000000001", False),
        ({"exclusiveMinimum": 1e300}, "1" + "0" * 301, True),
        ({"const": 0.1}, "1e-1", True),
        ({"const": 0.1}, "0.1000000000000000000001", False),
        ({"type": "integer"}, "12345678901234567890.5", False),
        ({"uniqueItems": True}, "[[1], [true], [1]]", False),  # `jsonschema` sorts, and misses it
        ({}, "9" * 5000, False),
        ({}, "[" * 128 + "]" * 128, True),
        ({}, "[" * 129 + "]" * 129, False),
        ({"type": "array", "items": {"$ref": "#"}}, "[" * 100 + "]" * 100, True),
        ({"type": "array", "items": {"$ref": "#"}}, "[" * 300 + "]" * 300, False),
        ({}, '{"a": 1, "a": 1}', False),
        (
            {"$schema": D2019, "additionalProperties": {}, "unevaluatedProperties": False},
            '{"a": 1}',
            True,
        ),
    ],
)  # fmt: skip
def test_numbers_depth_and_keys_are_judged_as_the_docs_say(
    schema: Any, text: str, right: bool
) -> None:
    check = JsonSchema(schema=schema)
    (verdict,) = judge_all([check], text, {})
    assert (verdict.passed, verdict.error) == (right, ""), verdict
    assert len(verdict.message) < 2000
    assert_prefixes_agree(check, text[:40], right) if len(text) < 40 else None


# Masks --------------------------------------------------------------------------------------------


def is_masked_in(schema: Any, text: str) -> bool | None:
    """Return whether a mask lets a text be written; None for a schema that has none."""
    tokenizer = tiny_model().tokenizer
    try:
        at = matcher(Constraint.json_schema(schema), tokenizer)
    except InputError:
        return None
    tokens = tokenizer.encode(text)
    return at.try_consume_tokens(tokens) == len(tokens) and bool(at.is_accepting())


MASK_ROWS: list[tuple[Any, str]] = [
    *((schema, text) for schema, text, right in ROWS if not right),
    ({"type": "string", "pattern": r"^\d$"}, '"٣"'),
    ({"type": "string", "pattern": "^.$"}, '"\u2028"'),
    ({"type": "string", "pattern": "^[0-9]+$"}, r'"12\n"'),
    ({"type": "number", "multipleOf": 0.01}, "0.075"),
    ({"type": "number", "maximum": 0.1}, "0.10000000000000000001"),
    ({"x-guidance": {"lenient": True}, "not": {}}, "1"),
    ({"patternProperties": {r"^\d$": {}}, "additionalProperties": False}, '{"٣": 2}'),
]


@pytest.mark.parametrize(("schema", "text"), MASK_ROWS)
def test_a_mask_lets_nothing_be_written_that_does_not_pass(schema: Any, text: str) -> None:
    assert not JsonSchema(schema=schema).judge(text, {}).passed
    assert not is_masked_in(schema, text)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string", "pattern": r"^\p{Letter}+$"}, '"éa"'),
        ({"type": "string", "pattern": r"^(?<y>\d{4})$"}, '"1234"'),
        ({"type": "string", "pattern": "a|^b"}, '"xa"'),
        ({"type": "string", "pattern": "^.$"}, '"😀"'),
        ({"type": "number", "multipleOf": 0.01}, "0.07"),
        ({"patternProperties": {"^x": {"type": "null"}}, "type": "object"}, '{"xa": null}'),
    ],
)
def test_a_mask_lets_be_written_what_passes(schema: Any, text: str) -> None:
    assert JsonSchema(schema=schema).judge(text, {}).passed
    assert is_masked_in(schema, text)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"pattern": "a(?=b)"}, "does not look around"),
        ({"pattern": r"\bfoo"}, "does not look around"),
        ({"$schema": D3, "extends": {}}, "draft 4 or newer"),
        ({"uniqueItems": True}, "uniqueItems"),
        ({"x-guidance": {"lenient": True}, "not": {"type": "string"}}, "not"),
        ({"$ref": "#/$defs/adress"}, "must be a reference to a part of the schema"),
        ({"$ref": "http://127.0.0.1:1/x"}, "Nothing is fetched"),
        ({"type": "obj"}, "must be a JSON schema"),
    ],
)
def test_what_a_mask_cannot_follow_is_refused_by_name(schema: Any, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        Constraint.json_schema(schema).check()


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(SCHEMAS, st.lists(VALUES, min_size=3, max_size=3))
def test_what_the_mask_of_any_schema_accepts_passes(
    schema: dict[str, Any], values: list[Any]
) -> None:
    check = JsonSchema(schema={**schema, "$defs": DEFS})
    for value in values:
        text = json.dumps(value, ensure_ascii=False)
        assert not is_masked_in(check.schema, text) or check.judge(text, {}).passed, text
