"""A pseudo-terminal for tests: keys are pressed at it, and what it shows is read."""

from __future__ import annotations

import os
import re
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Terminal:
    """A pseudo-terminal, of which this program's standard streams are one end."""

    def __init__(self) -> None:
        self.master, self._slave = os.openpty()
        termios.tcsetwinsize(self.master, (40, 100))
        self.input = os.fdopen(os.dup(self._slave), "r")
        self.output = os.fdopen(os.dup(self._slave), "w", encoding="utf-8")
        self.shown = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self.shown += os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:
                return

    @property
    def mode(self) -> list[object]:
        return termios.tcgetattr(self._slave)

    def typing(self, script: Callable[[Terminal], None]) -> None:
        threading.Thread(target=script, args=(self,), daemon=True).start()

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + 30
        while not re.search(pattern, self.shown) and time.monotonic() < deadline:
            time.sleep(0.005)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let it be this program's standard streams in the block; pytest sets its own before."""
        streams = sys.stdin, sys.stdout, sys.__stdout__
        sys.stdin, sys.stdout, sys.__stdout__ = self.input, self.output, self.output  # type: ignore[misc]
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.__stdout__ = streams  # type: ignore[misc]

    def close(self) -> None:
        self.output.close()
        self.input.close()
        os.close(self._slave)
        os.close(self.master)


@contextmanager
def opened_terminal() -> Iterator[Terminal]:
    """Open a pseudo-terminal for a block."""
    opened = Terminal()
    try:
        yield opened
    finally:
        opened.close()
