"""`ostinato flow`: run functions marked with `@flow`, and show what they called."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.arguments import counted
from ostinato.cli.following import View, display_for, followed, view_options
from ostinato.cli.options import flag_of, journal_option, json_option, seed_option
from ostinato.cli.presenters import drive
from ostinato.cli.recording import Recording, recording_options, resume_line, way_back
from ostinato.cli.run_loop import Exit
from ostinato.errors import InputError, OstinatoError, RunError

if TYPE_CHECKING:
    from ostinato.flow import FlowRun, FlowWork
    from ostinato.journal import Call, Run, RunSource
    from ostinato.refine import ProgressTally

SHOWN = 100  # characters of a value


@click.group()
def flow() -> None:
    """Run plain Python around generative calls, each of which is made once."""


@flow.command("run")
@click.argument("program", metavar="FILE.py[:NAME]")
@click.argument("arguments", nargs=-1)
@click.option(
    "--over",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Run it for every row of a file (.jsonl, .csv, .parquet).",
)
@click.option("--limit", type=click.IntRange(min=1), help="The first rows only.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Results, as JSONL.")
@click.option("--model", default="smollm2", help="Model of calls that name none.")
@seed_option
@click.option("--slots", type=click.IntRange(min=1), default=16, help="Texts written at once.")
@click.option(
    "--in-progress", type=click.IntRange(min=1), default=256, help="Flows in progress at once."
)
@click.option("--max-tokens", type=click.IntRange(min=1), help="Most tokens of all flows together.")
@click.option("--max-cost", type=float, help="Most that servers may cost, in their currency.")
@click.option("--max-seconds", type=float, help="Most seconds.")
@click.option("--fresh", is_flag=True, help="Start over; the earlier run is deleted.")
@view_options
@recording_options(flag_of)
def run_flow(
    recording: Recording,
    program: str,
    arguments: tuple[str, ...],
    over: Path | None,
    limit: int | None,
    out: Path | None,
    fresh: bool,
    view: View,
    **settings: Any,
) -> None:
    """Run the flow NAME of FILE.py with ARGUMENTS, or for every row of a file.

    An argument is JSON, else text; NAME=VALUE is one by name. The same command resumes: what was
    done is not done again. Exit codes: 0 all have returned; 1 some have failed, or wait for a
    person; 2 an argument or a file is wrong; 130 interrupted.
    """
    from ostinato.cli.runs.words import json_or_text
    from ostinato.flow import FlowRun, flow_of, rows_digest_of

    path, name = place_of(program)
    found = flow_of(path, name)
    if over is not None and arguments:
        raise InputError(f"ARGUMENTS must be left out with --over, got {' '.join(arguments)}.")
    for option, value in (("--out", out), ("--limit", limit)):
        if over is None and value is not None:
            raise InputError(f"{option} must be given with --over FILE, got it alone.")
    if over == Path("-"):
        raise InputError(
            "--over must be a file, got standard input: who resumes the run reads the rows again. "
            "Write them into a file first."
        )
    given: dict[str, Any] = {}
    if over is None:
        values, named = _split(arguments, found.parameters)
        typed = found.bound_partly([json_or_text(each) for each in values])
        given = typed | {key: json_or_text(each) for key, each in named.items()}
        found.bound(**found.typed_arguments(given))  # raises where they do not fit
    config = FlowRun(
        program=path.absolute(),
        function=found.name,
        arguments=given,
        input=None if over is None else over.absolute(),
        limit=limit,
        rows="" if over is None else rows_digest_of(over, limit),
        out=None if out is None else out.absolute(),
        **settings,
    )
    recording = _named(recording, config, fresh=fresh)
    sys.exit(drive(config, recording, view, _spelled))


def _spelled(field: str) -> str:
    """Return how a user calls a field of the configuration."""
    name, dot, inner = field.partition(".")
    words = {
        "program": "FILE.py",
        "function": "NAME",
        "arguments": "ARGUMENTS",
        "input": "--over",
        "limit": "--limit",
        "rows": "the hash of the rows",
    }
    return f"{words[name]}{dot}{inner}" if name in words else flag_of(field)


def place_of(program: str) -> tuple[Path, str]:
    """Return the file and the name of `FILE.py:NAME`."""
    head, colon, name = program.rpartition(":")
    return (Path(head), name) if colon and name.isidentifier() else (Path(program), "")


def _split(arguments: Iterable[str], parameters: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the arguments by place, and those of the form NAME=VALUE."""
    values: list[str] = []
    named: dict[str, str] = {}
    for each in arguments:
        name, equal, value = each.partition("=")
        if equal and name in set(parameters):
            named[name] = value
        else:
            values.append(each)
    return values, named


def _named(recording: Recording, config: FlowRun, *, fresh: bool) -> Recording:
    """Return where to record: a run called after the flow and what it works on."""
    from dataclasses import replace

    from ostinato.journal import safe_name
    from ostinato.loop import digest

    if config.input is not None:
        about = config.input.stem
    else:
        about = digest(dict(config.arguments))[:6] if config.arguments else ""
    usual = safe_name(f"{config.function}-{about}" if about else config.function)
    return replace(recording, usual=usual, fresh=fresh)


# Driving ----------------------------------------------------------------------------------------


def present(config: FlowRun, run: RunSource | None, view: View) -> Exit:
    """Drive flows to their end; show what one returned, or how many have."""
    from ostinato.flow import FlowsFailed, build_flow, own_traceback
    from ostinato.loop import ends_by_signal

    work = build_flow(config, run=run)
    recorded = work.loop.recorded_as
    display = display_for(_tally(work), view, alone=config.single)
    failed = ""
    try:
        with ends_by_signal(work.loop), followed(work.loop, view, display), work.loop:
            try:
                for step in work.loop:
                    work.watch(step)
                    display.step(step)
            finally:
                work.close()
    except FlowsFailed as error:
        failed = f"Error: {error}"
    except Exception as error:
        if isinstance(error, OstinatoError) or not work.lanes.has_raised(error):
            raise
        failed = own_traceback(error)
    work.finish()
    return _told(config, work, recorded, failed, view)


def _tally(work: FlowWork) -> ProgressTally:
    """Return the numbers of the flows; a resumed loop may yield results of before again."""
    from ostinato.refine import tally_of

    tally = tally_of(work.count, work.loop.recorded_as)
    tally.word, tally.states, tally.written = "returned", work.lanes.counts, lambda: work.tokens
    return tally


def _told(config: FlowRun, work: FlowWork, recorded: Run | None, failed: str, view: View) -> Exit:
    """Say what came out; return the exit code."""
    results, questions = work.results, [] if recorded is None else recorded.questions()
    stopped = work.loop.stopped
    done = len(results) == work.count
    if view.as_json:
        values = {each.key: each.output for each in results}
        told = {
            "returned": len(results),
            "flows": work.count,
            "questions": [each._asdict() for each in questions],
            "why": None if stopped is None else stopped.to_json(),
            "output": next(iter(values.values()), None) if config.single else values,
        }
        click.echo(json.dumps(told))
    elif config.single and done:
        click.echo(shown(results[0].output, whole=True))
    elif not config.single:
        where = f": {config.out}" if config.out is not None else ""
        click.echo(f"{len(results)} of {work.count} flows have returned{where}.")
    if done:
        return Exit.DONE
    for question in questions:
        click.echo(f"{question.path} asks: {question.question}", err=True)
    if questions and recorded is not None:
        from ostinato.journal import runs_command

        path = f" --path {questions[0].path}" if len(questions) > 1 else ""
        line = runs_command(recorded.database.path, "answer", recorded.name)
        click.echo(f"Answer with: {line}{path} ANSWER", err=True)
    if failed:
        click.echo(failed, err=True)
    if not failed and not questions:
        why = "" if stopped is None else f"{stopped.sentence} "
        click.echo(f"{why}{way_back(recorded)}", err=True)
        budget = stopped is not None and stopped.kind == "budget"
        return Exit.BUDGET if budget else Exit.INTERRUPTED
    if recorded is not None:
        click.echo(f"To resume: {resume_line(recorded)}", err=True)
    return Exit.NOT_ALL


# Showing ----------------------------------------------------------------------------------------


@flow.command("show")
@click.argument("name")
@click.option("--key", help="The flow of one row.")
@json_option
@journal_option("path")
def show_flow(name: str, key: str | None, as_json: bool, path: Path | None) -> None:
    """Show what the flows of the run NAME, or a chat, have called, as a tree."""
    from ostinato.cli.runs.words import opened
    from ostinato.flow import ChatRun, FlowRun, prefix_of
    from ostinato.runs import config_of

    with opened(path) as journal:
        run = journal.get(name)
        config = config_of(run)
        if not isinstance(config, FlowRun | ChatRun):
            raise RunError(
                f"The run {name!r} must be one of flows or a chat, got the kind {run.kind!r}. "
                f"Show it with: ostinato runs show {name}"
            )
        if key is None and isinstance(config, FlowRun) and not config.single:
            _show_rows(run, as_json=as_json)
            return
        prefix = "" if key is None else prefix_of(key)
        calls = sorted(run.calls_under(prefix) if prefix else run.calls(), key=_order)
        if not calls:
            there = f" of the key {key!r}" if key is not None else ""
            raise RunError(f"The run {name!r} must have calls{there} to be shown, got none.")
    if as_json:
        for call in calls:
            click.echo(json.dumps(call.to_json()))
        return
    for line in _tree(calls, prefix):
        click.echo(line)


def _show_rows(run: Run, *, as_json: bool) -> None:
    from ostinato.flow import key_of

    counts: dict[str, int] = {}
    for call in run.calls():
        key = key_of(call.path)
        counts[key] = counts.get(key, 0) + 1
    done = {key for key, _ in run.results()}
    waiting = {key_of(each.path) for each in run.questions()}
    for key in {**counts, **dict.fromkeys(done, 0)}:
        state = "returned" if key in done else "waits" if key in waiting else "in progress"
        if as_json:
            click.echo(json.dumps({"key": key, "calls": counts.get(key, 0), "state": state}))
        else:
            click.echo(f"{key}  {state}, {counted(counts.get(key, 0), 'calls')}")


def _order(call: Call) -> list[Any]:
    """Return what orders calls as they are made; a flow stands before its own calls."""
    numbers = [part for part in re.split(r"[/\[\]]", call.path) if part]
    return [
        (int(head) if (head := part.partition(":")[0]).isdigit() else 0, part) for part in numbers
    ]


def _tree(calls: Sequence[Call], prefix: str) -> Iterator[str]:
    """Yield a line for each call, and for each branch or call in progress that has calls below."""
    above: list[str] = []
    for call in calls:
        parts = call.path.removeprefix(prefix).split("/")
        same = next(
            (n for n, (a, b) in enumerate(zip(above, parts, strict=False)) if a != b), len(above)
        )
        for depth in range(same, len(parts) - 1):
            state = "" if _BRANCH.search(parts[depth]) else "in progress"
            yield _line(depth, parts[depth], state)
        told = call.error if call.error is not None else shown(_value(call.answer))
        yield _line(len(parts) - 1, parts[-1], told)
        above = parts


def _line(depth: int, part: str, told: str) -> str:
    number, _, name = part.partition(":")
    return f"{'    ' * depth}{number:>3} {name:<14} {told}".rstrip()


_BRANCH = re.compile(r"\[\d+\]$")


def _value(answer: Any) -> Any:
    if isinstance(answer, Mapping) and "value" in answer:
        answer = answer["value"]
    if isinstance(answer, Mapping) and {"text", "accepted", "rounds"} <= answer.keys():
        return answer["text"]
    if isinstance(answer, list) and answer and all(map(_is_verdict, answer)):
        failed = [each for each in answer if not each["passed"]]
        told = [each.get("error") or each["message"] or each["check"] for each in failed]
        return f"failed: {' '.join(told)}" if told else "passed"
    return answer


def _is_verdict(value: Any) -> bool:
    return isinstance(value, Mapping) and {"check", "passed", "message"} <= value.keys()


def shown(value: object, *, whole: bool = False) -> str:
    """Return a value as a person reads it: a text as it is, else JSON."""
    from ostinato.journal import encode, valid

    text = value if isinstance(value, str) else encode(valid(value))
    line = text if whole else " ".join(text.split())
    return line if whole or len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
