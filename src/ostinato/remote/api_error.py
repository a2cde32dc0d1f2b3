"""What servers say when they refuse: the many shapes of an error as one value. Knows no request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# MiniMax answers 200 and writes its own code; these are the statuses that others would send.
MINIMAX_STATUSES: Mapping[int, int] = {
    1002: 429,  # too many requests
    1004: 401,
    1008: 402,  # no money left
    1026: 400,  # its filter refuses the prompt
    1027: 400,  # its filter refuses the answer
    1039: 429,  # too many tokens in a minute
    2013: 400,
    2049: 401,
}
UNSUPPORTED = frozenset(
    {"unsupported_parameter", "unknown_parameter", "unrecognized_parameter", "extra_forbidden"}
)
"""Codes and types of errors that mean: this field is not known."""


@dataclass(frozen=True, kw_only=True)
class ApiError:
    """A server's error. `status` is the HTTP status that it names itself, 0 where it names none.

    `codes` are its codes and types, `fields` the fields of the request that it names as values.
    """

    message: str
    status: int = 0
    codes: frozenset[str] = field(default_factory=frozenset)
    fields: frozenset[str] = field(default_factory=frozenset)

    def names(self, name: str) -> bool:
        """Return whether it blames a field of the request.

        Many servers name it in their message only: in quotes, or behind a colon. A name that is no
        English word is found without them.
        """
        if name in self.fields:
            return True
        quoted = rf"['\"`]{name}['\"`]|: {name}(?=$|[.,;])"
        bare = rf"|(?<![\w.]){name}(?!\w)" if "_" in name or name == "logprobs" else ""
        return re.search(quoted + bare, self.message) is not None

    @property
    def is_unsupported(self) -> bool:
        """Whether its codes say that a field is not known."""
        return not UNSUPPORTED.isdisjoint(self.codes)


def read_error(text: str) -> ApiError:
    """Read the body of a refusal; one that is no error of the API is the message itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ApiError(message=text.strip())
    return error_in(value) or ApiError(message=text.strip())


def error_in(value: Any) -> ApiError | None:
    """Return the error that a JSON value holds, None where it holds none."""
    if isinstance(value, list) and len(value) == 1:  # Gemini
        value = value[0]
    if not isinstance(value, Mapping):
        return None
    base = value.get("base_resp")
    if isinstance(base, Mapping) and base.get("status_code"):  # MiniMax; 0 means success
        return _described(base, MINIMAX_STATUSES.get(_number(base["status_code"]), 0))
    # Beside an answer only `error` is one, and not where it says nothing.
    answers = "choices" in value
    names = ("error",) if answers else ("error", "errors", "detail")
    found = next((value[name] for name in names if value.get(name)), None)
    if found is not None:
        error = _described(found, _status(value))
        return None if answers and not (error.message or error.status) else error
    # vLLM, SGLang, Mistral: the error is the whole body.
    is_error = value.get("object") == "error" or isinstance(value.get("message"), str)
    return _described(value) if is_error and not answers else None


def _described(error: Any, status: int = 0) -> ApiError:
    parts = list(_objects(error))
    return ApiError(
        message=_message(error),
        status=next((found for part in parts if (found := _status(part))), status),
        codes=frozenset(
            part[name]
            for part in parts
            for name in ("code", "type")
            if isinstance(part.get(name), str)
        ),
        fields=frozenset(name for part in parts for name in _named(part)),
    )


def _objects(error: Any) -> Iterator[Mapping[str, Any]]:
    """Yield an error's object and those inside: of FastAPI's `detail`, of Google's `details`."""
    if isinstance(error, Mapping):
        yield error
        for name in ("error", "detail", "details", "message", "fieldViolations"):
            yield from _objects(error.get(name))
    elif isinstance(error, list):
        for part in error:
            yield from _objects(part)


def _named(error: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields of the request that an error's object names as values."""
    for name in (error.get("param"), error.get("field"), *_path(error)[-1:]):
        if isinstance(name, str):
            yield name


def _message(error: Any) -> str:
    """Return the words of an error of any shape."""
    if isinstance(error, list):
        return "; ".join(map(_message, error))
    if not isinstance(error, Mapping):
        return str(error)
    words = ("message", "msg", "status_msg", "detail", "error", "code")
    message = next((_message(error[name]) for name in words if error.get(name)), "")
    where = ".".join(map(str, _path(error)))
    return f"{where}: {message}" if where else message


def _path(error: Mapping[str, Any]) -> list[Any]:
    """Return where in the request an error of FastAPI is."""
    path = error.get("loc")
    return path if isinstance(path, list) else []


def _status(error: Mapping[str, Any]) -> int:
    """Return the HTTP status that an error names as its code, 0 where it names none."""
    status = _number(error.get("code"))
    return status if 400 <= status <= 599 else 0


def _number(value: Any) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
