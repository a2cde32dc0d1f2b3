"""The items of a report, as the JSON that the script of its page reads. Knows no HTML."""

from __future__ import annotations

from collections.abc import Sequence

from ostinato.errors import ItemError
from ostinato.journal import JSON, encode
from ostinato.loop import Verdict
from ostinato.refine.job.items import Item
from ostinato.refine.report.selection import most_telling
from ostinato.refine.report.why import CheckRecord, lost_by, swaps
from ostinato.refine.results import Draft, Result
from ostinato.refine.routing.router import Router

MOST_BYTES = 2_500_000
"""Of the items on a page: browsers are slow with more."""


def item_values(
    router: Router,
    items: Sequence[Item],
    results: Sequence[Result],
    records: Sequence[CheckRecord],
) -> dict[str, JSON]:
    """Return the names of the checks, and for each result everything that the page can show.

    `all` is the number of results: of very many, only the most telling are there.
    """
    # Numbers instead of names: a report repeats them for each draft of thousands of items.
    numbers = {record.name: number for number, record in enumerate(records)}
    by_key = {item.key: item for item in items}
    there = [result for result in results if result.id in by_key]
    made: dict[str, dict[str, JSON]] = {}

    def size(result: Result) -> int:
        made[result.id] = _item(numbers, _messages(router, by_key[result.id]), result)
        return len(encode(made[result.id]))

    shown = most_telling(there, size, MOST_BYTES)
    return {
        "checks": list(numbers),
        "all": len(there),
        "items": [made[result.id] for result in shown],
    }


def _messages(router: Router, item: Item) -> list[JSON]:
    try:
        messages = router.route(item.columns).messages
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
