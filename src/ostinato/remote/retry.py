"""What can go wrong with a request, what is tried again and when. Pure: knows no connection."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ostinato.errors import OstinatoError

OVERLOADED = frozenset({429, 503, 529})
TRANSIENT = OVERLOADED | {408, 409, 425, 500, 502, 504}
OF_THE_RUN = frozenset({401, 402, 404, 405, 407, 410})
FORBIDDEN = 403
HOPELESS = frozenset({"insufficient_quota", "billing_hard_limit_reached"})

BASE = 0.5  # seconds: the longest first wait
LONGEST = 30.0  # seconds: the longest of all


class ServerError(OstinatoError):
    """A server cannot be worked with: its key, its address, or it failed too often in a row."""


class RetryableError(Exception):
    """A failure that may pass. `after` are the seconds that the server asks to wait.

    `overloaded` tells that it is asked too much at once, `reached` that it was there at all, and
    `of_item` that it may be this request alone that it cannot answer.
    """

    def __init__(
        self,
        message: str,
        *,
        after: float | None = None,
        overloaded: bool = False,
        reached: bool = True,
        of_item: bool = True,
    ) -> None:
        super().__init__(message)
        self.after, self.overloaded, self.reached = after, overloaded, reached
        self.of_item = of_item and reached


class PermanentError(Exception):
    """This request is refused, and would be again; others may not be."""


class Forbidden(PermanentError):
    """A refusal that is of the key, or of what this request says: that others work tells."""


class CannotContinue(Exception):
    """The answer was broken off, and the server does not go on where it was."""


@dataclass(frozen=True, slots=True)
class Response:
    """What matters of a refusal: the status, what it says, and when to come again."""

    status: int
    message: str
    code: str = ""
    retry_after: str = ""


def error_of(response: Response, now: datetime | None = None) -> Exception:
    """Return what a status of 400 or more means: `RetryableError`, `Unworkable` or `ServerError`."""
    said = f"It answered {response.status}: {response.message or 'without a word'}"
    if response.status in OF_THE_RUN or response.code in HOPELESS:
        return ServerError(said)
    if response.status == FORBIDDEN:
        return Forbidden(said)
    if response.status in TRANSIENT or response.status >= 500:
        after = retry_after(response.retry_after, now or datetime.now(UTC))
        overloaded = response.status in OVERLOADED
        return RetryableError(said, after=after, overloaded=overloaded, of_item=not overloaded)
    return PermanentError(said)


def retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or a date (RFC 9110)."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


def wait(failures: int, draw: float, after: float | None = None) -> float:
    """Return the seconds to wait after so many failures in a row (from 1).

    Exponential backoff with full jitter (Brooker 2015): uniform between 0 and a limit that doubles;
    `draw` is uniform in [0, 1). What the server asks for comes first, the jitter behind it.
    """
    jitter = draw * min(LONGEST, BASE * 2.0 ** (failures - 1))
    return jitter if after is None else after + draw * min(1.0, BASE * failures)
