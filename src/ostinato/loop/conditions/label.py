"""What to call a user's function in words: its name, or the source of a lambda."""

from __future__ import annotations

import functools
import linecache
from collections.abc import Callable
from types import CodeType

LONGEST = 80  # characters
_LAMBDA = "<lambda>"


def callable_label(call: Callable[..., object]) -> str:
    """Return a function's name, a lambda's source on one line, or the type of another callable."""
    while isinstance(call, functools.partial):
        call = call.func
    name = str(getattr(call, "__name__", type(call).__name__))
    code = getattr(call, "__code__", None)
    return (_source(code) or name) if name == _LAMBDA and code is not None else name


@functools.cache
def _source(code: CodeType) -> str:
    """Return the source of a lambda; "" where it is not known, as at Python's prompt."""
    # Lines from 1 and columns in bytes. The instruction that opens a function has no columns.
    places = [place for place in code.co_positions() if place[0] and place[1] and place[3]]
    if not places:
        return ""
    start = min((line or 0, column or 0) for line, _, column, _ in places)
    end = max((line or 0, column or 0) for _, line, _, column in places)
    lines = [line.encode() for line in linecache.getlines(code.co_filename)[start[0] - 1 : end[0]]]
    if len(lines) != end[0] - start[0] + 1:
        return ""
    lines[-1] = lines[-1][: end[1]]
    lines[0] = lines[0][start[1] :]
    body = " ".join(b" ".join(lines).decode(errors="replace").split())
    head = f"lambda {', '.join(code.co_varnames[: code.co_argcount])}".strip()
    text = f"{head}: {body}"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
