"""The items of a report, as the JSON that the script of its page reads. Knows no HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from ostinato.errors import ItemError
from ostinato.journal import JSON
from ostinato.loop import Verdict
from ostinato.refine.report.selection import Selection
from ostinato.refine.report.why import lost_by, swaps
from ostinato.refine.results import Draft, Result
from ostinato.refine.routing.router import Router

MOST_BYTES = 2_500_000
"""Of the items on a page: browsers are slow with more."""


class ItemValues:
    """Collects what the page shows of single items, as JSON texts, result by result.

    Of very many results, only the most telling are shown. `count` is the number of results.
    """

    def __init__(self, router: Router, checks: Iterable[str]) -> None:
        self._router = router
        self.checks = list(checks)
        # Numbers instead of names: a report repeats them for each draft of thousands of items.
        self._numbers = {name: number for number, name in enumerate(self.checks)}
        self._selection = Selection[str](MOST_BYTES)

    @property
    def count(self) -> int:
        """The number of results so far."""
        return self._selection.count

    def add(self, result: Result) -> None:
        """Look at the next result; its messages are made anew from its columns."""

        def made() -> tuple[str, int]:
            value = _item(self._numbers, _messages(self._router, result.columns), result)
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
            return text, len(text.encode("utf-8", "replace"))

        self._selection.add(result, made)

    def items(self) -> list[str]:
        """Return all that the page can show of each item, in their order."""
        return self._selection.shown()


def _messages(router: Router, columns: Mapping[str, object]) -> list[JSON]:
    try:
        messages = router.route(columns).messages
    # The report shows an item that could not be used, too.
    except ItemError as error:
        return [["error", str(error)]]
    return [[message["role"], message["content"]] for message in messages]


def _item(numbers: dict[str, int], messages: list[JSON], result: Result) -> dict[str, JSON]:
    refused = {name for draft in result.drafts for name in draft.check}
    refused |= {verdict.check for verdict in result.verdicts if not verdict.passed}
    return {
        "id": result.id,
        "outcome": result.outcome,
        "accepted": result.accepted,
        "messages": messages,
        "reply": result.reply,
        "why": result.stopped.sentence,
        "verdicts": [_verdict(numbers, v) for v in result.verdicts if v.check in numbers],
        "refused": [numbers[name] for name in numbers if name in refused],
        "rounds": result.rounds,
        "backtracks": result.backtracks,
        "tokens": result.tokens.to_json(),
        "source": result.source.value,
        "rule": result.rule,
        "refused_answer": result.refused_answer,
        "drafts": [_drafts(group) for group in swaps(result.drafts)],
    }


def _verdict(numbers: dict[str, int], verdict: Verdict) -> dict[str, JSON]:
    return {
        "check": numbers[verdict.check],
        "passed": verdict.passed,
        "message": verdict.message,
        "error": verdict.error,
        "span": list(verdict.span) if verdict.span else None,
    }


def _drafts(group: Sequence[Draft]) -> dict[str, JSON]:
    """Return a draft, and the texts that were tried at its place before."""
    draft = group[-1]
    return {
        "tried": [before.taken_back for before in group[:-1]],
        "round": draft.round,
        "before": draft.before,
        "taken": draft.taken_back,
        "lost": sum(map(lost_by, group)),
        "checks": list(draft.check),
        "message": draft.message,
    }
