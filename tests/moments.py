"""When each check acts under each strategy: read off the classes, for the docs."""

from __future__ import annotations

from ostinato.checks import KINDS, BaseCheck, Function
from ostinato.refine import STRATEGIES
from ostinato.refine.strategies.base import Strategy


def moment(check: type[BaseCheck], strategy: type[Strategy]) -> str:
    """Return in a few words when a check acts: on masks, at every token, or on whole texts."""
    checks_prefixes = _gives(check, "check_prefix") or check is Function
    if strategy.masks and _gives(check, "constraint_specs"):
        return "mask"
    if not checks_prefixes:
        return "whole"
    if strategy.weighs:
        return "weight"
    if strategy.rejects:
        return "token: drop"
    if strategy.checks_prefixes:
        inserts = issubclass(strategy, STRATEGIES["backtrack"]) and _gives(check, "required_text")
        return "token, insert" if inserts else "token"
    return "whole"


def _gives(check: type[BaseCheck], method: str) -> bool:
    return getattr(check, method) is not getattr(BaseCheck, method)


def table() -> str:
    """Return the table of all checks and strategies, as Markdown."""
    names = list(STRATEGIES)
    lines = ["| check | " + " | ".join(f"`{name}`" for name in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for kind in sorted(KINDS):
        cells = (moment(KINDS[kind], STRATEGIES[name]) for name in names)
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
