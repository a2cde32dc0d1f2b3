"""`ostinato compare`: two runs of a job side by side, in the terminal or as a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from ostinato.arguments import counted
from ostinato.cli.jobs.pages import page_path, write_page
from ostinato.cli.jobs.why import names_of_checks, require_checked, run_of
from ostinato.cli.options import journal_option, json_option
from ostinato.cli.recording import existing_journal
from ostinato.errors import InputError, RunError
from ostinato.journal import Run
from ostinato.loop import LaneResult
from ostinato.refine import Comparison, Piece, Result, compare, comparison_page, from_lane

PAGE = 1000  # results that are read at once


@click.command("compare")
@click.argument("before")
@click.argument("after")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    help="Changed items that are shown in the terminal.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.html", help="Write a page.")
@journal_option("path")
@json_option
def compare_runs(
    before: str, after: str, limit: int, out: Path | None, path: Path | None, as_json: bool
) -> None:
    """Compare the run AFTER of a refine job with the run BEFORE, over the items of both.

    Shows what was accepted, what it cost, which checks failed, and the replies that changed, word
    by word. A run is named as for `ostinato why`.
    """
    page = None if out is None else page_path(out)
    with existing_journal(path) as journal:
        runs = run_of(journal, before), run_of(journal, after)
        for run in runs:
            require_checked(run, journal)
        if runs[0].id == runs[1].id:
            raise InputError(
                f"Two runs must be given to compare, got {runs[0].name!r} twice. `ostinato runs` "
                "lists them."
            )
        found = _compared(*runs)
    if as_json:
        click.echo(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        _show(found, limit)
    if page is not None:
        write_page(page, comparison_page(found))


def _compared(before: Run, after: Run) -> Comparison:
    counts = before.count_results(), after.count_results()
    both = 0

    def pairs() -> Iterator[tuple[Result, Result]]:
        nonlocal both
        for page in _pages(before):
            others = after.results_of(list(page))
            for key, result in page.items():
                if key in others:
                    both += 1
                    yield result, from_lane(LaneResult.from_json(others[key]))

    names = before.name, after.name
    checks = names_of_checks(before), names_of_checks(after)
    found = compare(names, checks, pairs())
    if not both:
        raise RunError(
            f"Two runs must have results of the same items to be compared, got {before.name!r} "
            f"with {counts[0]} and {after.name!r} with {counts[1]}, none in common."
        )
    return replace(found, only=(counts[0] - both, counts[1] - both))


def _pages(run: Run) -> Iterator[dict[str, Result]]:
    page: dict[str, Result] = {}
    for key, row in run.results():
        page[key] = from_lane(LaneResult.from_json(row))
        if len(page) == PAGE:
            yield page
            page = {}
    if page:
        yield page


# Showing ----------------------------------------------------------------------------------------


def _show(found: Comparison, limit: int) -> None:
    rows = [("", *found.names), *found.figures()]
    rows += [("", "", ""), ("not passed at once", "", "")]
    for check in found.checks:
        before, after = check.not_at_once
        rows.append((f"  {check.name}", _count(before), _count(after)))
    widths = [max(len(row[n]) for row in rows) for n in range(3)]
    for label, one, two in rows:
        line = f"{label:<{widths[0]}}  {one:>{widths[1]}}  {two:>{widths[2]}}"
        click.echo(line.rstrip())
    click.echo()
    how = f": {found.how()}" if found.changes else ""
    click.echo(f"{len(found.changes):,} of {counted(found.items, 'items')} changed{how}.")
    for run, count in zip(found.names, found.only, strict=True):
        if count:
            click.echo(f"{count:,} more in {run} alone.")
    for change in found.changes[:limit]:
        click.echo(f"\n{change.id}: {change.kind} ({change.outcomes[0]}, {change.outcomes[1]})")
        click.echo("  " + "".join(map(_piece, change.pieces())).replace("\n", "\n  "))
    if len(found.changes) > limit:
        click.echo(
            f"\n{len(found.changes) - limit:,} more: see them with --limit, --out or --json."
        )


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _piece(piece: Piece) -> str:
    match piece.sign:
        case "-":
            return click.style(f"[-{piece.text}-]", fg="red")
        case "+":
            return click.style(f"{{+{piece.text}+}}", fg="green")
    return piece.text
