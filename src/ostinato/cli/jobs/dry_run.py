"""`ostinato refine --dry-run`: what a job would do, without a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from ostinato.checks import judge_all, to_spec
from ostinato.errors import ItemError
from ostinato.refine import Item, Job, Route, Router

SHOWN = 3
"""How many prompts, and how many answers of each kind, are shown."""


def show_job(job: Job, limit: int | None, *, as_json: bool) -> None:
    """Print the first prompts, what rules and past cases answer, and the checks."""
    items, planner = job.items(limit), job.router()
    plans = [(item, plan) for item in items if (plan := _plan(planner, item)) is not None]
    if as_json:
        click.echo(json.dumps(_json(job, items, plans), ensure_ascii=False))
        return
    counts = Counter(plan.source.value for _, plan in plans)
    click.echo(
        f"{job.name}: {len(items)} items from {job.input.name}; {counts['rule']} answered by "
        f"rules, {counts['case']} by past cases, {counts['model']} by {job.model}."
    )
    _show_checks(job)
    click.echo(f"\nStrategy {job.strategy.kind}, at most {job.strategy.rounds} rounds an item.")
    for source in ("rule", "case"):
        found = [one for one in plans if one[1].source == source]
        for item, plan in found[:SHOWN]:
            _show_answer(job, item, plan)
    for item, plan in [one for one in plans if one[1].source == "model"][:SHOWN]:
        _show_prompt(item, plan)
    if len(plans) < len(items):
        click.echo(f"\n{len(items) - len(plans)} items cannot be worked on; they are set aside.")


def _plan(planner: Router, item: Item) -> Route | None:
    try:
        return planner.plan(item.columns)
    except ItemError:
        return None


def _show_checks(job: Job) -> None:
    click.echo("\nChecks:")
    for check in job.checks:
        spec = to_spec(check)
        told = ", ".join(
            f"{key} = {json.dumps(value, ensure_ascii=False)}"
            for key, value in spec.items()
            if key not in ("kind", "name")
        )
        told = told if len(told) <= 140 else told[:139] + "…"
        click.echo(f"  {check.name} ({spec['kind']}): {told}")


def _show_answer(job: Job, item: Item, plan: Route) -> None:
    assert plan.reply is not None
    if plan.source == "rule":
        whence = f"by the rule '{plan.rule}'"
    else:
        near = plan.near[0]
        whence = f"as the past case “{near.case.question}” (likeness {near.likeness:.2f})"
    click.echo(f"\n{item.key} is answered {whence}:")
    click.echo(f"  {plan.reply}")
    failed = [v for v in judge_all(job.checks, plan.reply, item.columns) if not v.passed]
    for verdict in failed:
        click.echo(f"  ! not passed, {verdict.check}: {verdict.error or verdict.message}")
    if failed:
        click.echo("  So the model would write it after all.")


def _show_prompt(item: Item, plan: Route) -> None:
    click.echo(f"\n{item.key} is written from this prompt:")
    for near in plan.near:
        click.echo(f"  example, likeness {near.likeness:.2f}: {near.case.question}")
    for message in plan.messages:
        content = message["content"].replace("\n", "\n    ")
        click.echo(f"  {message['role']}: {content}")


def _json(
    job: Job, items: Sequence[Item], plans: Sequence[tuple[Item, Route]]
) -> dict[str, object]:
    counts = Counter(plan.source.value for _, plan in plans)
    return {
        "job": job.name,
        "input": str(Path(job.input)),
        "items": len(items),
        "by_rule": counts["rule"],
        "by_case": counts["case"],
        "by_model": counts["model"],
        "not_workable": len(items) - len(plans),
        "checks": [to_spec(check) for check in job.checks],
        "strategy": job.strategy.kind,
        "first": [
            {
                "id": item.key,
                "source": plan.source.value,
                "reply": plan.reply,
                "messages": list(plan.messages),
            }
            for item, plan in plans[:SHOWN]
        ],
    }
