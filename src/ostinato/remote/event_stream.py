"""Server-sent events (HTML standard, section 9.2): chunks of bytes become the data of events.

Knows nothing of what the data means.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

from ostinato.remote.retry import RetryableError

LONGEST_EVENT = 1 << 20
_BOM = b"\xef\xbb\xbf"
_END = re.compile(rb"\r\n|\r|\n")
_DATA = (b"data", b"error")  # llama.cpp once named the field of a failure "error"


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yield the data of events; comments, empty data and other fields are skipped.

    Raises `RetryableError` for an event of more than a mebibyte: no server can fill the memory.
    """
    parser = EventParser()
    async for chunk in chunks:
        for event in parser.feed(chunk):
            yield event
    for event in parser.end():
        yield event


class EventParser:
    """The parser of one stream: `feed` it the bytes, and `end` it."""

    def __init__(self) -> None:
        self._lines = _Lines()
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Yield the data of the events that a chunk completes. Raises `RetryableError`."""
        for line in self._lines.of(chunk):
            yield from self._line(line)
            if self._size > LONGEST_EVENT:
                break
        if self._size + len(self._lines.left) > LONGEST_EVENT:
            raise RetryableError("It sent an event of more than a mebibyte.")

    def end(self) -> Iterator[str]:
        """Yield the last event, which the standard drops where no blank line ends it."""
        # But it is part of an answer.
        yield from self._line(self._lines.left)
        yield from self._event()

    def _line(self, line: bytes) -> Iterator[str]:
        name, _, value = line.partition(b":")
        if name in _DATA:
            self._size += len(line)
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
        elif not line:
            yield from self._event()
        elif line.startswith(b"{"):
            # No event, but JSON: an error that a proxy wrote, or a line for each object.
            yield line.decode("utf-8", "replace")

    def _event(self) -> Iterator[str]:
        event = "\n".join(self._data)
        self._data, self._size = [], 0
        if event.strip():
            yield event


class _Lines:
    """Cuts chunks into lines, which end in CR, LF or CRLF, wherever the chunks end."""

    def __init__(self) -> None:
        self.left = b""  # the start of a line that has not ended
        self._started = self._after_cr = False

    def of(self, chunk: bytes) -> list[bytes]:
        """Return the lines that a chunk completes, without their ends."""
        if not chunk:
            return []
        # A line ends at its CR at once: waiting for an LF would hold the event back until the next
        # chunk, which may be a minute away.
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        *lines, self.left = _END.split(self.left + chunk)
        if lines and not self._started:
            lines[0], self._started = lines[0].removeprefix(_BOM), True
        return lines
