"""`ostinato teach`: a policy plays, and a person's thumbs up and down are its reward."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ostinato.arguments import counted
from ostinato.cli.following import View, display_for, followed, view_options
from ostinato.cli.keyboard import full_screen, require_terminal
from ostinato.cli.minigame.teacher import HELP, Teacher
from ostinato.cli.options import flag_of, seed_option
from ostinato.cli.presenters import drive
from ostinato.cli.recording import Recording, recording_options, way_back
from ostinato.cli.run_loop import Exit
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.journal import RunSource
    from ostinato.reward.minigame import TeachRun, TeachWork

AUTO_PRESSES = 60
"""Presses of a simulated teacher where nobody says how many."""
TOLD = 10
"""Presses of a simulated teacher between two lines."""
NAMED = 3
"""Likings that a line names."""


def spelled(name: str) -> str:
    """Return how a field is called on the command line."""
    return {"weights": "--policy (its files have changed)"}.get(name) or flag_of(name)


@click.command()
@click.option(
    "--policy",
    default="river",
    help="Policy that plays: the shipped `river`, a folder, or `none`: it knows nothing.",
)
@click.option(
    "--auto",
    metavar="RULE",
    default="",
    help="Simulated teacher: lilies, pearls, left, right, calm or score.  [default: you]",
)
@click.option(
    "--presses",
    type=click.IntRange(min=1),
    help=f"End after this many presses.  [default: when you quit; with --auto {AUTO_PRESSES}]",
)
@click.option("--speed", type=float, default=5.0, help="Moves per second, 0.5 to 30.")
@seed_option
@view_options
@recording_options(spelled)
def teach(
    recording: Recording,
    policy: str,
    auto: str,
    presses: int | None,
    speed: float,
    seed: int,
    view: View,
) -> None:
    """Teach a policy that plays the mini-game, by thumbs up and down.

    Press what you think of its last moves; it plays by your taste at once. Every press is recorded
    before it counts: the same command with --run goes on where you left. Exit codes: 0 done; 2 an
    argument or a file is wrong, or there is no terminal; 130 interrupted.
    """
    from ostinato.reward.minigame import TeachRun, player_digest, policy_place

    if view.as_json and not auto:
        raise InputError("--json must come with --auto, got it alone: the game is shown instead.")
    config = TeachRun(
        policy=policy_place(policy),
        auto=auto,
        speed=speed,
        presses=presses or (AUTO_PRESSES if auto else 0),
        seed=seed,
        weights=player_digest(policy),
    )
    sys.exit(drive(config, recording, view, spelled))


def present(config: TeachRun, run: RunSource | None, view: View) -> Exit:
    """Let the policy be taught, by a person or a simulated teacher, and say what it learned."""
    from ostinato.loop import ends_by_signal
    from ostinato.reward.minigame import COLUMNS, LINES, TeachWork
    from ostinato.runs import build_config

    if not config.auto:
        mend = "Teach in a terminal of your own, or let a simulated teacher do it with --auto."
        require_terminal(COLUMNS + 10, LINES + len(HELP) + 3, mend)
    work = build_config(config, run=run)
    assert isinstance(work, TeachWork)
    with ends_by_signal(work.loop) as signaled:
        if config.auto:
            _by_rule(work, view)
        else:
            with full_screen() as (keyboard, screen):
                Teacher(work, keyboard, screen).teach()
    recorded = work.loop.recorded_as
    left = recorded is not None and recorded.status != "stopped"
    if not left and not signaled.number:
        work.finish()
    _report(work, view)
    if left:
        click.echo(way_back(recorded), err=True)
    return Exit.INTERRUPTED if signaled.number else Exit.DONE


def _by_rule(work: TeachWork, view: View) -> None:
    """Let the simulated teacher watch every move; say now and then what the policy has learned."""
    from ostinato.refine import StepTally

    told, loop = work.teaching.presses, work.loop
    display = display_for(StepTally(loop), view, alone=True)
    with followed(loop, view, display), loop:
        for step in loop:
            display.step(step)
            work.press_by_rule()
            if view.says and work.teaching.presses >= told + TOLD:
                told = work.teaching.presses
                click.echo(f"{counted(told, 'presses')}: {_taste(work)}")


# The end ----------------------------------------------------------------------------------------


def _report(work: TeachWork, view: View) -> None:
    if view.as_json:
        click.echo(json.dumps(_summary(work)))
        return
    teaching, stopped = work.teaching, work.loop.stopped
    games = counted(teaching.games, "games")
    presses, moves = counted(teaching.presses, "presses"), counted(teaching.steps, "moves")
    click.echo(f"{presses} in {moves}, {games}: {_taste(work)}")
    if view.quiet:
        return
    if work.results is not None:
        for name, each in zip(("Untaught", "Taught"), work.results, strict=True):
            click.echo(
                f"{name}: {each.style:.0%} {work.shown}, return {each.score:.1f}, "
                f"{each.hits:.1f} hits a game."
            )
    if stopped is not None:
        click.echo(stopped.sentence)


def _taste(work: TeachWork) -> str:
    """Return what the policy takes its teacher to like, in words."""
    from ostinato.reward.minigame import likes

    found = likes(work.teaching.weights)
    sides = (
        ("likes", [name for name, value in found if value > 0]),
        ("dislikes", [name for name, value in found if value < 0]),
    )
    parts = [f"{verb} {', '.join(names[:NAMED])}" for verb, names in sides if names]
    return f"its teacher {'; '.join(parts)}." if parts else "nothing is known of its teacher yet."


def _summary(work: TeachWork) -> dict[str, object]:
    from ostinato.reward.minigame import likes

    teaching, stopped, results = work.teaching, work.loop.stopped, work.results
    names = ("untaught", "taught")
    return {
        "presses": teaching.presses,
        "steps": teaching.steps,
        "games": teaching.games,
        "likes": dict(likes(teaching.weights)),
        "measured": None
        if results is None
        else dict(zip(names, map(asdict, results), strict=True)),
        "why": None if stopped is None else stopped.to_json(),
    }
