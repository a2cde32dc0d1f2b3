"""JSON schemas as they are read: patterns of ECMA-262, references, and what is refused where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from ostinato.checks import JsonSchema, from_spec
from ostinato.errors import InputError
from ostinato.schemas import check_schema, ecma_pattern

# A pattern, texts in which it is found, texts in which it is not.
PATTERNS: list[tuple[str, list[str], list[str]]] = [
    (r"^\p{Letter}+$", ["aé", "人"], ["a1", ""]),
    (r"^\p{L}\P{Lu}$", ["aa", "A1"], ["aA"]),
    (r"^\p{Script=Greek}$", ["α"], ["a"]),
    (r"^\p{sc=Grek}\p{scx=Greek}\p{gc=Nd}$", ["αα1"], ["aα1"]),
    (r"^[\p{Lu}\P{L}]$", ["A", "1"], ["a"]),
    (r"^\p{ASCII}\p{Any}\p{Emoji_Presentation}$", ["aé😀"], ["éa😀"]),
    (r"(?<y>\d{4})-\k<y>", ["1234-1234"], ["1234-1235"]),
    (r"^\d$", ["1"], ["٣", "१"]),
    (r"^\D$", ["٣"], ["1"]),
    (r"^\w+$", ["a_9"], ["é", "ſ"]),
    (r"^\W$", ["é"], ["_"]),
    (r"\bb", ["éb", "b"], ["ab"]),
    (r"a\B", ["ab"], ["aé", "a"]),
    (r"^\s$", ["\ufeff", "\u00a0", "\u2028", "\v"], ["\x1c", "\u0085", "\u180e"]),
    (r"^[\S]$", ["\x1c"], ["\u3000"]),
    (r"^.$", ["\u0085", "😀", "\v"], ["\n", "\r", "\u2028", "\u2029"]),
    ("^[0-9]+$", ["12"], ["12\n", "\n12"]),
    (r"^\cJ\cj\0\x41\u0042\u{1F600}\uD83D\uDE00$", ["\n\n\0AB😀😀"], []),
    (r"^\/\-\@\.$", ["/-@."], []),
    ("^[^]$", ["\n", "x"], [""]),
    ("[]", [], ["", "x"]),
    (r"^[\b]$", ["\b"], ["b"]),
    (r"^[a\-z\]]$", ["-", "]"], ["b"]),
    ("^[[:alpha:]]$", ["[]", ":]"], ["a"]),
    ("^{}]$", ["{}]"], []),
    ("^a{2,3}?$|^(?:b|cd){1}$", ["aa", "aaa", "b", "cd"], ["a", "c"]),
    (r"(a)|b\1c", ["bc", "a"], ["b"]),
    ("(?<=€)1(?!0)", ["€12"], ["€10", "12"]),
    ("^(?i:é)b(?s:.)(?m:^c$)$", ["Éb\nc"], ["Éb\nC", "ÉBxc"]),
    ("", ["", "a"], []),
]


@pytest.mark.parametrize(("pattern", "found", "missed"), PATTERNS)
def test_a_pattern_means_what_ecma_262_says(
    pattern: str, found: list[str], missed: list[str]
) -> None:
    known = ecma_pattern(pattern)
    check = JsonSchema(schema={"type": "string", "pattern": pattern})
    for text in [*found, *missed]:
        assert (known.compiled.search(text) is not None) == (text in found), text
        assert check.judge(json.dumps(text), {}).passed == (text in found), text
        if known.language is not None:
            assert (regex.fullmatch(known.language, text) is not None) == (text in found), text


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(?i)a", r"a group that begins with '\(\?i\)' at character 1. Write \(\?i:…\)"),
        ("(?P<y>a)", r"Write \(\?<name>…\)"),
        ("(?>a)", r"a group that begins with '\(\?>a'"),
        ("a++", "a repeated repetition at character 3"),
        ("a{,3}", r"without its least number at character 2. Write \{0,…\}"),
        ("a{3,2}", "out of order"),
        ("*a", "nothing to repeat at character 1"),
        ("(?=a)*", "a repeated assertion"),
        (r"\Aa\Z", r"the escape '\\A' at character 1"),
        (r"\p{Greek}", r"\{Greek\} at character 1. Write \{Script=Greek\} for a script"),
        (r"\p{script=Greek}", "unknown property {script=Greek}"),
        (r"\p{Script=Klingon}", "unknown property {Script=Klingon}"),
        (r"\pL", "without {…}"),
        (r"[\w-.]", "a range between classes"),
        ("[z-a]", "a range out of order"),
        ("[a", r"an unmatched '\[' at character 2"),
        ("(a", r"an unmatched '\(' at character 1"),
        ("a)", r"an unmatched '\)' at character 2"),
        (r"\1(a)", "a reference to no group that ends before it"),
        (r"(?:(a)|b\1)+", "a reference repeated with its group"),
        (r"\k<n>", "without the name of a group"),
        ("(?<n>a)(?<n>b)", "the group 'n' twice"),
        ("a\\", "the escape"),
        (r"\u{110000}", "the escape"),
        ("(" * 5000 + ")" * 5000, "must be one that can be compiled"),
    ],
)
def test_what_is_no_ecma_262_is_refused_by_name(pattern: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ecma_pattern(pattern)
    with pytest.raises(InputError, match=r"It is at properties\.a\.pattern|It is at patternProp"):
        check_schema({"properties": {"a": {"pattern": pattern}}})


PIECES = ["a", "é", "|", "^", "$", "(?:", ")", "[^a]", r"\d", r"\W", ".", "*", "?", "{1,2}", "()"]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
    st.lists(st.sampled_from(["a", "é", "1", "\n", "\u2028", "_"]), max_size=4).map("".join),
)
def test_the_language_of_a_pattern_is_where_it_is_found(pattern: str, text: str) -> None:
    try:
        known = ecma_pattern(pattern)
    except InputError:
        return
    if known.language is not None:
        whole = regex.fullmatch(known.language, text) is not None
        assert whole == (known.compiled.search(text) is not None)


DRAFT_7 = "http://json-schema.org/draft-07/schema#"
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"$ref": "#/$defs/adress", "$defs": {"address": {}}},
        r"'\$ref' of the schema must be a reference to a part of the schema, got "
        r"'#/\$defs/adress'. Did you mean 'address'",
    ),
    ({"properties": {"a": {"$ref": "#/properties/b"}}}, r"'properties\.a\.\$ref' of the schema"),
    ({"allOf": [{}], "$ref": "#/allOf/7"}, "a reference to a part"),
    ({"allOf": [{}], "$ref": "#/allOf/x"}, "a reference to a part"),
    ({"title": "a", "$ref": "#/title"}, "a reference to a schema"),
    ({"$ref": "#nowhere"}, "a reference to a part"),
    ({"$ref": "http://127.0.0.1:1/x"}, "Nothing is fetched: copy what it refers to"),
    ({"items": {"$ref": "other.json"}}, r"'items\.\$ref' .* Nothing is fetched"),
    ({"x": {"type": "obj"}, "$ref": "#/x"}, "'obj' is not valid"),
    ({"$schema": "http://json-schema.org/draft-04/schema#", "$ref": 5}, "must be a text, got 5"),
    ({"$ref": "#"}, "must be a reference that does not lead back to itself"),
    (
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "items": True},
        r"'\$defs\.a\.\$ref' .* does not lead back to itself",
    ),
    ({"anyOf": [{"type": "string"}, {"$ref": "#"}]}, r"'anyOf\.1\.\$ref' .* back to itself"),
    ({"dependentSchemas": {"a": {"not": {"$ref": "#"}}}}, "back to itself"),
    ({"$dynamicAnchor": "n", "$dynamicRef": "#n"}, "back to itself"),
    ({"$schema": "http://json-schema.org/draft-7/schema"}, "must be a dialect of JSON Schema"),
    ({"properties": {"a": {"$schema": DRAFT_7}}}, r"'properties\.a\.\$schema' .* whole schema"),
    ({"properties": {"a": {"type": "obj"}}}, r"got 'obj' at properties\.a\.type"),
    ({"maximum": float("inf")}, "must hold finite numbers, got inf"),
]


@pytest.mark.parametrize(("schema", "said"), REFUSED)
def test_a_schema_that_cannot_be_used_is_refused_when_it_is_read(
    schema: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        JsonSchema(schema=schema)
    assert caught.value.key == "schema"
    with pytest.raises(InputError, match=said):
        JsonSchema(column="own").check_item({"own": schema})
    if "Infinity" not in (text := json.dumps(schema)):
        (tmp_path / "form.json").write_text(text)
        with pytest.raises(InputError, match=said):
            from_spec("json_schema", {"file": "form.json"}, tmp_path)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"$ref": "#"}},
        {"$schema": DRAFT_7, "$defs": {"a": {}}, "$ref": "#/$defs/a", "not": {"$ref": "#"}},
        {"enum": [{"$ref": "http://127.0.0.1:1/x"}], "properties": {"$ref": {"type": "string"}}},
        {"properties": {"$schema": {"const": DRAFT_7}}},
        {"x": {"properties": {"y": {"$ref": "#/x"}}}, "$ref": "#/x"},
        {"$ref": DRAFT_7},
        {"$schema": "https://example.com/own-dialect"},
        {"enum": ("a", "b")},
    ],
)  # fmt: skip
def test_a_schema_that_can_be_used_is_taken(schema: dict[str, Any]) -> None:
    if schema == {"$ref": DRAFT_7}:  # the schema of another dialect
        with pytest.raises(InputError, match="whole schema"):
            check_schema(schema)
        return
    check_schema(schema)
