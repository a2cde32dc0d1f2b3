"""The keys of a request, read one by one, and the error of those that are wrong.

Knows what says nothing, and no single key's meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ostinato.errors import OstinatoError

LARGEST = 1e9

IGNORED = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""What says nothing of the answer."""

SILENCE: Sequence[object] = (None, 0, False, "", [], {})
"""Values that ask for nothing, whatever their key."""

NEUTRAL: Mapping[str, Sequence[object]] = {
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "tool_choice": ("none", "auto"),  # tools themselves are refused
    "verbosity": ("medium",),
}
"""Values that ask for what is done without them, by their key."""


class RequestError(OstinatoError):
    """A request that is refused: an HTTP status, and the API's error object."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str = "") -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def to_json(self) -> dict[str, Any]:
        """Return the API's error object."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        told = {"message": str(self), "type": kind, "param": self.param, "code": self.code or None}
        return {"error": told}


class BodyFields:
    """Reads keys; what nobody read is refused. `path` is where they stand, with its dot."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values, self._path = values, path
        self._read: set[str] = set()

    def value(self, key: str) -> Any:
        """Return what stands at a key; None where it is not there."""
        self._read.add(key)
        return self._values.get(key)

    def text(self, key: str) -> str:
        """Return a text that must be there."""
        value = self.value(key)
        if not isinstance(value, str) or not value:
            raise wrong(self._path + key, "a text", value)
        return value

    def flag(self, key: str) -> bool:
        """Return true or false, which it is where it is not there."""
        value = self.value(key)
        if value is not None and not isinstance(value, bool):
            raise wrong(self._path + key, "true or false", value)
        return bool(value)

    def whole(self, key: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number in its bounds."""
        value = self.value(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise wrong(self._path + key, f"a whole number from {least} to {most}", value)
        return value

    def number(self, key: str, default: float) -> float:
        """Return a number."""
        value = self.value(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
            raise wrong(self._path + key, "a number of common size", value)
        return value

    def mapping(self, key: str) -> Mapping[str, object] | None:
        """Return an object, if there is one."""
        value = self.value(key)
        if value is not None and not isinstance(value, Mapping):
            raise wrong(self._path + key, "an object", value)
        return value

    def table(self, key: str) -> BodyFields:
        """Return the keys of an object; of an empty one where there is none."""
        return BodyFields(self.mapping(key) or {}, f"{self._path}{key}.")

    def close(self) -> None:
        """Refuse what nobody read, unless it cannot change the answer."""
        for key, value in self._values.items():
            if key in self._read or key in IGNORED or value in SILENCE:
                continue
            if value not in NEUTRAL.get(key, ()):
                raise RequestError(
                    400,
                    f"{self._path + key!r} is not known here, got {value!r:.60}. Leave it out.",
                    self._path + key,
                    "unknown_parameter",
                )


def wrong(key: str, expected: str, value: object, mend: str = "Change it.") -> RequestError:
    """Return the error of a value that is not what it must be."""
    return RequestError(400, f"{key!r} must be {expected}, got {value!r:.80}. {mend}", key)
