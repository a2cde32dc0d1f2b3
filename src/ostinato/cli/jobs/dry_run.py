"""`ostinato refine --dry-run`: shows prompts, rules, past cases and checks. Loads no model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import click

from ostinato.arguments import counted
from ostinato.checks import judge_all, to_spec
from ostinato.errors import ItemError
from ostinato.refine import Item, Job, Route, Router, UpdatePlan, checked_items
from ostinato.row_files import place

T = TypeVar("T")

WIDTH = 140
SHOWN = 3
"""How many prompts are shown, and how many answers of each kind."""


@dataclass
class Routed:
    """How the items of a job are answered: numbers, and the first ones of each kind."""

    items: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    first: list[tuple[Item, Route]] = field(default_factory=list)
    by_source: dict[str, list[tuple[Item, Route]]] = field(default_factory=dict)
    set_aside: list[tuple[Item, str]] = field(default_factory=list)

    def add(self, router: Router, item: Item) -> None:
        """Route an item and count it."""
        self.items += 1
        try:
            route = router.route(item.columns)
        except ItemError as error:
            self._keep(self.set_aside, (item, str(error)))
            return
        self.counts[route.source.value] += 1
        self._keep(self.first, (item, route))
        self._keep(self.by_source.setdefault(route.source.value, []), (item, route))

    @property
    def unworkable(self) -> int:
        """The number of items that cannot be worked on."""
        return self.items - self.counts.total()

    @staticmethod
    def _keep(first: list[T], one: T) -> None:
        if len(first) < SHOWN:
            first.append(one)


def show_job(job: Job, limit: int | None, *, as_json: bool, plan: UpdatePlan | None = None) -> None:
    """Print the first prompts, the answers of rules and past cases, and the checks.

    With a `plan`, also what `--update` would do.
    """
    router, routed = job.router(), Routed()
    with checked_items(job) as items:
        for item in items.first(limit):
            routed.add(router, item)
    if as_json:
        update = {} if plan is None else {"update": plan.to_json()}
        click.echo(json.dumps({**_json(job, routed), **update}, ensure_ascii=False))
        return
    counts = routed.counts
    click.echo(
        f"{job.name}: {counted(routed.items, 'items')} from {job.input.name}; "
        f"{counts['rule']} answered by rules, {counts['case']} by past cases, "
        f"{counts['model']} by {job.model}."
    )
    if plan is not None:
        click.echo(
            f"--update: {plan.same} stay as they are; {plan.judged} accepted replies are judged by "
            f"the changed checks, of which {plan.passed} stay; {plan.written} are written."
        )
    _show_checks(job)
    rounds = counted(job.strategy.rounds, "rounds")
    click.echo(f"\nStrategy {job.strategy.kind}, at most {rounds} per item.")
    for source in ("rule", "case", "model"):
        for item, route in routed.by_source.get(source, ()):
            if source == "model":
                _show_prompt(item, route)
            else:
                _show_answer(job, item, route)
    if routed.set_aside:
        click.echo(f"\nItems that cannot be worked on and are left out: {routed.unworkable}.")
    for item, reason in routed.set_aside:
        click.echo(f"  {item.key}, {place(job.input, item.line)}: {reason}")


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


def _json(job: Job, routed: Routed) -> dict[str, object]:
    return {
        "job": job.name,
        "input": str(Path(job.input)),
        "items": routed.items,
        "by_rule": routed.counts["rule"],
        "by_case": routed.counts["case"],
        "by_model": routed.counts["model"],
        "not_workable": routed.unworkable,
        "checks": [to_spec(check) for check in job.checks],
        "strategy": job.strategy.kind,
        "first": [
            {
                "id": item.key,
                "source": route.source.value,
                "reply": route.reply,
                "messages": list(route.messages),
            }
            for item, route in routed.first
        ],
    }
