"""`ostinato chat`: talk with a model, or let two models talk; the conversation is a run."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ostinato.cli.following import View, display_for, followed, view_options
from ostinato.cli.options import flag_of, model_options, seed_option
from ostinato.cli.presenters import drive
from ostinato.cli.recording import Recording, recording_options, way_back
from ostinato.cli.run_loop import Exit
from ostinato.errors import InputError, RunError

if TYPE_CHECKING:
    from ostinato.cli.chat.console import Console
    from ostinato.flow import ChatRun, ChatWork
    from ostinato.journal import Run, RunSource

_SPELLED = {
    "model": "MODEL",
    "partner": "--with",
    "partner_system": "--with-system",
    "given": "--set",
    "weights": "MODEL (its files have changed)",
    "bits": "--int8 or --int4",
}


_NEEDS = {
    **dict.fromkeys(("turns", "opening", "partner_system"), "partner"),
    **dict.fromkeys(("column", "given"), "rules"),
}
"""Options that have no effect without another one."""


def spelled(name: str) -> str:
    """Return how a field is called on the command line."""
    field, *_ = name.split(".")
    return _SPELLED.get(field) or flag_of(field)


@click.command()
@click.argument("model", default="smollm2")
@click.option("--key-env", metavar="NAME", help="Environment variable with the server's API key.")
@model_options
@click.option("--system", default="", help="System message.")
@click.option(
    "--with", "partner", metavar="MODEL", default="", help="Let MODEL talk with this one."
)
@click.option("--with-system", "partner_system", default="", help="System message of --with.")
@click.option("--turns", type=click.IntRange(min=1), default=10, help="Answers of both models.")
@click.option("--opening", help="What --with says first.  [default: a question]")
@click.option(
    "--rules",
    metavar="JOB.toml",
    type=click.Path(path_type=Path),
    help="Job file whose rules, past cases, checks, strategy and sampling hold.",
)
@click.option("--column", default="message", help="Column of --rules that has what you say.")
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Another column of --rules; the value is JSON, else text; repeatable.",
)
@click.option(
    "--memory",
    type=click.Choice(["summary", "cut"]),
    default="summary",
    help="What becomes of the oldest turns when the context is full.",
)
@click.option(
    "--context", type=click.IntRange(min=1), help="Context in tokens.  [default: the model's]"
)
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), help="Token limit of a draft.  [default: 256]"
)
@click.option("--temperature", type=float, help="Sampling temperature; 0: greedy.  [default: 0.7]")
@click.option("--top-k", type=int, help="Top-k sampling; 0: off.  [default: 50]")
@click.option("--top-p", type=float, help="Nucleus sampling; 1: off.  [default: 1]")
@click.option(
    "--min-p", type=float, help="Min-p: cutoff as a share of the top probability.  [default: 0]"
)
@click.option("--repetition-penalty", type=float, help="Repetition penalty.  [default: 1, off]")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), help="Tokens after which a person answers."
)
@click.option("--max-cost", type=float, help="Cost on servers after which a person answers.")
@click.option("--max-seconds", type=float, help="Seconds of writing after which a person answers.")
@click.option(
    "--max-rounds",
    type=click.IntRange(min=1),
    help="Drafts in a row that fail, after which a person answers.",
)
@click.option("--from", "origin", metavar="RUN", help="Branch from this chat; name it with --run.")
@click.option("--at", type=click.IntRange(min=1), help="Turn of --from.  [default: the last]")
@click.option(
    "--out",
    "out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the conversation as a line of JSON.",
)
@seed_option
@view_options
@recording_options(spelled)
def chat(
    recording: Recording,
    origin: str | None,
    at: int | None,
    view: View,
    **settings: Any,
) -> None:
    """Talk with MODEL, or let it talk with another one (--with).

    Everything is recorded as a run. The same command with --run NAME goes on with it, also after a
    kill; options that are left out are as before. /help shows what can be typed besides.

    Exit codes: 0 you left, or the conversation has ended; 1 a person is to answer, or a model
    failed; 2 an argument or a file is wrong; 130 interrupted (Ctrl-C or SIGTERM).
    """
    if at is not None and origin is None:
        raise InputError("--at must be given with --from, got it alone. Name the chat.")
    typed = _typed(settings)
    config = _branch(recording, origin, at, typed) if origin else _same(recording, typed, view)
    sys.exit(drive(config, recording, view, spelled))


def _typed(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that were typed, as fields of the configuration."""
    from ostinato.cli.runs.words import setting
    from ostinato.models import adapter_place, model_place, split_adapter

    context = click.get_current_context()
    typed = {
        name: value
        for name, value in settings.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        or (name == "bits" and value is not None)  # of --int8 and --int4
    }
    if "given" in typed:
        typed["given"] = dict(setting(text) for text in typed["given"])
    if "model" in typed and "adapter" not in typed and not _is_server(typed["model"]):
        typed["model"], adapter = split_adapter(typed["model"])
        typed["adapter"] = adapter or None
    for name in ("model", "partner"):
        if typed.get(name):
            typed[name] = model_place(typed[name])
    if typed.get("adapter"):
        typed["adapter"] = adapter_place(typed["adapter"])
    for name in ("rules", "out"):
        if name in typed:
            typed[name] = typed[name].absolute()
    return typed


def _is_server(name: str) -> bool:
    from ostinato.remote import is_server

    return is_server(name)


def _config(before: ChatRun | None, typed: dict[str, Any]) -> ChatRun:
    """Return a configuration with what was typed; all else is as before, or as usual."""
    from ostinato.flow import ChatRun
    from ostinato.models import weights_digest

    usual = before or ChatRun()
    for name, needed in _NEEDS.items():
        if name in typed and not (typed.get(needed) or getattr(usual, needed)):
            raise InputError(
                f"{spelled(name)} must be given with {spelled(needed)}, without which it has no "
                "effect, got it alone. Leave it out."
            )
    config = replace(usual, **typed)
    if before is None or "model" in typed or "adapter" in typed:
        config = replace(config, weights=weights_digest(config.model, config.adapter))
    return config


def _same(recording: Recording, typed: dict[str, Any], view: View) -> ChatRun:
    """Return the configuration of the run that goes on, or of a new one.

    A new one without rules samples as its model recommends, where nothing else is typed.
    """
    from ostinato.flow import ChatRun
    from ostinato.models import recommendation, recommended_sampling

    before = recording.before()
    if isinstance(before, ChatRun):
        return _config(before, typed)
    config = _config(None, typed)
    if config.rules is not None or _is_server(config.model):
        return config
    found: dict[str, Any] = recommended_sampling(config.model, without=typed)
    view.say(recommendation(found))
    return replace(config, **found)


def _branch(recording: Recording, origin: str, at: int | None, typed: dict[str, Any]) -> ChatRun:
    """Make the run that goes on after a turn of another; return its configuration."""
    from ostinato.cli.recording import existing_journal
    from ostinato.flow import ChatRun, turns_of
    from ostinato.runs import amend, branch, config_of

    if recording.name is None:
        raise InputError("--from must be given with --run, the name of the new run, got it alone.")
    with existing_journal(recording.journal) as journal:
        run = journal.get(origin)
        before = config_of(run)
        if not isinstance(before, ChatRun):
            raise RunError(f"The run {run.name!r} must be a chat, got the kind {run.kind!r}.")
        turns = turns_of(run.calls())
        if not turns or (at is not None and at > len(turns)):
            raise InputError(
                f"--at must be a turn of {run.name!r}, which has {len(turns)}, got {at}."
            )
        config = _config(before.branched(recording.name), typed)
        made = branch(journal, run, recording.name, call=turns[(at or len(turns)) - 1].path)
        amend(journal, made, config)
    return config


# Driving ----------------------------------------------------------------------------------------


def present(config: ChatRun, run: RunSource | None, view: View) -> Exit:
    """Let a person or another model talk with a model, until it ends or somebody leaves."""
    from ostinato.cli.chat.console import Console
    from ostinato.flow import build_chat, names_of, told_conversation, turns_of, write_conversation
    from ostinato.journal import Run

    console = Console(names_of(config), quiet=view.quiet or view.as_json)
    if isinstance(run, Run) and run.status == "stopped":  # needs no model
        turns = turns_of(run.calls())
        console.show(turns)
        told = told_conversation(config, turns, run)
        write_conversation(config.out, told)
        _told(told, run, view, f"The conversation has ended. {_go_on(run)}")
        return Exit.DONE
    patient = console.is_live and sys.stdin.isatty() and not config.partner
    work = build_chat(config, run=run, stage=console, patient=patient, say=view.say)
    console.work = work
    for line in work.left_out:
        console.tell(line)
    interrupted = _drive(work, console, view, patient=patient)
    console.end_line()
    work.finish()
    return _ended(work, console, view, interrupted=interrupted)


def _drive(work: ChatWork, console: Console, view: View, *, patient: bool) -> bool:
    """Drive a chat to its end or a pause; return whether a signal has ended it."""
    from ostinato.loop import ends_by_signal
    from ostinato.refine import StepTally

    typing = console.stops_answers() if patient else nullcontext()
    display = display_for(StepTally(work.loop), view, alone=True)
    following = followed(work.loop, view, display)
    with ends_by_signal(work.loop) as signaled, following, work.loop, typing:
        try:
            for step in work.loop:
                work.watch(step)
                display.step(step)
                if patient and work.lanes.counts()["waiting"]:
                    console.tell(_how_to_answer(work))
        finally:
            work.close()
    return bool(signaled.number) or console.interrupted


def _ended(work: ChatWork, console: Console, view: View, *, interrupted: bool) -> Exit:
    recorded, stopped = work.loop.recorded_as, work.loop.stopped
    waits = stopped is not None and stopped.condition == "ask"
    done = bool(work.results)
    line = "" if done and recorded is None else _go_on(recorded) if done else way_back(recorded)
    if waits:
        line = _how_to_answer(work)
    _told(work.to_json(), recorded, view, line)
    if done:
        return Exit.DONE
    if waits:
        return Exit.NOT_ALL
    return Exit.INTERRUPTED if interrupted else Exit.DONE


def _how_to_answer(work: ChatWork) -> str:
    from ostinato.journal import runs_command

    run = work.loop.recorded_as
    if run is None:
        return "A person is to answer, and nothing records the chat."
    line = runs_command(run.database.path, "answer", run.name)
    return f"Answer with: {line} ANSWER"


def _go_on(run: Run | None) -> str:
    """Return how a conversation that has ended can go on in another run."""
    return "" if run is None else f"To go on: ostinato chat --from {run.name} --run NEW"


def _told(told: dict[str, Any], run: Run | None, view: View, line: str) -> None:
    if view.as_json:
        status = {} if run is None else {"status": run.status}
        click.echo(json.dumps({**told, **status}))
    elif line and not view.quiet:
        click.echo(line, err=True)
