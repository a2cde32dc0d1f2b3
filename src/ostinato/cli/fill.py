"""`ostinato fill`: fill the gaps of a text with a masked language model."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.following import View, view_options
from ostinato.cli.options import flag_of, seed_option
from ostinato.cli.presenters import drive
from ostinato.cli.recording import Recording, recording_options
from ostinato.cli.run_loop import Exit, exit_interrupted, refuse_errors, results_of
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.journal import Run, RunSource
    from ostinato.loop import LaneResult, Step
    from ostinato.text import FillRun


def spelled(name: str) -> str:
    """Return how a field is called on the command line."""
    names = {"text": "TEXT", "weights": "model (its files have changed)"}
    return names.get(name) or flag_of(name)


@click.command()
@click.argument("text")
@click.option("--model", help="Folder of `ostinato train text --kind masked`, or of a BERT.")
@click.option("--gap-tokens", default=8, type=click.IntRange(min=1), help="Tokens per gap.")
@click.option("--steps", default=8, type=click.IntRange(min=1), help="Unmasking steps.")
@click.option("--temperature", default=0.7, type=float, help="Sampling temperature; 0: greedy.")
@click.option(
    "--noise",
    default=1.0,
    type=float,
    help="Gumbel noise on the confidence that decides which tokens to keep.",
)
@seed_option
@click.option("--show", is_flag=True, help="Print the text at every step; a masked token is a dot.")
@view_options
@recording_options(spelled)
def fill(
    text: str,
    model: str | None,
    show: bool,
    view: View,
    recording: Recording,
    **settings: Any,
) -> None:
    """Fill the gaps of TEXT, each marked as ___, most confident tokens first."""
    from ostinato.models import model_place, weights_digest
    from ostinato.text import FillRun

    if model is None:
        raise InputError(
            "--model must name the folder of a masked language model, got none: no such model "
            "ships. Name a BERT's folder, or train a small one on texts of yours: "
            "ostinato train text FILE.txt --kind masked --out masked"
        )
    config = FillRun(text=text, model=model_place(model), weights=weights_digest(model), **settings)
    sys.exit(drive(config, recording, replace(view, show=show), spelled))


def present(config: FillRun, run: RunSource | None, view: View) -> Exit:
    """Fill the gaps and print the text, or print that of a finished run, which needs no model."""
    from ostinato.journal import Run

    if isinstance(run, Run) and run.status == "stopped":
        results, note = _recorded(run, view), f" The run {run.name!r} is finished."
    else:
        results, note = _filled(config, run, view), ""
    refuse_errors(results)
    text, stopped = str(results[0].output), results[0].stopped
    told = json.dumps({"text": text, "stopped": stopped.to_json()})
    click.echo(told if view.as_json else text)
    if view.says:
        click.echo(f"[{stopped.sentence}{note}]", err=True)
    return Exit.DONE


def _recorded(run: Run, view: View) -> list[LaneResult]:
    from ostinato.loop import LaneResult

    for step in run.history():
        lanes: Any = step.report["lanes"]
        for lane in lanes.values():
            _show(lane["position"], lane["report"], view)
    return [LaneResult.from_json(row) for _, row in run.results()]


def _filled(config: FillRun, run: RunSource | None, view: View) -> list[LaneResult]:
    from ostinato.loop import ItemsWork
    from ostinato.runs import build_config

    def show(step: Step) -> None:
        for lane in step.lanes.values():
            _show(lane.position, lane.report, view)

    work = build_config(config, run=run)
    assert isinstance(work, ItemsWork)
    results = results_of(work, 1, view, show=show)
    if not results:
        exit_interrupted(0, 1, "texts", work.loop.recorded_as)
    return results


def _show(position: int, report: Mapping[str, object], view: View) -> None:
    if view.show and view.says:
        click.echo(f"{position:4}  {report['text']}")
