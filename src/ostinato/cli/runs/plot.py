"""`ostinato runs plot`: what runs report over their steps, as a picture or a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import click

from ostinato.arguments import counted, did_you_mean
from ostinato.cli.options import journal_option
from ostinato.cli.runs.words import opened
from ostinato.errors import InputError, MissingExtra, RunError
from ostinato.journal import Run
from ostinato.loop import numbers
from ostinato.output_files import told_when_not_written

Points = list[tuple[float, float]]


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    required=True,
    metavar="NAME",
    help="Value in the reports, such as loss/valid; repeatable.",
)
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help="File to write: .png for a picture, .csv for a table; or a folder that ends in /, for "
    "TensorBoard.",
)
@click.option(
    "--over",
    type=click.IntRange(min=1),
    default=1,
    help="Draw the mean over this many values, above the values as dots.",
)
@journal_option("path")
def plot(
    names: tuple[str, ...], metrics: tuple[str, ...], out: str, over: int, path: Path | None
) -> None:
    """Draw values that the runs NAME... report over their steps, or write them as a table."""
    as_events = out.endswith(("/", os.sep))
    place = Path(out)
    if not as_events and place.suffix.lower() not in (".png", ".csv"):
        raise InputError(
            f"--out must end in .png or .csv, or in / for a folder of events, got {place.name}."
        )
    found: dict[tuple[str, str], Points] = {}
    with opened(path) as journal:
        for name in names:
            run = journal.get(name)
            found |= {(run.name, metric): each for metric, each in _points(run, metrics).items()}
    with told_when_not_written("Name another with --out."):
        if as_events:
            _write_events(place, found)
        elif place.suffix.lower() == ".csv":
            _write_table(place, found)
        else:
            _draw(place, found, over)
    count = sum(map(len, found.values()))
    click.echo(f"{counted(count, 'values')} of {counted(len(found), 'curves')}: {out}")


def _points(run: Run, metrics: Sequence[str]) -> dict[str, Points]:
    """Return (tick, value) of each metric; of a report with several values, their mean.

    Raises `RunError` for a metric that no step of the run reports as a number.
    """
    found: dict[str, Points] = {metric: [] for metric in metrics}
    known: dict[str, None] = {}
    for step in run.history():
        known |= dict.fromkeys(step.report)
        for metric, points in found.items():
            values = numbers(step.report.get(metric))
            if values:
                points.append((step.tick, sum(values) / len(values)))
    for metric, points in found.items():
        if not points:
            there = ", ".join(sorted(known)) or "none: it records no steps"
            raise RunError(
                f"The run {run.name!r} must report {metric!r} as a number to be drawn, and does "
                f"not.{did_you_mean(metric, known)} Its reports have: {there}."
            )
    return found


def _write_table(out: Path, found: dict[tuple[str, str], Points]) -> None:
    with out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["run", "metric", "tick", "value"])
        for (run, metric), points in found.items():
            table.writerows([run, metric, int(tick), repr(value)] for tick, value in points)


def _write_events(out: Path, found: dict[tuple[str, str], Points]) -> None:
    """Write events for TensorBoard, a folder for each run. What is there for a run is replaced.

    Raises `MissingExtra` without tensorboardX.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise MissingExtra("Events for TensorBoard", "tensorboard") from None
    for run in dict.fromkeys(run for run, _ in found):
        folder = out / run
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        with SummaryWriter(str(folder)) as writer:
            for (name, metric), points in found.items():
                for tick, value in points if name == run else ():
                    writer.add_scalar(metric, value, int(tick))


def _draw(out: Path, found: dict[tuple[str, str], Points], over: int) -> None:
    from ostinato.media import Series, save_curves

    runs = {run for run, _ in found}
    series = [
        Series(metric if len(runs) == 1 else f"{run}: {metric}", points, over)
        for (run, metric), points in found.items()
    ]
    save_curves(out, series, x_name="tick")
