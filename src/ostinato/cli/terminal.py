"""The streams and arguments of the command line: any encoding, a closed pipe, a full disk."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from ostinato.arguments import reason
from ostinato.cli.run_loop import Exit
from ostinato.text_files import half_character

REPLACED = "ostinato.replaced"
"""The error handler of our streams."""

SEVEN_BIT = "ostinato_ascii"
"""ASCII under another name: click would write UTF-8 into a stream that calls itself ASCII."""

PLAIN = str.maketrans(
    {
        "…": "...",
        "→": "->",
        "←": "<-",
        "–": "-",
        "—": "-",
        "“": "'",
        "”": "'",
        "‘": "'",
        "’": "'",
        "×": "x",
        "✓": "+",
        "✕": "x",
        "·": "-",
        "•": "*",
        "█": "#",
        "▀": "#",
        "▄": "#",
    }
)
"""Signs of ours for streams without them. None is a quote or a backslash: JSON is printed, too."""


def _find_seven_bit(name: str) -> codecs.CodecInfo | None:
    if name != SEVEN_BIT:
        return None
    ascii = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii.encode,
        ascii.decode,
        incrementalencoder=ascii.incrementalencoder,
        incrementaldecoder=ascii.incrementaldecoder,
        name=SEVEN_BIT,
    )


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for characters that a stream cannot encode: a plain sign, else `\\u4e2d`.

    As JSON escapes them, so that a line of JSON stays one.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    plain = error.object[error.start : error.end].translate(PLAIN)
    escaped = "".join(map(_escaped, plain))
    return escaped, error.end


def _escaped(character: str) -> str:
    if character.isascii():
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


@contextmanager
def prepared_streams() -> Iterator[None]:
    """Let a command print whatever the encoding, and end with a sentence where nothing can be.

    A closed pipe (`| head -1`) ends it without a word.
    """
    codecs.register_error(REPLACED, _replaced)
    codecs.register(_find_seven_bit)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where it is closed; another one in tests
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=SEVEN_BIT if is_ascii else None, errors=REPLACED)
    try:
        try:
            yield
        finally:
            _flush()
    except OSError as error:
        # An error of a file has its name; one of a stream has none.
        if error.filename is not None or error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO):
            raise
        _drop_output()
        if error.errno != errno.EPIPE:
            with suppress(OSError):
                message = f"Error: The output must be writable, got: {reason(error)}."
                click.echo(message, err=True)
        sys.exit(Exit.NOT_ALL)


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _drop_output() -> None:
    """Let what is still buffered go nowhere: Python would try to write it again when it exits."""
    with suppress(OSError, ValueError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Text(click.types.StringParamType):
    """A text on the command line. A byte that is not UTF-8 would be half a character."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, or fail with its first wrong byte."""
        text: str = super().convert(value, param, ctx)
        if half := half_character(text):
            # Python keeps such a byte as U+DC80 to U+DCFF.
            self.fail(f"must be text in UTF-8, got the byte 0x{half[-2:]} in {text!r}.", param, ctx)
        return text


def check_texts(command: click.Command) -> None:
    """Let a command and those under it refuse texts that are not UTF-8; paths may be any bytes."""
    for param in command.params:
        if param.type is click.STRING:
            param.type = Text()
    for inner in getattr(command, "commands", {}).values():
        check_texts(inner)
