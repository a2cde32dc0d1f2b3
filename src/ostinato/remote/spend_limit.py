"""Limits on tokens and cost: reserved before a request is sent, settled when it has ended.

So a limit holds however many requests run at once. Used by one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ostinato.arguments import require, require_types


@dataclass(slots=True, eq=False)
class Reserved:
    """The most that a request may spend, and what it has spent so far."""

    tokens: float
    cost: float
    used_tokens: float = 0.0
    used_cost: float = 0.0


@dataclass
class SpendLimit:
    """Limits on the tokens that a server writes and on the cost; None: no limit.

    `before` returns what earlier sessions spent (`computed`, else `tokens`, and `cost`). It is
    called once, before the first request.
    """

    tokens: float | None = None
    cost: float | None = None
    before: Callable[[], Mapping[str, float]] = dict
    _spent: dict[str, float] | None = None
    _reserved: list[Reserved] = field(default_factory=list)

    def __post_init__(self) -> None:
        require_types(self)
        for name, limit in (("tokens", self.tokens), ("cost", self.cost)):
            require(limit is None or limit > 0, f"A limit on {name}", "above 0", limit, "Raise it.")

    def reserve(self, tokens: float, cost: float) -> Reserved | None:
        """Reserve the most that a request may spend; None where less than that is left."""
        if self._shortages(tokens, cost):
            return None
        reserved = Reserved(tokens, cost)
        self._reserved.append(reserved)
        return reserved

    def settle(self, reserved: Reserved) -> None:
        """Release what a request has not spent."""
        self._reserved.remove(reserved)
        spent = self._total()
        spent["tokens"] += reserved.used_tokens
        spent["cost"] += reserved.used_cost

    def charge(self, cost: float) -> None:
        """Count a cost beside the requests, such as a judge's."""
        # Before the first request there is no total yet: `before` will contain this cost.
        if self._spent is not None:
            self._spent["cost"] += cost

    def taken(self, name: str) -> float:
        """Return what is spent and reserved of `tokens` or `cost`."""
        # A server may exceed what was asked for, so what a request used can be the larger number.
        if name == "tokens":
            reserved = [max(one.tokens, one.used_tokens) for one in self._reserved]
        else:
            reserved = [max(one.cost, one.used_cost) for one in self._reserved]
        return self._total()[name] + sum(reserved)

    def refusal(self, tokens: float, cost: float) -> str:
        """Return the sentence that says why `reserve` returned None."""
        return (
            "The budget does not cover another request: "
            f"{'; '.join(self._shortages(tokens, cost))}."
        )

    def _shortages(self, tokens: float, cost: float) -> list[str]:
        """Return what is missing of each limit that a request would exceed."""
        found = []
        for name, limit, most in (("tokens", self.tokens, tokens), ("cost", self.cost, cost)):
            if limit is not None and self.taken(name) + most > limit:
                left = max(0.0, limit - self.taken(name))
                found.append(f"{left:g} of {limit:g} ({name}) are left, and it can take {most:g}")
        return found

    def _total(self) -> dict[str, float]:
        if self._spent is None:
            before = self.before()
            tokens = before.get("computed", before.get("tokens", 0))  # `computed`: also wasted ones
            self._spent = {"tokens": float(tokens), "cost": float(before.get("cost", 0))}
        return self._spent
