"""When a person answers in place of the model. Knows no flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ostinato.arguments import counted, require_above, require_types


@dataclass(frozen=True, kw_only=True)
class HandOver:
    """The limits of a dialogue: where one is reached, a person answers; None: no limit.

    `tokens` written, `cost` of servers and `seconds` of all its answers together; `rounds` of
    drafts in a row without an answer that passed. Going back gives nothing back.
    """

    tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None
    rounds: int | None = None

    def __post_init__(self) -> None:
        require_types(self)
        given = {name: getattr(self, name) for name in (*SPENT, "rounds")}
        require_above(0, **{name: each for name, each in given.items() if each is not None})

    def reached(self, spent: Mapping[str, float], failed: int) -> str:
        """Return which limit is reached, as a sentence; "" where none is.

        `failed` is how many rounds were written since the last answer that passed.
        """
        for name in SPENT:
            limit, total = getattr(self, name), spent.get(name, 0)
            if limit is not None and total >= limit:
                return f"The model may spend {counted(limit, name, 'g')}, and has spent {total:g}."
        if self.rounds is not None and failed >= self.rounds:
            drafts = "1 draft has" if failed == 1 else f"{failed} drafts in a row have"
            return f"{drafts} not passed the checks."
        return ""


SPENT = ("tokens", "cost", "seconds")
