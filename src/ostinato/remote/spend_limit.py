"""What may be spent in all: reserved before a request is sent, settled when it has ended.

So the limit holds however many requests run at once. Used by one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ostinato.errors import InputError


@dataclass(slots=True, eq=False)
class Reserved:
    """What a request may take at most, and has taken so far."""

    tokens: float
    cost: float
    used_tokens: float = 0.0
    used_cost: float = 0.0


@dataclass
class SpendLimit:
    """Limits on the tokens that are written and on the cost; None: no limit.

    `before` tells what earlier sessions have spent (`computed`, else `tokens`, and `cost`); it is
    asked once, before the first request.
    """

    tokens: float | None = None
    cost: float | None = None
    before: Callable[[], Mapping[str, float]] = dict
    _spent: dict[str, float] | None = None
    _reserved: list[Reserved] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, limit in (("tokens", self.tokens), ("cost", self.cost)):
            if limit is not None and not limit > 0:
                raise InputError(f"A limit on {name} must be above 0, got {limit:g}. Raise it.")

    def reserve(self, tokens: float, cost: float) -> Reserved | None:
        """Set aside what a request may take; None where not so much is left."""
        for name, limit, wanted in self._limits(tokens, cost):
            if limit is not None and self.taken(name) + wanted > limit:
                return None
        reserved = Reserved(tokens, cost)
        self._reserved.append(reserved)
        return reserved

    def settle(self, reserved: Reserved) -> None:
        """Give back what a request has not taken."""
        self._reserved.remove(reserved)
        spent = self._begun()
        spent["tokens"] += reserved.used_tokens
        spent["cost"] += reserved.used_cost

    def charge(self, cost: float) -> None:
        """Count what was spent beside the requests, as by a judge.

        What came before the first request is in `before`.
        """
        if self._spent is not None:
            self._spent["cost"] += cost

    def taken(self, name: str) -> float:
        """Return what is spent and set aside of `tokens` or `cost`."""
        if name == "tokens":
            aside = [max(reserved.tokens, reserved.used_tokens) for reserved in self._reserved]
        else:
            aside = [max(reserved.cost, reserved.used_cost) for reserved in self._reserved]
        return self._begun()[name] + sum(aside)

    def refusal(self, tokens: float, cost: float) -> str:
        """Say why a request cannot be sent."""
        said = []
        for name, limit, wanted in self._limits(tokens, cost):
            if limit is not None and self.taken(name) + wanted > limit:
                left = max(0.0, limit - self.taken(name))
                said.append(f"{left:g} of {limit:g} ({name}) are left, and it can take {wanted:g}")
        return f"The budget does not cover another request: {'; '.join(said)}."

    def _limits(self, tokens: float, cost: float) -> list[tuple[str, float | None, float]]:
        return [("tokens", self.tokens, tokens), ("cost", self.cost, cost)]

    def _begun(self) -> dict[str, float]:
        if self._spent is None:
            before = self.before()
            tokens = before.get("computed", before.get("tokens", 0))  # those in vain, too
            self._spent = {"tokens": float(tokens), "cost": float(before.get("cost", 0))}
        return self._spent
