"""The report page of a job: one self-contained HTML file, made from results alone.

Text of a model or of the input is escaped, or passed as JSON that the script only sets as text,
never as HTML. Knows no journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from ostinato.checks import to_spec
from ostinato.journal import JSON, Stopped
from ostinato.refine.job.config import Job
from ostinato.refine.report.advice import AdviceTally, nothing_to_do
from ostinato.refine.report.compare import Comparison
from ostinato.refine.report.items import ItemValues
from ostinato.refine.report.sparkline import Bars
from ostinato.refine.report.summary import ReasonTally, Summary, SummaryTally
from ostinato.refine.report.why import CheckRecord, CheckTally, Course
from ostinato.refine.results import Result
from ostinato.refine.routing.router import Router

ERRORS = 5
"""How many of the items that could not be worked on are named."""

MARKS = {"accepted": "✓", "revised": "↺", "given up": "✕", "error": "!", "unfinished": "…"}


class ReportTally:
    """All that a report says of the results of a job, collected result by result."""

    def __init__(self, job: Job, router: Router) -> None:
        names = [check.name for check in job.checks]
        self.summary = SummaryTally()
        self.checks = CheckTally(names)
        self.reasons = ReasonTally()
        self.advice = AdviceTally(job)
        self.bars = Bars()
        self.values = ItemValues(router, names)
        self.errors: list[tuple[str, int, str]] = []
        self.refused = ""

    def add(self, result: Result, line: int = 0) -> None:
        """Look at the next result, in the order of the items; `line` is that of its item."""
        self.summary.add(result)
        self.checks.add(result)
        self.reasons.add(result)
        self.advice.add(result)
        self.bars.add(result)
        self.values.add(result)
        if not result.accepted:
            self.refused = self.refused or result.id
            if result.outcome == "error" and len(self.errors) < ERRORS:
                self.errors.append((result.id, line, result.stopped.sentence))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out of a job so far, and why its run stopped.

    `seconds` is the time over all sessions, `when` the date of the report. `kept` is the number of
    replies in an output that was left as it is, since it has more than these; 0 where the output
    was written. `errors` are the first items that could not be worked on, as (id, line, sentence),
    `refused` is the first item that was not accepted.
    """

    job: Job
    summary: Summary
    stopped: Stopped | None = None
    seconds: float | None = None
    when: str = ""
    kept: int = 0
    errors: tuple[tuple[str, int, str], ...] = ()
    refused: str = ""

    def to_json(self) -> dict[str, JSON]:
        """Return what is recorded beside the output, to be told again without the results."""
        return {
            "summary": asdict(self.summary),
            "seconds": self.seconds,
            "when": self.when,
            "errors": [list(error) for error in self.errors],
            "refused": self.refused,
        }

    @classmethod
    def from_json(cls, job: Job, value: Mapping[str, Any], stopped: Stopped | None) -> Outcome:
        """Read back what `to_json` returned."""
        errors = tuple((str(id), int(line), str(why)) for id, line, why in value["errors"])
        told = {name: value[name] for name in ("seconds", "when", "refused")}
        summary = Summary(**value["summary"])
        return cls(job=job, summary=summary, stopped=stopped, errors=errors, **told)


def report_page(outcome: Outcome, tally: ReportTally) -> str:
    """Return the report as HTML that can be encoded as UTF-8."""
    job, summary = outcome.job, outcome.summary
    items = tally.values.items()
    page = _template("report.html.jinja").render(
        name=job.name,
        model=_model_name(job),
        strategy=job.strategy.kind,
        seed=job.seed,
        summary=summary,
        ending=_ending(outcome, summary),
        figures=_figures(outcome, summary),
        chart=tally.bars.chart(),
        reasons=tally.reasons.reasons(),
        checks=_checks(job, tally.checks.records),
        advice=tally.advice.advice() or [nothing_to_do(summary)],
        output=job.output.name,
        footer=f"Made by Ostinato from {job.output.name}. {outcome.when}".strip(),
        mark=_mark,
        style=Markup(_part("report.css")),
        script=Markup(_part("report.js")),
        left_out=_left_out(tally.values.count, len(items)),
        report_json=_embedded(tally.values, items),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # a model can emit lone surrogates


CHANGES = 2000
"""How many changed items are on the page of a comparison."""


def comparison_page(found: Comparison) -> str:
    """Return a comparison of two runs as HTML that can be encoded as UTF-8."""
    alone = [
        f"{count:,} more in {name} alone."
        for name, count in zip(found.names, found.only, strict=True)
        if count
    ]
    if len(found.changes) > CHANGES:
        alone.append(f"The first {CHANGES:,} changes are here.")
    page = _template("compare.html.jinja").render(
        names=found.names,
        items=found.items,
        changed=len(found.changes),
        ending=" ".join([f"{found.how()}.".capitalize(), *alone] if found.changes else alone),
        figures=found.figures(),
        checks=found.checks,
        changes=found.changes[:CHANGES],
        style=Markup(_part("report.css")),
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def _left_out(count: int, shown: int) -> str:
    """Return which items a page leaves out, and where they are; empty where all are there."""
    if shown == count:
        return ""
    return (
        f"{shown:,} of {count:,} items are here: those not accepted, the most mended, the most "
        "costly, and a sample. The figures are over all items."
    )


def _model_name(job: Job) -> str:
    # The last part only: a report is passed on, and a path shows the author's folders.
    name = job.model.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return f"{name}+{job.adapter}" if job.adapter else name


def _ending(outcome: Outcome, summary: Summary) -> str:
    if summary.unfinished:
        why = outcome.stopped.sentence if outcome.stopped else "The run has not ended."
        return f"Stopped with {summary.unfinished} items unfinished: {why}"
    given_up = summary.given_up + summary.errors
    if not given_up:
        return "Every item is done: all passed their checks."
    return f"Every item is done: {given_up} were not accepted."


def _figures(outcome: Outcome, summary: Summary) -> list[dict[str, str]]:
    per = summary.per_accepted
    figures = [
        ("–" if per is None else f"{per:.2f}", "tokens computed for each accepted one"),
        (f"{summary.first:,}", "accepted at once"),
        (f"{summary.revised:,}", "revised, then accepted"),
        (f"{summary.given_up + summary.errors:,}", "given up, or an error"),
        (
            f"{summary.tokens_computed:,}",
            f"tokens computed, {summary.tokens_discarded:,} discarded",
        ),
    ]
    if summary.tokens_judged:
        figures.append((f"{summary.tokens_judged:,}", "tokens read and written to judge"))
    if outcome.seconds is not None:
        figures.append((duration(outcome.seconds), "of work"))
    return [{"number": number, "label": label} for number, label in figures]


def duration(seconds: float) -> str:
    """Return a time for people: `4.2 s`, `42 s`, `7 min 12 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _checks(job: Job, records: Sequence[CheckRecord]) -> list[dict[str, Any]]:
    most = max((record.tokens for record in records), default=0.0)
    return [
        {
            "name": record.name,
            "parameters": _spec_line(to_spec(check)),
            "often": record.often,
            "errors": record.errors,
            "cells": [
                {"head": course.value, "count": record.count(course)}
                for course in (Course.FIRST, Course.REVISED, Course.FLAKY, Course.NEVER)
            ],
            "tokens": record.tokens,
            "share": round(100 * record.tokens / most) if most else 0,
        }
        for check, record in zip(job.checks, records, strict=True)
    ]


def _spec_line(spec: dict[str, Any], most: int = 120) -> str:
    """Return a check's parameters on one line of at most `most` characters."""
    parameters = ", ".join(
        f"{key} {json.dumps(value, ensure_ascii=False)}"
        for key, value in spec.items()
        if key not in ("kind", "name")
    )
    line = f"{spec['kind']}: {parameters}" if parameters else str(spec["kind"])
    return line if len(line) <= most else line[: most - 1] + "…"


def _mark(outcome: str) -> Markup:
    return Markup('<span class="mark {}"><i aria-hidden="true">{}</i>{}</span>').format(
        outcome.replace(" ", "-"), MARKS.get(outcome, ""), outcome
    )


def _embedded(values: ItemValues, items: Sequence[str]) -> Markup:
    """Return JSON for a script element, escaped so that nothing in it can end the element."""
    names = json.dumps(values.checks, ensure_ascii=False)
    text = f'{{"checks":{names},"all":{values.count},"items":[{",".join(items)}]}}'
    # U+2028 and U+2029 end a line in JavaScript before ES2019.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _part(name: str) -> str:
    return (files("ostinato.refine.report.page") / name).read_text(encoding="utf-8")


@cache
def _template(name: str) -> jinja2.Template:
    # Strict: a misspelled name raises instead of leaving a hole in the page.
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_part(name))
