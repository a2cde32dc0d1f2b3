"""Server-sent events (HTML standard, section 9.2): chunks of bytes become the data of events.

Knows nothing of what the data means.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from ostinato.remote.retry import RetryableError

LONGEST_EVENT = 1 << 20
_BOM = b"\xef\xbb\xbf"
_END = re.compile(rb"\r\n|\r|\n")


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yield the data of events; comments and other fields are skipped.

    Raises `RetryableError` for an event of more than a mebibyte: no server can fill the memory.
    """
    lines, data, size = _Lines(), list[str](), 0
    async for chunk in chunks:
        for line in lines.of(chunk):
            name, _, value = line.partition(b":")
            if name == b"data":
                size += len(line)
                data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
            elif not line and data:
                yield "\n".join(data)
                data, size = [], 0
            if size > LONGEST_EVENT:
                break
        if size + len(lines.left) > LONGEST_EVENT:
            raise RetryableError("It sent an event of more than a mebibyte.")
    # The standard drops an event that no blank line ends; but it is part of an answer.
    if data:
        yield "\n".join(data)


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
