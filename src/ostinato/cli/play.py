"""`ostinato play`: let a policy play episodes that it never trained on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ostinato.cli.following import View, display_for, followed, view_options
from ostinato.cli.minigame.by_hand import play_by_hand
from ostinato.cli.options import flag_of, near, seed_option
from ostinato.cli.presenters import drive
from ostinato.cli.recording import Recording, recording_options, way_back
from ostinato.cli.run_loop import Exit
from ostinato.errors import InputError, ModelError

if TYPE_CHECKING:
    from ostinato.journal import RunSource
    from ostinato.reward.games import PlayRun


@click.command()
@click.argument("policy", metavar="POLICY_OR_GAME")
@click.option("--human", is_flag=True, help="Play the mini-game yourself, in the terminal.")
@click.option("--episodes", type=click.IntRange(min=1), default=3, help="Episodes to play.")
@click.option(
    "--gif", type=click.Path(path_type=Path), help="Film of the episodes, as a GIF.", metavar="FILE"
)
@seed_option
@view_options
@recording_options(flag_of)
def play(
    recording: Recording,
    policy: str,
    human: bool,
    episodes: int,
    gif: Path | None,
    seed: int,
    view: View,
) -> None:
    """Let a policy play: that of a run or a folder of `ostinato train policy`, or `cartpole`.

    Its actions are the likeliest ones, and no episode is one that it trained on. `ostinato play
    ostinato/River-v0 --human` is a game of your own; its river is that of --seed.
    """
    if human:
        _require_alone("human", "policy", "seed")
        sys.exit(play_by_hand(policy, seed=seed))
    from ostinato.reward.games import PlayRun, load_policy, policy_digest

    place = _place(policy, recording.journal)
    config = PlayRun(
        policy=place,
        game=load_policy(place).shape.game,
        episodes=episodes,
        seed=seed,
        gif=gif,
        weights=policy_digest(place),
    )
    sys.exit(drive(config, recording, view, flag_of))


def _require_alone(option: str, *beside: str) -> None:
    """Raise `InputError` for options that were typed and have no effect with another one."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = str(parameter.name)
        typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if typed and name not in (option, *beside):
            raise InputError(
                f"{parameter.opts[0]} must be left out with --{option}, which it has no effect on."
            )


def _place(name: str, journal: Path | None) -> str:
    """Return the policy of a folder, a shipped one, or that of a run. Raises `ModelError`."""
    from ostinato.journal import DEFAULT, Journal
    from ostinato.reward.games import PolicyTrainingRun, policy_folder
    from ostinato.runs import config_of

    path = journal or DEFAULT
    try:
        policy_folder(name)
        return str(Path(name).absolute()) if Path(name).is_dir() else name
    except ModelError:
        if not path.exists():
            raise
        with Journal(path) as opened:
            run = opened.find(name)
            config = None if run is None else config_of(run)
        if not isinstance(config, PolicyTrainingRun):
            raise
        return str(config.out.absolute())


def present(config: PlayRun, run: RunSource | None, view: View) -> Exit:
    """Let the policy play to the end or an interruption; print the returns, and write the GIF."""
    from ostinato.loop import ends_by_signal
    from ostinato.refine import StepTally
    from ostinato.reward.games import build_play

    work = build_play(config, run=run)
    loop = work.loop
    display = display_for(StepTally(loop), view, alone=True)
    with ends_by_signal(loop), followed(loop, view, display), loop:
        for step in loop:
            work.watch(step)
            display.step(step)
            if "return" in step.report and view.says:
                number = len(work.episodes) or "…"
                episode = f"return {step.report['return']:g}, {step.report['length']} steps"
                click.echo(f"episode {number}: {episode}")
    recorded = loop.recorded_as
    if loop.stopped is None or (recorded is not None and recorded.status == "paused"):
        click.echo(way_back(recorded), err=True)
        return Exit.INTERRUPTED
    work.finish()
    returns = [episode.total for episode in work.episodes]
    mean = sum(returns) / len(returns)
    if view.as_json:
        shown = {
            "returns": returns,
            "mean": mean,
            "gif": None if config.gif is None else str(config.gif),
        }
        click.echo(json.dumps(shown | {"why": loop.stopped.to_json()}))
        return Exit.DONE
    written = "" if config.gif is None else f" Wrote {near(config.gif)}."
    click.echo(f"Mean return {mean:g} of {len(returns)} episodes.{written}")
    return Exit.DONE
