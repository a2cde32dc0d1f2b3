"""Driving runs from the command line: by kind, what shows a run while it goes on and at its end."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from ostinato.cli.following import View, display_for, followed
from ostinato.cli.recording import Recording, way_back
from ostinato.cli.run_loop import Exit

if TYPE_CHECKING:
    from ostinato.journal import RunConfig, RunSource
    from ostinato.loop import Step


Presenter = Callable[["RunConfig", "RunSource | None", View], Exit]
"""Builds a configuration, drives it as a run, shows it, and writes what it makes."""

PRESENTERS = {
    "chat": "ostinato.cli.chat.command:present",
    "fill": "ostinato.cli.fill:present",
    "flow": "ostinato.cli.flow:present",
    "generate": "ostinato.cli.generate:present",
    "play": "ostinato.cli.play:present",
    "sample image": "ostinato.cli.sample.image:present",
    "sample gan": "ostinato.cli.sample.image:present",
    "sample pipeline": "ostinato.cli.sample.image:present",
    "sample image-tokens": "ostinato.cli.sample.image_tokens:present",
    "sample vae": "ostinato.cli.sample.image:present",
    "sample music": "ostinato.cli.sample.music:present",
    "teach": "ostinato.cli.minigame.teach:present",
    "train": "ostinato.cli.train.group:present",
    "tune": "ostinato.cli.tune:present",
    "refine": "ostinato.cli.jobs.refine:present",
}
"""By kind of run, or by the first word of several: `package.module:function`. Other kinds are shown
by `present`."""


def drive(
    config: RunConfig, recording: Recording, view: View, spelled: Callable[[str], str] = str
) -> Exit:
    """Drive a configuration as a command does: find or make its run, and show it.

    `spelled` returns how a field is called on the command line.
    """
    with recording.opened(config, spelled) as run:
        return presenter(config.kind)(config, run, view)


def presenter(kind: str) -> Presenter:
    """Return what shows a kind of run."""
    place = PRESENTERS.get(kind) or PRESENTERS.get(kind.partition(" ")[0])
    if place is None:
        return present
    module, _, name = place.partition(":")
    found: Presenter = getattr(importlib.import_module(module), name)
    return found


def present(config: RunConfig, run: RunSource | None, view: View) -> Exit:
    """Drive any run to its end or interruption; say why it ended."""
    import json

    from ostinato.loop import ends_by_signal
    from ostinato.refine import StepTally
    from ostinato.runs import build_config

    work = build_config(config, run=run)
    loop = work.loop
    display = display_for(StepTally(loop), view)

    def watch(step: Step) -> None:
        work.watch(step)
        display.step(step)

    with ends_by_signal(loop) as signaled, followed(loop, view, display):
        stopped = loop.run(watch)
    recorded = loop.recorded_as
    paused = recorded is not None and recorded.status == "paused"
    if not paused:
        work.finish()
    if view.as_json:
        click.echo(json.dumps({"tick": loop.tick, "why": stopped.to_json()}))
    else:
        click.echo(f"{stopped.sentence} ({stopped.kind.value}, tick {loop.tick})")
    if signaled.number and paused:
        click.echo(way_back(recorded), err=True)
        return Exit.INTERRUPTED
    return Exit.DONE
