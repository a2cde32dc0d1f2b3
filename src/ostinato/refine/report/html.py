"""The report page of a job: one self-contained HTML file, made from results alone.

Text of a model or of the input is escaped, or passed as JSON that the script only sets as text,
never as HTML. Knows no journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from ostinato.checks import to_spec
from ostinato.journal import Stopped
from ostinato.refine.job.config import Job
from ostinato.refine.job.items import Item
from ostinato.refine.report.advice import advise, nothing_to_do
from ostinato.refine.report.items import item_values
from ostinato.refine.report.sparkline import sparkline
from ostinato.refine.report.summary import Summary, reasons, summarize
from ostinato.refine.report.why import CheckRecord, Course, tally
from ostinato.refine.results import Result
from ostinato.refine.routing.router import Router

MARKS = {"accepted": "✓", "revised": "↺", "given up": "✕", "error": "!", "unfinished": "…"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a report is made of: the job, its items, their results, and why the run stopped.

    `results` are in the order of the items, and may be fewer. `seconds` is the time over all
    sessions, `when` the date of the report. `kept` is the number of replies in an output that was
    left as it is, since it has more than these; 0 where the output was written.
    """

    job: Job
    router: Router
    items: Sequence[Item]
    results: Sequence[Result]
    stopped: Stopped | None = None
    seconds: float | None = None
    when: str = ""
    kept: int = 0

    @property
    def summary(self) -> Summary:
        """The job in numbers."""
        return summarize(self.results, len(self.items))


def report_page(outcome: Outcome) -> str:
    """Return the report as HTML that can be encoded as UTF-8."""
    job, summary = outcome.job, outcome.summary
    records = tally([check.name for check in job.checks], outcome.results)
    values = item_values(outcome.router, outcome.items, outcome.results, records)
    page = _template().render(
        name=job.name,
        model=_model_name(job),
        strategy=job.strategy.kind,
        seed=job.seed,
        summary=summary,
        ending=_ending(outcome, summary),
        figures=_figures(outcome, summary),
        chart=sparkline(outcome.results),
        reasons=reasons(outcome.results),
        checks=_checks(job, records),
        advice=advise(job, outcome.results) or [nothing_to_do(summary)],
        output=job.output.name,
        footer=f"Made by Ostinato from {job.output.name}. {outcome.when}".strip(),
        mark=_mark,
        style=Markup(_part("report.css")),
        script=Markup(_part("report.js")),
        left_out=_left_out(values),
        report_json=_embedded(values),
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # a model can emit lone surrogates


def _left_out(values: Mapping[str, Any]) -> str:
    """Return which items a page leaves out, and where they are; empty where all are there."""
    count, shown = values["all"], len(values["items"])
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


def _embedded(value: object) -> Markup:
    """Return JSON for a script element, escaped so that nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # U+2028 and U+2029 end a line in JavaScript before ES2019.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _part(name: str) -> str:
    return (files("ostinato.refine.report.page") / name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    # Strict: a misspelled name raises instead of leaving a hole in the page.
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_part("report.html.jinja"))
