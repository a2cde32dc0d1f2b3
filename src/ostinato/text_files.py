"""Reads what is written as text: plain text, JSON, JSONL, TOML. Knows encodings; no meaning.

Every text file that a user can give is read here, so that all of them may begin with a byte order
mark, and all are refused in the same words: file, line, what is wrong, how to fix it.
"""

from __future__ import annotations

import codecs
import gzip
import io
import itertools
import json
import math
import re
import sys
import tomllib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ostinato.arguments import reason
from ostinato.errors import InputError, OstinatoError

SHOWN = 8
"""How many problems of a file are listed."""

BLOCK = 1 << 18
"""Bytes of a file that are read at a time."""

LONGEST_LINE = 1 << 26
"""Characters in a line of a streamed file: a file of no lines would else fill the memory."""

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
    mark, encoding = _encoding(content)
    body, whole = content[len(mark) :], True
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError as error:
        text, whole = body[: error.start].decode(encoding), False
    before, null, _ = text.partition("\0")  # UTF-16 without a mark is full of them
    if null or not whole:
        line, at = before.count("\n") + 1, len(mark) + len(before.encode(encoding))
        raise raises(_no_text(name, line, encoding, content[at], at, fix))
    return io.StringIO(text, newline=newline).read()


def _encoding(content: bytes) -> tuple[bytes, str]:
    """Return the byte order mark that a file begins with, if any, and its encoding."""
    marks = (mark for mark in _ENCODINGS if content.startswith(mark))
    mark = next(marks, b"")
    return mark, _ENCODINGS.get(mark, "utf-8")


def _no_text(name: str, line: int, encoding: str, byte: int, at: int, fix: str) -> str:
    return (
        f"{name}, line {line}: the text must be {encoding.upper()}, got the byte 0x{byte:02x} at "
        f"offset {at:,}. {fix or 'Save the file as UTF-8.'}"
    )


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


def parse_json(text: str, *, keep_halves: bool = False, finite: bool = False) -> Any:
    """Return the value of a JSON text. Raises `ValueError` for whatever is wrong with it.

    That includes nesting too deep for the parser and numbers too long for it; also half characters,
    unless they are kept. With `finite`, NaN and infinities become None.
    """
    try:
        value = _loads_finite(text) if finite and _ENDLESS.search(text) else json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(_limit(error)) from None
    # Few texts must be searched value by value: an escape gives one, or an argument holds it.
    doubtful = not keep_halves and (_HALF_ESCAPE.search(text) or _HALF.search(text))
    if doubtful and (half := half_character(value)):
        raise ValueError(f"it must hold whole characters, got half of one, {half}")
    return value


_ENDLESS = re.compile(r"NaN|Infinity|[0-9][eE]\+?[0-9]{3}")
"""What a number that is not finite may look like; far from every text with it holds one."""


def _loads_finite(text: str) -> Any:
    def number(digits: str) -> float | None:
        value = float(digits)
        return value if math.isfinite(value) else None

    return json.loads(text, parse_constant=lambda name: None, parse_float=number)


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
    """Return the objects of a JSONL file with their lines, as `iter_jsonl` yields them."""
    return list(iter_jsonl(path, keep_halves=keep_halves))


def iter_jsonl(path: Path, *, keep_halves: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a JSONL file with their lines, from 1. Blank lines are skipped.

    NaN and infinities, which Python writes though JSON has none, become None. Raises `InputError`
    that lists every line that is no object, after the last line. With `keep_halves`, half
    characters are left to whoever uses the row.
    """
    problems = FileProblems(path)
    for number, line in enumerate(iter_lines(path), 1):
        if not line.strip():
            continue
        try:
            value = parse_json(line, keep_halves=keep_halves, finite=True)
        except ValueError as error:
            problems.add(f"line {number}: it must be JSON: {error}")
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            problems.add(f"line {number}: it must be a JSON object, got {line.strip()[:40]}")
    problems.refuse()


class FileProblems:
    """The problems of a file, in the order found: the first `SHOWN` are kept, the rest counted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first: list[str] = []
        self.count = 0

    def add(self, problem: str) -> None:
        """Add a problem: its place, a colon, and what is wrong there."""
        self.count += 1
        if self.count <= SHOWN:
            self.first.append(problem)

    def refuse(self) -> None:
        """Raise `InputError` that lists the problems, if there are any."""
        if self.count:
            raise InputError(problem_list(self.path, self.first, self.count))


def problem_list(path: Path, problems: Sequence[str], count: int = 0) -> str:
    """Return the message for the problems of a file, at most `SHOWN` of them.

    `count` is their number, where `problems` are only the first of them.
    """
    count = count or len(problems)
    if count == 1:
        end = "" if problems[0].endswith((".", "?")) else "."
        return f"{path.name}, {problems[0]}{end} Fix it there."
    shown = [f"  {problem}" for problem in problems[:SHOWN]]
    if count > SHOWN:
        shown.append(f"  and {count - SHOWN} more")
    lines = "\n".join(shown)
    return f"{path.name} has {count} problems:\n{lines}"


# Lines, as a stream -----------------------------------------------------------------------------


def iter_lines(path: Path, *, newline: str | None = None) -> Iterator[str]:
    """Yield the lines of a text file with their ends, decoded as `read_text` does.

    Memory holds a block of the file and the longest line. A name that ends in `.gz` is read as
    gzip. `newline` is that of `read_text`. Raises `InputError` at the first byte that is no text,
    at a line longer than `LONGEST_LINE`, and for damaged gzip data.
    """
    # Not `splitlines`: a line may contain U+2028 or U+0085, which would split it.
    rest = ""
    decoder = _BlockDecoder(path)
    for text in decoder:
        rest += text
        # A last \r may be half of \r\n.
        cut = 1 + max(rest.rfind("\n"), rest.rfind("\r", 0, len(rest) - 1))
        yield from io.StringIO(rest[:cut], newline=newline)
        rest = rest[cut:]
        if len(rest) > LONGEST_LINE:
            raise InputError(
                f"{path.name}, line {decoder.line}: it must have at most {LONGEST_LINE:,} "
                "characters, got more. Split it."
            )
    yield from io.StringIO(rest, newline=newline)


class _BlockDecoder:
    """Iterates over the blocks of a file, decoded. `line` is the line at its end so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line = 1

    def __iter__(self) -> Iterator[str]:
        blocks = self._blocks()
        first = next(blocks, b"")
        mark, encoding = _encoding(first)
        decoder = codecs.getincrementaldecoder(encoding)()
        offset = len(mark)  # of the next byte that the decoder has not decoded
        for block in itertools.chain([first[len(mark) :]], blocks, [b""]):
            kept, whole = decoder.getstate()[0], True
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                text, whole = bytes(error.object[: error.start]).decode(encoding), False
            before, null, _ = text.partition("\0")  # UTF-16 without a mark is full of them
            if null or not whole:
                raise self._no_text(encoding, kept + block, offset, before)
            offset += len(kept) + len(block) - len(decoder.getstate()[0])
            self.line += text.count("\n")
            yield text

    def _no_text(self, encoding: str, content: bytes, offset: int, before: str) -> InputError:
        """Return the error at the end of `before`, the text of the first bytes of `content`."""
        at = len(before.encode(encoding))
        line = self.line + before.count("\n")
        fix = "Save the file as UTF-8."
        return InputError(_no_text(str(self.path), line, encoding, content[at], offset + at, fix))

    def _blocks(self) -> Iterator[bytes]:
        """Yield the bytes of the file, at least three in the first block if it has them."""
        try:
            with _open_bytes(self.path) as file:
                first = file.read1(BLOCK)
                while len(first) < 3 and (more := file.read1(BLOCK)):
                    first += more
                yield first
                while block := file.read1(BLOCK):
                    yield block
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(
                f"{self.path.name}, from line {self.line} on: it must be whole gzip data, got: "
                f"{error}. Compress or copy it again."
            ) from None
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            raise unreadable(self.path, error) from None


def unreadable(path: Path, error: Exception) -> InputError:
    """Return the error for a file that cannot be opened or read on."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"The file {path} must exist. Check its name.")
    return InputError(f"The file {path} must be readable, got: {reason(error)}.")


def _open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


# TOML -----------------------------------------------------------------------------------------


def read_toml(path: Path, *, missing: str = "") -> tuple[dict[str, Any], str]:
    """Return the values of a TOML file, and its text. Raises `InputError`, with the line."""
    text = read_text(path, missing=missing)
    try:
        return tomllib.loads(text), text
    except (ValueError, RecursionError) as error:
        why = error if isinstance(error, tomllib.TOMLDecodeError) else _limit(error)
        raise InputError(f"{path.name} must be TOML, got: {why}. Fix it there.") from None
