"""Server-sent events, as the HTML standard has them: bytes in chunks become the data of events."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from ostinato.remote.retry import RetryableError

LONGEST_EVENT = 1 << 20
_BOM = b"\xef\xbb\xbf"
_END = re.compile(rb"\r\n|\r|\n")


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Yield the data of events; comments and other fields are passed over.

    Raises `RetryableError` for one longer than a mebibyte, so that no server can fill the memory.
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
    if data:
        yield "\n".join(data)


class _Lines:
    """Cuts chunks into lines, which end in CR, LF or both, be they in two chunks."""

    def __init__(self) -> None:
        self.left = b""  # a line that has not ended
        self._begun = self._after_cr = False

    def of(self, chunk: bytes) -> list[bytes]:
        """Return the lines that end in a chunk."""
        if not chunk:
            return []
        if self._after_cr:  # its line has ended at the CR
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        *lines, self.left = _END.split(self.left + chunk)
        if lines and not self._begun:
            lines[0], self._begun = lines[0].removeprefix(_BOM), True
        return lines
