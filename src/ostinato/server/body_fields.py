"""Reads the fields of a request's body one by one, and raises for those that are wrong.

Knows which values change nothing; does not know what a single field means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ostinato.arguments import did_you_mean
from ostinato.errors import OstinatoError

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
"""Fields that cannot change the answer."""

UNSET: Sequence[object] = (None, 0, False, "", [], {})
"""Values that mean "not set" for any field."""

NEUTRAL: Mapping[str, Sequence[object]] = {
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "tool_choice": ("none", "auto"),  # tools themselves are refused
    "verbosity": ("medium",),
}
"""Values that ask for the default, by field."""


class RequestError(OstinatoError):
    """A refused request: an HTTP status, and the API's error object."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str = "") -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def to_json(self) -> dict[str, Any]:
        """Return the API's error object."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code or None}
        return {"error": error}


class BodyFields:
    """One object of a request's body. `close` refuses the fields that were not read."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values, self._path = values, path
        self._read: set[str] = set()

    def value(self, key: str) -> Any:
        """Return the value of a field, None if it is not set."""
        self._read.add(key)
        return self._values.get(key)

    def text(self, key: str) -> str:
        """Return a text, which must be there and not empty."""
        value = self.value(key)
        if not isinstance(value, str) or not value:
            raise wrong(self._path + key, "a text", value)
        return value

    def flag(self, key: str) -> bool:
        """Return true or false; false if it is not set."""
        value = self.value(key)
        # An explicit null means not set, as in OpenAI's own API.
        if value is not None and not isinstance(value, bool):
            raise wrong(self._path + key, "true or false", value)
        return bool(value)

    def integer(self, key: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number from `least` to `most`."""
        value = self.value(key)
        if value is None:
            return default
        # In Python, true is an int.
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise wrong(self._path + key, f"a whole number from {least} to {most}", value)
        return value

    def mapping(self, key: str) -> Mapping[str, object] | None:
        """Return an object, None if it is not set."""
        value = self.value(key)
        if value is not None and not isinstance(value, Mapping):
            raise wrong(self._path + key, "an object", value)
        return value

    def table(self, key: str) -> BodyFields:
        """Return the fields of an object, empty if it is not set."""
        return BodyFields(self.mapping(key) or {}, f"{self._path}{key}.")

    def close(self) -> None:
        """Refuse every field that was not read, unless it cannot change the answer."""
        for key, value in self._values.items():
            # Clients send many fields that they leave at their defaults.
            if key in self._read or key in IGNORED or value in UNSET:
                continue
            if value not in NEUTRAL.get(key, ()):
                fix = did_you_mean(key, self._read) or " Leave it out."
                raise RequestError(
                    400,
                    f"{self._path + key!r:.80} is not known here, got {value!r:.60}.{fix}",
                    self._path + key,
                    "unknown_parameter",
                )


def wrong(key: str, expected: str, value: object, fix: str = "Change it.") -> RequestError:
    """Return the error for a field with a wrong value."""
    return RequestError(400, f"{key!r} must be {expected}, got {value!r:.80}. {fix}", key)
