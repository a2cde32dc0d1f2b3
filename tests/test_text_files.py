"""Text, JSON and TOML are read in one place: encodings, byte order marks, limits, messages."""

from __future__ import annotations

import gzip
import io
import json
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ostinato import text_files
from ostinato.errors import InputError, ModelError
from ostinato.text_files import (
    decode_text,
    half_character,
    iter_jsonl,
    iter_lines,
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


# Lines, as a stream -----------------------------------------------------------------------------

PIECES = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\r", b"\n", b"\r\n", b"\0", b"\xff", b"a"]
PIECES += ["é\u2028😀".encode(), "é😀\n".encode("utf-16-le"), "é😀\r".encode("utf-16-be")]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pieces=st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=12),
    block=st.integers(1, 9),
    newline=st.sampled_from([None, ""]),
    zipped=st.booleans(),
)
def test_a_streamed_file_has_the_lines_and_the_error_of_the_whole_one(
    tmp_path: Path, pieces: list[bytes], block: int, newline: str | None, zipped: bool
) -> None:
    content = b"".join(pieces)
    path = tmp_path / ("a.txt.gz" if zipped else "a.txt")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "BLOCK", block)
        try:
            text = decode_text(content, str(path), newline=newline)
        except InputError as error:
            with pytest.raises(InputError, match=f"^{re.escape(str(error))}$"):
                list(iter_lines(path, newline=newline))
        else:
            whole = io.StringIO(text, newline=newline)
            assert list(iter_lines(path, newline=newline)) == list(whole)


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "LONGEST_LINE", 1000)
    monkeypatch.setattr(text_files, "BLOCK", 100)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n" + b" " * 1_000_000))
    with pytest.raises(InputError, match=r"^a\.jsonl\.gz, line 2: it must have at most 1,000 char"):
        list(iter_lines(path))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (gzip.compress(b"{}\n" * 9)[:-4], r"from line 10 on: .* Compressed file ended before"),
        (b'{"a": 1}\n', r"from line 1 on: .* Not a gzipped file"),
        (gzip.compress(b"{}\n") + b"rest", r"from line 2 on: .* Not a gzipped file"),
        (gzip.compress(b"{}\n")[:-8] + b"\1" * 8, r"from line 2 on: .* CRC check failed"),
        (gzip.compress(b"{}\n")[:10] + b"\xff" * 9, r"from line 1 on: .* invalid block type"),
    ],
    # Not by their content, which has the time in it: processes collect at other seconds.
    ids=["cut", "no gzip", "rest", "checksum", "no blocks"],
)
def test_damaged_gzip_data_is_told_with_its_place(
    content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    with pytest.raises(
        InputError, match=rf"^a\.jsonl\.gz, {told}.*\. Compress or copy it again\.$"
    ):
        list(iter_lines(tmp_path / "a.jsonl.gz"))


def test_memory_does_not_grow_with_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "BLOCK", 1 << 14)

    def peak(lines: int) -> int:
        path = tmp_path / f"{lines}.jsonl"
        path.write_text('{"a": "some text", "b": [1, 2], "c": "some more"}\n' * lines)
        tracemalloc.start()
        assert sum(1 for _ in iter_jsonl(path)) == lines
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(40_000) < 1.1 * peak(4_000) < 2**20
