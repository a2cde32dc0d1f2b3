"""Text, JSON and TOML are read in one place: encodings, byte order marks, limits, messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ostinato.errors import InputError, ModelError
from ostinato.text_files import (
    half_character,
    parse_json,
    read_json,
    read_jsonl,
    read_text,
    read_toml,
)

TEXT = "é one\u2028two\x85\nthree 😀\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.replace("\n", "\r\n").encode("utf-8-sig"),
        TEXT.replace("\n", "\r").encode(),
    ],
)
def test_a_text_is_the_same_in_every_encoding_that_says_what_it_is(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert read_text(tmp_path / "a.txt") == TEXT


def test_line_ends_are_kept_where_they_are_data(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(tmp_path / "a.csv", newline="") == "a\r\nb\rc\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"one\nt\xe9o", "line 2: the text must be UTF-8, got the byte 0xe9 at offset 5"),
        (b"\xef\xbb\xbfo\n\xff", "line 2: the text must be UTF-8, got the byte 0xff at offset 5"),
        ("a\nb".encode("utf-16-le"), "line 1: .* UTF-8, got the byte 0x00 at offset 1"),
        (b"\xff\xfea\0\n\0b", "line 2: .* UTF-16-LE, got the byte 0x62 at offset 6"),
        (b"\xff\xfea\0\n\0\x00\xd8", "line 2: .* UTF-16-LE, got the byte 0x00 at offset 6"),
        (b"a\n\0", "line 2: .* UTF-8, got the byte 0x00 at offset 2"),
    ],
)
def test_bytes_that_are_no_text_are_named_with_file_line_and_offset(
    content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.txt, {told}\. Save the file as UTF-8\.$"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none", r"none must exist\. Check its name\.$"),
        ("", r"must be readable, got: is a directory\.$"),
        ("a\0b", r"must be readable, got: .*null"),
        ("a" * 300, r"must be readable, got: file name too long\.$"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        read_text(tmp_path / name)


def test_a_package_gives_its_own_error_and_its_own_mend(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    for name in ("a.json", "none.json"):
        with pytest.raises(ModelError, match=r"Copy the folder again\.$"):
            read_json(tmp_path / name, raises=ModelError, fix="Copy the folder again.")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "values nested too deeply"),
        ("1" * 5000, "a number of more than 4,300 digits"),
        (r'{"a": ["\ud83d"]}', r"it must hold whole characters, got half of one, \\ud83d"),
        (r'{"\uDe00": 1}', r"it must hold whole characters, got half of one, \\ude00"),
    ],
)
def test_json_that_cannot_be_used_is_a_value_error(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        parse_json(text)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=rf"a\.json must be JSON, got: {told}"):
        read_json(tmp_path / "a.json")


def test_two_halves_are_a_whole_character() -> None:
    assert parse_json(json.dumps({"😀": ["😀"]})) == {"😀": ["😀"]}
    assert half_character("one 😀") == ""
    assert half_character("one \udce9") == r"\udce9"
    assert parse_json(r'"\ud83d"', keep_halves=True) == "\ud83d"


def test_rows_have_their_lines_and_every_bad_line_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"a": "x\u2028\x85y"}\r\n\r\n{"a": 2}', encoding="utf-8")
    assert read_jsonl(path) == [(1, {"a": "x\u2028\x85y"}), (3, {"a": 2})]
    path.write_text(f"[1]\n{{}}\n{{\n{'[' * 100_000}\n")
    with pytest.raises(InputError, match=r"3 problems:\n  line 1: .* object, got \[1\]\n  line 3"):
        read_jsonl(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = 1\nb = ", r"got: Invalid value \(at end of document\)\. Fix"),
        (f"a = {'[' * 100_000}", r"got: values nested too deeply\. Fix"),
        (f"a = {'1' * 5000}", r"got: a number of more than 4,300 digits\. Fix"),
    ],
)
def test_toml_that_cannot_be_used_is_refused(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"^a\.toml must be TOML, {told} it there\.$"):
        read_toml(path)


def test_toml_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("a = 1\r\n", encoding="utf-8-sig")
    assert read_toml(tmp_path / "a.toml") == ({"a": 1}, "a = 1\n")
