"""Limits of what a flow and the flows that it calls may spend. Knows no flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

from ostinato.arguments import counted, require_above, require_types
from ostinato.errors import RunError


class LimitReached(RunError):
    """A flow has spent what it may: `name` is that of the limit."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that a flow, with the flows that it calls, may spend; None: no limit.

    `tokens` written, `cost` of servers, `seconds` that calls took, number of `calls`. A call that
    is made when a limit is reached raises `LimitReached`; one in progress is not cut short.
    """

    tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None
    calls: int | None = None

    def __post_init__(self) -> None:
        require_types(self)
        given = {name: getattr(self, name) for name in NAMES if getattr(self, name) is not None}
        require_above(0, **given)


NAMES = ("tokens", "cost", "seconds", "calls")


@dataclass
class Spent:
    """What a flow, or another call made of calls, has spent. Used by the threads of its branches.

    `totals` has all that its calls spent, by name.
    """

    limits: Limits = Limits()
    flow: str = ""
    totals: dict[str, float] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def add(self, spent: Mapping[str, float]) -> None:
        """Count what a call has spent."""
        with self._lock:
            add_to(self.totals, spent)

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self.limits != Limits()

    def require_left(self) -> None:
        """Raise `LimitReached` where a limit is used up."""
        for name in NAMES:
            limit, total = getattr(self.limits, name), self.totals.get(name, 0)
            if limit is not None and total >= limit:
                raise LimitReached(
                    f"The flow {self.flow} may spend {counted(limit, name, 'g')}, and has spent "
                    f"{total:g}. Catch LimitReached to go on without more, or raise {name} in its "
                    "limits.",
                    name,
                )


def add_to(totals: dict[str, float], spent: Mapping[str, float]) -> None:
    """Add what was spent to totals, by name."""
    for name, value in spent.items():
        totals[name] = totals.get(name, 0) + value
