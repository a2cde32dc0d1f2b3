"""Exceptions that are recorded and raised again: their class by name, and what it was made with.

Nothing is unpickled and nothing imported: a class is one of Python's own, or of a module that the
program has imported already.
"""

from __future__ import annotations

import builtins
import sys
from typing import Any

from ostinato.errors import CallError
from ostinato.journal import JSON


def written(error: Exception) -> dict[str, JSON]:
    """Return what is recorded of an exception."""
    kind = type(error)
    arguments = [each for each in error.args if isinstance(each, str | int | float | bool | None)]
    whole = len(arguments) == len(error.args)
    return {
        "module": kind.__module__,
        "type": kind.__qualname__,
        "arguments": list(arguments) if whole else None,
        "message": str(error),
    }


def words(error: BaseException | None) -> str:
    """Return an exception as a traceback ends with it."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def rebuilt(path: str, error: str, value: Any) -> Exception:
    """Return the exception that a call was recorded with.

    A `CallError` where its class is not known here, or cannot be made again.
    """
    found = value if isinstance(value, dict) else {}
    kind = _class(str(found.get("module", "")), str(found.get("type", "")))
    arguments = found.get("arguments")
    if kind is not None and isinstance(arguments, list):
        try:
            again = kind(*arguments)
        except Exception:  # its class wants something else
            again = None
        if isinstance(again, Exception) and str(again) == found.get("message"):
            return again
    return CallError(f"The call {path!r} has failed: {error}", path)


def _class(module: str, name: str) -> type[Exception] | None:
    found: object = builtins if module == "builtins" else sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None) if part.isidentifier() else None
    return found if isinstance(found, type) and issubclass(found, Exception) else None
