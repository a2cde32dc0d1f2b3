"""Reads what is written as text: plain text, JSON, JSONL, TOML. Knows encodings; no meaning.

Every text file that a user can give is read here, so that all of them may begin with a byte order
mark, and all are refused in the same words: file, line, what is wrong, how to fix it.
"""

from __future__ import annotations

import codecs
import io
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ostinato.arguments import reason
from ostinato.errors import InputError, OstinatoError

SHOWN = 8
"""How many problems of a file are listed."""

_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_HALF = re.compile(r"[\ud800-\udfff]")
_HALF_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(
    path: str | Path,
    *,
    newline: str | None = None,
    fix: str = "",
    missing: str = "",
    raises: type[OstinatoError] = InputError,
) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 if it begins with its byte order mark.

    The mark is skipped. `newline` is that of `open`: None ends every line with `\\n`, "" keeps the
    endings. Raises `raises` for a file that is missing or no text: `fix` is then the last sentence,
    and `missing` the message for no file.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        told = missing or f"The file {path} must exist. {fix or 'Check its name.'}"
        raise raises(told) from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        why = f"The file {path} must be readable, got: {reason(error)}."
        raise raises(f"{why} {fix}".rstrip()) from None
    return decode_text(content, str(path), newline=newline, fix=fix, raises=raises)


def decode_text(
    content: bytes,
    name: str,
    *,
    newline: str | None = None,
    fix: str = "",
    raises: type[OstinatoError] = InputError,
) -> str:
    """Return bytes as `read_text` returns those of a file; `name` stands for it in messages."""
    marks = (mark for mark in _ENCODINGS if content.startswith(mark))
    mark = next(marks, b"")
    encoding = _ENCODINGS.get(mark, "utf-8")
    try:
        text = content[len(mark) :].decode(encoding)
        end = text.find("\0")  # no text has one, but UTF-16 without a mark is full of them
        at = len(text[:end].encode(encoding)) if end >= 0 else None
    except UnicodeDecodeError as error:
        at = error.start
    if at is not None:
        at += len(mark)
        line = content[:at].decode(encoding, "ignore").count("\n") + 1
        raise raises(
            f"{name}, line {line}: the text must be {encoding.upper()}, got the byte "
            f"0x{content[at]:02x} at offset {at:,}. {fix or 'Save the file as UTF-8.'}"
        )
    return io.StringIO(text, newline=newline).read()


@contextmanager
def unmarked(folder: Path) -> Iterator[Path]:
    """Yield a folder for a library that refuses JSON files with a byte order mark.

    Where none has one it is the folder itself, else a temporary one of links and of copies without.
    """
    marked = [path for path in folder.rglob("*.json") if _begins(path, codecs.BOM_UTF8)]
    if not marked:
        yield folder
        return
    with TemporaryDirectory(prefix="ostinato-") as name:
        for path in folder.rglob("*"):
            target = Path(name, path.relative_to(folder))
            target.parent.mkdir(parents=True, exist_ok=True)
            if path in marked:
                target.write_text(read_text(path), encoding="utf-8")
            elif path.is_file():
                target.symlink_to(path.resolve())
        yield Path(name)


def _begins(path: Path, mark: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(mark)) == mark
    except OSError:  # a folder of that name, a broken link: the library says so
        return False


def half_character(value: object) -> str:
    """Return a half character (lone surrogate) in the texts of a value, as `\\ud83d`; else empty.

    JSON can escape one, and an argument that is not UTF-8 holds one for each byte. No encoding has
    them, so they must be found before a tokenizer, a file or a hash meets one.
    """
    if isinstance(value, str) and value.isascii():  # nearly every text of nearly every item
        return ""
    found = next((half for text in _texts(value) if (half := _HALF.search(text))), None)
    return f"\\u{ord(found[0]):04x}" if found else ""


def _texts(value: object) -> Iterator[str]:
    """Yield every text in a value, keys too. Not recursive, so no depth breaks it."""
    rest = [value]
    while rest:
        part = rest.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, list | tuple):
            rest += part
        elif isinstance(part, Mapping):
            rest += [*part, *part.values()]


# JSON -----------------------------------------------------------------------------------------


def parse_json(text: str, *, keep_halves: bool = False) -> Any:
    """Return the value of a JSON text. Raises `ValueError` for whatever is wrong with it.

    That includes nesting too deep for the parser and numbers too long for it; also half characters,
    unless they are kept.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(_limit(error)) from None
    # Few texts must be searched value by value: an escape gives one, or an argument holds it.
    doubtful = not keep_halves and (_HALF_ESCAPE.search(text) or _HALF.search(text))
    if doubtful and (half := half_character(value)):
        raise ValueError(f"it must hold whole characters, got half of one, {half}")
    return value


def _limit(error: Exception) -> str:
    """Return which limit of a parser was met; Python's own words name functions of it."""
    if isinstance(error, RecursionError):
        return "values nested too deeply"
    return f"a number of more than {sys.get_int_max_str_digits():,} digits"


def read_json(
    path: str | Path,
    *,
    fix: str = "Fix it there.",
    missing: str = "",
    raises: type[OstinatoError] = InputError,
) -> Any:
    """Return the value of a JSON file. Raises `raises` as `read_text` does, and for other texts."""
    text = read_text(path, fix=fix, missing=missing, raises=raises)
    try:
        return parse_json(text)
    except ValueError as error:
        raise raises(f"{path} must be JSON, got: {error}. {fix}".rstrip()) from None


def read_object(
    path: str | Path,
    *,
    fix: str = "Fix it there.",
    missing: str = "",
    raises: type[OstinatoError] = InputError,
) -> dict[str, Any]:
    """Return the object of a JSON file, as `read_json` does."""
    value = read_json(path, fix=fix, missing=missing, raises=raises)
    if not isinstance(value, dict):
        raise raises(f"{path} must hold a JSON object, got {type(value).__name__}. {fix}".rstrip())
    return value


def read_jsonl(path: Path, *, keep_halves: bool = False) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of a JSONL file with their lines, from 1. Blank lines are skipped.

    Raises `InputError` that lists every line that is no object. With `keep_halves`, half characters
    are left to whoever uses the row.
    """
    problems: list[str] = []
    rows: list[tuple[int, dict[str, Any]]] = []
    # Not `splitlines`: a JSON text may contain U+2028 or U+0085, which would split it.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = parse_json(line, keep_halves=keep_halves)
        except ValueError as error:
            problems.append(f"line {number}: it must be JSON: {error}")
            continue
        if isinstance(value, dict):
            rows.append((number, value))
        else:
            problems.append(f"line {number}: it must be a JSON object, got {line.strip()[:40]}")
    if problems:
        raise InputError(problem_list(path, problems))
    return rows


def problem_list(path: Path, problems: list[str]) -> str:
    """Return the message for the problems of a file, at most `SHOWN` of them."""
    if len(problems) == 1:
        end = "" if problems[0].endswith((".", "?")) else "."
        return f"{path.name}, {problems[0]}{end} Fix it there."
    shown = [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        shown.append(f"  and {len(problems) - SHOWN} more")
    lines = "\n".join(shown)
    return f"{path.name} has {len(problems)} problems:\n{lines}"


# TOML -----------------------------------------------------------------------------------------


def read_toml(path: Path, *, missing: str = "") -> tuple[dict[str, Any], str]:
    """Return the values of a TOML file, and its text. Raises `InputError`, with the line."""
    text = read_text(path, missing=missing)
    try:
        return tomllib.loads(text), text
    except (ValueError, RecursionError) as error:
        why = error if isinstance(error, tomllib.TOMLDecodeError) else _limit(error)
        raise InputError(f"{path.name} must be TOML, got: {why}. Fix it there.") from None
