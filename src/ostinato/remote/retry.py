"""Which failures of a request are retried, and how long to wait. Pure: knows no connection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ostinato.errors import OstinatoError
from ostinato.remote.api_error import ApiError

OVERLOADED = frozenset({429, 503, 529})
TRANSIENT = OVERLOADED | {408, 409, 425, 500, 502, 504}
SERVER_WIDE = frozenset({401, 402, 404, 405, 407, 410})  # any other request would meet the same
FORBIDDEN = 403
# OpenAI sends these with status 429, but no wait brings the money back.
OUT_OF_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})

BASE = 0.5  # seconds: upper bound of the first wait
LONGEST = 30.0  # seconds: upper bound of every wait
LONGEST_MESSAGE = 400  # characters of a server's message that an error repeats
LEAST_OF_KEY = 8  # characters at the start of a key that are not shown either


class ServerError(OstinatoError):
    """A server that cannot be used: wrong key or address, or too many failures in a row."""


class UnsupportedSetting(ServerError):
    """A setting that a server does not take, and without which the texts would be others."""


class RetryableError(Exception):
    """A failure that may pass. `after` is the wait in seconds that the server demands.

    `overloaded`: the server has too many requests. `reached`: it was there at all. `of_request`:
    it may fail on this request only.
    """

    def __init__(
        self,
        message: str,
        *,
        after: float | None = None,
        overloaded: bool = False,
        reached: bool = True,
        of_request: bool = True,
    ) -> None:
        super().__init__(message)
        self.after, self.overloaded, self.reached = after, overloaded, reached
        self.of_request = of_request and reached


class PermanentError(Exception):
    """This request is refused and would be refused again; others may succeed."""


class Adapted(Exception):
    """A request is refused for a field that can be left out: it is sent again without it."""


class Forbidden(PermanentError):
    """Status 403: the key or the content. Only another request that succeeds can tell which."""


class CannotContinue(Exception):
    """The answer broke off, and the server cannot continue it."""


def error_of(status: int, error: ApiError, after: float | None = None) -> Exception:
    """Return what a status of 400 or more means, with what the server says.

    One of `RetryableError`, `PermanentError` and `ServerError`. `after` is the wait in seconds that
    the server demands.
    """
    said = f"It answered {status}: {error.message or 'no message'}"
    if status in SERVER_WIDE or not OUT_OF_QUOTA.isdisjoint(error.codes):
        return ServerError(said)
    if status == FORBIDDEN:
        return Forbidden(said)
    if status in TRANSIENT or status >= 500:
        overloaded = status in OVERLOADED
        return RetryableError(said, after=after, overloaded=overloaded, of_request=not overloaded)
    return PermanentError(said)


def wait_demanded(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that a response's headers demand to wait; None where they demand none."""
    exact = headers.get("retry-after-ms", "")  # OpenAI and Azure
    seconds = None if not exact else retry_after_seconds(exact, now)
    return (
        retry_after_seconds(headers.get("retry-after", ""), now)
        if seconds is None
        else seconds / 1000
    )


def retry_after_seconds(value: str, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header demands: a number or a date (RFC 9110)."""
    try:
        seconds = float(value)
        return None if math.isnan(seconds) else max(0.0, seconds)
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


def wait(failures: int, draw: float, after: float | None = None) -> float:
    """Return the seconds to wait after a number of failures in a row (from 1).

    Exponential backoff with full jitter (Brooker 2015): uniform between 0 and a bound that doubles.
    `draw` is uniform in [0, 1). A wait that the server demands is a minimum; jitter is added.
    """
    jitter = draw * min(LONGEST, BASE * 2.0 ** (failures - 1))
    return jitter if after is None else after + draw * min(1.0, BASE * failures)


def redact(message: str, key: str) -> str:
    """Return a server's message without the key, which servers like to repeat, and shortened.

    Nor does it hold a start of the key: the message may be an excerpt that was cut within it. Half
    characters, which no encoder takes, become U+FFFD.
    """
    clean = message.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    for length in range(len(key), min(LEAST_OF_KEY, len(key)) - 1, -1):
        clean = clean.replace(key[:length], "…") if length else clean
    return clean if len(clean) <= LONGEST_MESSAGE else f"{clean[:LONGEST_MESSAGE]}…"
