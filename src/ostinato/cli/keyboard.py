"""Keys as they are pressed, and a screen that is drawn again and again; without curses.

Knows nothing of what is shown. Needs a terminal that understands a few ANSI sequences, as all but
"dumb" ones do.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

from ostinato.arguments import counted
from ostinato.errors import InputError

ESCAPE = "\x1b"
_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}
_HIDE, _SHOW = f"{ESCAPE}[?25l", f"{ESCAPE}[?25h"
_OTHER_SCREEN, _FIRST_SCREEN = f"{ESCAPE}[?1049h", f"{ESCAPE}[?1049l"
_HOME, _REST_OF_LINE, _REST = f"{ESCAPE}[H", f"{ESCAPE}[K", f"{ESCAPE}[J"


def require_terminal(columns: int, lines: int, mend: str) -> None:
    """Raise `InputError` where no such screen can be shown; `mend` says what else can be done."""
    for name, stream in (("input", sys.stdin), ("output", sys.stdout)):
        if stream is None or not stream.isatty():
            raise InputError(
                f"The standard {name} must be a terminal, got a pipe or a file. {mend}"
            )
    term = os.environ.get("TERM", "")
    if term in ("", "dumb"):
        raise InputError(
            f"TERM must name a terminal whose cursor can be moved, got {term!r}. Use another "
            f"terminal, or set TERM to what it is, such as xterm. {mend}"
        )
    size = shutil.get_terminal_size()
    if size.columns < columns or size.lines < lines:
        raise InputError(
            f"The terminal must have at least {columns} columns and {counted(lines, 'lines')}, got "
            f"{size.columns} and {size.lines}. Make its window larger."
        )


def shows_colors(environment: Mapping[str, str]) -> bool:
    """Return whether the terminal shows 256 colors and the user wants them (NO_COLOR)."""
    if environment.get("NO_COLOR"):
        return False
    return "256color" in environment.get("TERM", "") or bool(environment.get("COLORTERM"))


def shows_unicode(stream: TextIO) -> bool:
    """Return whether a stream can show any sign."""
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


class Keyboard:
    """The keys of a terminal: letters, signs, and `left`, `right`, `up`, `down`, `enter`."""

    def __init__(self, source: int) -> None:
        self._source, self._half, self._ended = source, "", False
        self._keys: deque[str] = deque()

    def until(self, deadline: float) -> Iterator[str]:
        """Yield the keys that are pressed before `deadline` (`time.monotonic`).

        Those that nobody takes come first the next time. Where the terminal goes away, the last key
        is `q`.
        """
        while self._keys or self._waited(deadline - time.monotonic()):
            if self._keys:
                yield self._keys.popleft()
            else:
                self._read()

    def any_key(self) -> str:
        """Wait for a key; return it."""
        while True:
            for key in self.until(time.monotonic() + 1):
                return key

    def _waited(self, seconds: float) -> bool:
        """Wait; return whether something was typed before the time was over."""
        if self._ended:
            time.sleep(max(0.0, seconds))
            return False
        return bool(select.select([self._source], [], [], max(0.0, seconds))[0])

    def _read(self) -> None:
        try:
            raw = os.read(self._source, 1024)
        except OSError:  # the other side of a pseudo-terminal is gone
            raw = b""
        if not raw:
            self._ended = True
            self._keys.append("q")
            return
        keys, self._half = keys_of(self._half + raw.decode("utf-8", "replace"))
        self._keys.extend(keys)


def keys_of(text: str) -> tuple[list[str], str]:
    """Return the names of the keys in what a terminal sent, and the beginning of another."""
    keys: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == ESCAPE:
            if len(text) < at + 3 and text[at + 1 : at + 2] in ("", "[", "O"):
                return keys, text[at:]  # slow lines break a sequence in two
            if text[at + 1] in "[O":
                if text[at + 2] in _ARROWS:
                    keys.append(_ARROWS[text[at + 2]])
                at += 3
                continue
        elif text[at] in "\r\n":
            keys.append("enter")
        elif text[at].isprintable():
            keys.append(text[at].lower())
        at += 1
    return keys, ""


class Screen:
    """What a terminal shows, drawn from its upper left corner each time."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, lines: Sequence[str]) -> None:
        """Show lines in place of what was there."""
        text = "".join(f"{line}{_REST_OF_LINE}\n" for line in lines)
        self._stream.write(f"{_HOME}{text}{_REST}")
        self._stream.flush()


@contextmanager
def full_screen() -> Iterator[tuple[Keyboard, Screen]]:
    """Take over the terminal for the block: keys come one by one, nothing that is typed is shown.

    Raises `InputError` where this system has no such terminals.
    """
    try:
        import termios
        import tty
    except ImportError:
        raise InputError(
            "The system must have POSIX terminals to read single keys, got one without termios. "
            "Use Linux, macOS or the Windows Subsystem for Linux."
        ) from None
    source, stream = sys.stdin.fileno(), sys.stdout
    before = termios.tcgetattr(source)
    try:
        tty.setcbreak(source)
        now = termios.tcgetattr(source)
        now[6][termios.VSUSP] = b"\x00"  # Ctrl-Z would leave the shell on this screen
        termios.tcsetattr(source, termios.TCSANOW, now)
        stream.write(_OTHER_SCREEN + _HIDE)
        yield Keyboard(source), Screen(stream)
    finally:
        stream.write(_SHOW + _FIRST_SCREEN)
        stream.flush()
        termios.tcsetattr(source, termios.TCSADRAIN, before)
