"""Values of training rows keep their types: null is absent, what is no text is refused by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model

from ostinato.errors import InputError
from ostinato.train import examples
from ostinato.train.rows import Completion, Dialogue, PlainText, parse_row

ASKED = {"role": "user", "content": "Your phone number?"}
ANSWERED = {"role": "assistant", "content": "It is 408."}
TAKEN: list[tuple[dict[str, Any], object]] = [
    ({"text": "We can"}, PlainText("We can")),
    ({"text": ""}, PlainText("")),
    ({"text": "We can", "messages": None, "completion": None}, PlainText("We can")),
    ({"prompt": "We", "completion": " can"}, Completion("We", " can")),
    ({"prompt": None, "completion": "We can"}, Completion("", "We can")),
    ({"completion": "We can", "text": None}, Completion("", "We can")),
    ({"messages": [ASKED, ANSWERED]}, Dialogue([ASKED, ANSWERED])),
    ({"prompt": [ASKED], "completion": [ANSWERED]}, Dialogue([ASKED, ANSWERED])),
    ({"prompt": None, "completion": [ANSWERED]}, Dialogue([ANSWERED])),
    ({"prompt": [], "completion": [ANSWERED]}, Dialogue([ANSWERED])),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}]},
        Dialogue([{"role": "user", "content": "ab"}]),
    ),
    (
        {"messages": [{**ASKED, "name": "Ann"}]},
        Dialogue([{**ASKED, "name": "Ann"}]),
    ),
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"text": None}, r"must hold 'text'.*got text \(null\)"),
    ({}, "must hold 'text'.*got nothing"),
    ({"tekst": "a"}, "must hold 'text'.*got tekst"),
    ({"text": 5}, "'text' must be text, got 5"),
    ({"text": True}, "'text' must be text, got true"),
    ({"text": ["a", "b"]}, r"'text' must be text, got \[\"a\", \"b\"\]"),
    ({"prompt": "the", "completion": None}, "'completion' must be text or messages, got null"),
    ({"prompt": "the", "completion": 42}, "'completion' must be text, got 42"),
    ({"prompt": 1.5, "completion": "a"}, "'prompt' must be text, got 1.5"),
    ({"prompt": {"a": 1}, "completion": "a"}, "'prompt' must be text, got"),
    ({"prompt": "the", "completion": [ANSWERED]}, "'prompt' must be a list of messages"),
    ({"prompt": [ASKED], "completion": "a"}, "'prompt' must be text, got"),
    ({"messages": "hello"}, "'messages' must be a list of objects"),
    ({"messages": [["user", "a"]]}, "'messages' must be a list of objects"),
    ({"messages": [ASKED, {"content": "a"}]}, "message 2: 'role' must be text, got null"),
    ({"messages": [{"role": "user"}]}, "message 1: 'content' must be text, got null"),
    ({"messages": [{"role": "user", "content": 7}]}, "message 1: 'content' must be text, got 7"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        "message 1: 'content' must be text or a list of text parts, got .*image_url",
    ),
]


@pytest.mark.parametrize(("row", "value"), TAKEN)
def test_a_row_is_read_by_its_types(row: dict[str, Any], value: object) -> None:
    assert parse_row(row, "a.jsonl, row 1") == value


@pytest.mark.parametrize(("row", "message"), REFUSED)
def test_what_is_no_text_is_refused_by_row(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "We can"}\n' + json.dumps(row) + "\n")
    with pytest.raises(InputError, match=rf"a\.jsonl, row 2.*{message}"):
        list(examples([path], tiny_model().tokenizer, 64))


def test_a_prompt_and_completion_of_messages_are_learned_as_a_dialogue(tmp_path: Path) -> None:
    tokens = []
    for name, row in {
        "a.jsonl": {"prompt": [ASKED], "completion": [ANSWERED]},
        "b.JSONL": {"messages": [ASKED, ANSWERED]},
    }.items():
        (tmp_path / name).write_text(json.dumps(row))
        tokens.append(list(examples([tmp_path / name], tiny_model().tokenizer, 64)))
    assert tokens[0] == tokens[1] and len(tokens[0]) == 1
