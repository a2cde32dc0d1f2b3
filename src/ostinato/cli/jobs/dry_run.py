"""`ostinato refine --dry-run`: shows prompts, rules, past cases and checks. Loads no model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from ostinato.arguments import counted
from ostinato.checks import judge_all, to_spec
from ostinato.errors import ItemError
from ostinato.refine import Item, Job, Route

WIDTH = 140
SHOWN = 3
"""How many prompts are shown, and how many answers of each kind."""


def show_job(job: Job, limit: int | None, *, as_json: bool) -> None:
    """Print the first prompts, the answers of rules and past cases, and the checks."""
    items, router = job.items(limit), job.router()
    routes: list[tuple[Item, Route]] = []
    set_aside: list[tuple[Item, str]] = []
    for item in items:
        try:
            routes.append((item, router.route(item.columns)))
        except ItemError as error:
            set_aside.append((item, str(error)))
    if as_json:
        click.echo(json.dumps(_json(job, items, routes), ensure_ascii=False))
        return
    counts = Counter(route.source.value for _, route in routes)
    click.echo(
        f"{job.name}: {counted(len(items), 'items')} from {job.input.name}; "
        f"{counts['rule']} answered by rules, {counts['case']} by past cases, "
        f"{counts['model']} by {job.model}."
    )
    _show_checks(job)
    rounds = counted(job.strategy.rounds, "rounds")
    click.echo(f"\nStrategy {job.strategy.kind}, at most {rounds} per item.")
    for source in ("rule", "case", "model"):
        for item, route in [one for one in routes if one[1].source == source][:SHOWN]:
            if source == "model":
                _show_prompt(item, route)
            else:
                _show_answer(job, item, route)
    if set_aside:
        click.echo(f"\nItems that cannot be worked on and are left out: {len(set_aside)}.")
    for item, reason in set_aside[:SHOWN]:
        click.echo(f"  {item.key}, line {item.line}: {reason}")


def _show_checks(job: Job) -> None:
    click.echo("\nChecks:")
    for check in job.checks:
        spec = to_spec(check)
        settings = ", ".join(
            f"{key} = {json.dumps(value, ensure_ascii=False)}"
            for key, value in spec.items()
            if key not in ("kind", "name")
        )
        settings = settings if len(settings) <= WIDTH else settings[: WIDTH - 1] + "…"
        click.echo(f"  {check.name} ({spec['kind']}): {settings}")


def _show_answer(job: Job, item: Item, route: Route) -> None:
    assert route.reply is not None  # `source` is a rule or a case, so there is an answer
    if route.source == "rule":
        source = f"by the rule '{route.rule}'"
    else:
        near = route.near[0]
        source = f"as the past case “{near.case.question}” (similarity {near.similarity:.2f})"
    click.echo(f"\n{item.key} is answered {source}:")
    click.echo(f"  {route.reply}")
    # A canned answer is judged as well: one that fails goes to the model.
    failed = [v for v in judge_all(job.checks, route.reply, item.columns) if not v.passed]
    for verdict in failed:
        click.echo(f"  ! failed, {verdict.check}: {verdict.error or verdict.message}")
    if failed:
        click.echo("  So the model would write this reply after all.")


def _show_prompt(item: Item, route: Route) -> None:
    click.echo(f"\n{item.key} is written from this prompt:")
    for near in route.near:
        click.echo(f"  example, similarity {near.similarity:.2f}: {near.case.question}")
    for message in route.messages:
        content = message["content"].replace("\n", "\n    ")
        click.echo(f"  {message['role']}: {content}")


def _json(
    job: Job, items: Sequence[Item], routes: Sequence[tuple[Item, Route]]
) -> dict[str, object]:
    counts = Counter(route.source.value for _, route in routes)
    return {
        "job": job.name,
        "input": str(Path(job.input)),
        "items": len(items),
        "by_rule": counts["rule"],
        "by_case": counts["case"],
        "by_model": counts["model"],
        "not_workable": len(items) - len(routes),
        "checks": [to_spec(check) for check in job.checks],
        "strategy": job.strategy.kind,
        "first": [
            {
                "id": item.key,
                "source": route.source.value,
                "reply": route.reply,
                "messages": list(route.messages),
            }
            for item, route in routes[:SHOWN]
        ],
    }
