"""The input is read whole, and refused with line and column before any work."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from refine_scribe import items_of

from ostinato.checks.templates import Template
from ostinato.errors import InputError, ItemError
from ostinato.refine.prompts import PromptTemplate, conversation, with_feedback


def write(folder: Path, text: str, name: str = "in.jsonl") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_broken_json_is_an_error_with_its_line(tmp_path: Path) -> None:
    lines = ['{"a": 1}'] * 16 + ['{"a": 1', '{"a": 2}', "[1]"]
    with pytest.raises(InputError) as caught:
        items_of(write(tmp_path, "\n".join(lines)))
    assert "in.jsonl has 2 problems" in str(caught.value)
    assert "line 17: it must be JSON" in str(caught.value)
    assert "line 19: it must be a JSON object" in str(caught.value)


def test_a_missing_column_is_an_error_with_what_needs_it(tmp_path: Path) -> None:
    path = write(tmp_path, '{"mesage": "x"}\n')
    with pytest.raises(InputError, match=r"line 1: the column 'message' is missing; the prompt"):
        items_of(path, template="{message}")
    with pytest.raises(InputError, match="Did you mean 'mesage'"):
        items_of(path, template="{message}")


def test_empty_input_is_refused(tmp_path: Path) -> None:
    for name in ("in.jsonl", "in.csv"):
        with pytest.raises(InputError, match="must hold at least one item"):
            items_of(write(tmp_path, "\n\n" if name == "in.jsonl" else "a,b\n", name))


def test_a_repeated_id_is_an_error_with_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": 1}\n\n{"id": "1"}\n{"id": 2}\n')
    with pytest.raises(InputError, match=r"^in\.jsonl, line 3: 'id' must be unique, got '1' as on"):
        items_of(path, id="id")


def test_an_id_is_a_text_or_a_whole_number(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": 1}\n{"id": true}\n{"id": 1.5}\n{"id": " "}\n')
    with pytest.raises(InputError) as caught:
        items_of(path, id="id")
    assert "in.jsonl has 3 problems" in str(caught.value)
    assert "line 2: 'id' must be a text or a whole number, got True" in str(caught.value)


def test_ragged_csv_is_an_error_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 4: a row must have 2 cells like the header, got 3"):
        items_of(write(tmp_path, 'a,b\n"one\ntwo",2\n1,2,3\n', "in.csv"))


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_a_line_separator_within_a_cell_does_not_end_its_row(
    tmp_path: Path, separator: str
) -> None:
    (item,) = items_of(write(tmp_path, f"a,b\none{separator}two,2\n", "in.csv"))
    assert item.columns == {"a": f"one{separator}two", "b": "2"} and item.line == 2


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(cells=st.lists(st.tuples(TEXTS, TEXTS), min_size=1))
@example(cells=[("\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e", '\r"\n,\ufeff')])
def test_every_text_comes_back_from_csv_and_jsonl(
    tmp_path: Path, cells: list[tuple[str, str]]
) -> None:
    rows = [{"a": a, "b": b} for a, b in cells]
    with (tmp_path / "in.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("a", "b"), *cells])
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    for path in (tmp_path / "in.csv", write(tmp_path, lines)):
        assert [item.columns for item in items_of(path)] == rows


def test_a_cell_has_no_length_limit_and_python_s_own_stays(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    (item,) = items_of(write(tmp_path, f"a\n{'x' * 200_000}\n", "in.csv"))
    assert item.columns == {"a": "x" * 200_000} and csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("value", "told"),
    [("[" * 100_000, "values nested too deeply"), ("1" * 5000, "a number of more than 4,300")],
)
def test_a_row_past_the_parser_s_limits_is_an_error_with_its_line(
    value: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"^in\.jsonl, line 2: it must be JSON: {told}"):
        items_of(write(tmp_path, f'{{"a": 1}}\n{{"a": {value}}}\n'))


def test_a_conversation_nested_without_end_is_an_error_of_its_item() -> None:
    with pytest.raises(ItemError, match="must hold at least one chat message"):
        conversation("[" * 100_000, "c")


def test_a_repeated_column_is_one_error(tmp_path: Path) -> None:
    told = r"^in\.csv, line 1: column names must differ, got 'a' 2 times\. Fix it there\.$"
    with pytest.raises(InputError, match=told):
        items_of(write(tmp_path, "a,b,a\n1,2,3\n", "in.csv"))


@pytest.mark.parametrize("sign", [";", "\t"])
def test_csv_without_commas_is_an_error(tmp_path: Path, sign: str) -> None:
    text = f"id{sign}message\n1{sign}Hello\n"
    with pytest.raises(InputError, match="line 1: cells must be separated by commas, got 'id"):
        items_of(write(tmp_path, text, "in.csv"))


def test_csv_and_jsonl_give_the_same_items(tmp_path: Path) -> None:
    csv = items_of(write(tmp_path, '\ufeffid,message\nx,Hi\ny,"a, b"\n', "in.csv"))
    jsonl = items_of(
        write(tmp_path, '{"id": "x", "message": "Hi"}\n{"id": "y", "message": "a, b"}\n')
    )
    assert [(i.key, i.index, i.columns) for i in csv] == [
        (i.key, i.index, i.columns) for i in jsonl
    ]


def test_the_key_is_the_content_and_its_occurrence_not_the_row(tmp_path: Path) -> None:
    one = items_of(write(tmp_path, '{"m": "a"}\n{"m": "b"}\n{"m": "a"}\n'))
    other = items_of(write(tmp_path, '{"m": "b"}\n{"m": "a"}\n{"m": "a"}\n'))
    assert {i.key for i in one} == {i.key for i in other}
    assert one[1].key == other[0].key
    assert one[0].key.endswith("-1") and one[2].key.endswith("-2")


def test_another_ending_and_another_encoding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be a \.jsonl, \.csv or \.parquet file"):
        items_of(write(tmp_path, "x", "in.txt"))
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": "x"}\n{"a": "\xff"}\n')
    with pytest.raises(InputError, match="line 2: the text must be UTF-8, got the byte 0xff"):
        items_of(path)


def test_a_template_fills_columns_and_nothing_else() -> None:
    template = Template("{a} {{b}} {list} {none}")
    assert template.columns == ("a", "list", "none")
    filled = template.fill({"a": "{x}", "list": ["é", 1], "none": None})
    assert filled == '{x} {b} ["é", 1] '
    with pytest.raises(ItemError, match=r"must name columns of the item, got 'a\.__class__'"):
        Template("{a.__class__}").fill({"a": "x"})


@pytest.mark.parametrize("text", ["{", "a } b", "{}", "{ }", "{a{b}}"])
def test_a_template_with_loose_braces_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="brace"):
        Template(text)


def test_examples_follow_the_leading_system_messages() -> None:
    prompt = PromptTemplate(messages=(("system", Template("Be kind.")), ("user", Template("{m}"))))
    shots = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    roles = [message["content"] for message in prompt.fill({"m": "Hi"}, shots)]
    assert roles == ["Be kind.", "q", "a", "Hi"]


def test_a_conversation_is_held_to_roles_and_texts() -> None:
    right = '[{"role": "user", "content": "Hi", "more": 1}]'
    assert conversation(right, "c") == [{"role": "user", "content": "Hi"}]
    for wrong in ("no", [], [{"role": "bot", "content": "x"}], [{"role": "user", "content": 3}]):
        with pytest.raises(ItemError, match="column 'c'"):
            conversation(wrong, "c")


def test_feedback_becomes_turns_of_the_conversation() -> None:
    messages = with_feedback(
        [{"role": "user", "content": "Hi"}], {"draft": "Yo", "reasons": ["Add 2 words."]}
    )
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == "Yo"
    assert messages[2]["content"].endswith("- Add 2 words.")
