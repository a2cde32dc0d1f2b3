"""One training as a run: finds or creates it, trains, shows progress, saves, and says why it ended.

Knows no family: a command declares what it trains as a `TrainingJob`.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.run_loop import RESUME, Exit
from ostinato.cli.runs.recorded_command import command_spec
from ostinato.errors import InputError
from ostinato.train import TrainingConfig

if TYPE_CHECKING:
    from torch import nn

    from ostinato.cli.train.options import RunOptions
    from ostinato.journal import JSON, Journal, Run
    from ostinato.loop import Loop, Step
    from ostinato.train import Task, Training

MEASURED = 5  # steps that the speed is measured on for --seconds
LINE_SECONDS = 5  # between two lines of progress
EXTEND = (
    "It stays stopped. To extend it, give another --until, --epochs, --steps or --patience; to "
    "start over, --fresh."
)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What a `train` command trains.

    `command` is its name after `train`. `fingerprint` identifies the data and the network: a run
    does not resume with another. `examples` counts those to train on and to validate on. `save`
    writes the network to `folder`; `show` receives each step that holds a sample.
    """

    command: str
    network: nn.Module
    task: Task
    config: TrainingConfig
    fingerprint: str
    examples: tuple[int, int]
    folder: Path
    save: Callable[[], object]
    show: Callable[[Step], object] = lambda step: None


def train_until(job: TrainingJob, options: RunOptions) -> None:
    """Train until a condition of the options holds, then save the best weights.

    Exits with the command's code where the training was interrupted or diverged.
    """
    from ostinato.loop import CheckpointSchedule, Loop, NotFinite, go_back
    from ostinato.train import Training

    config = replace(job.config, steps=_planned_steps(job, options))
    process = Training(job.network, job.task, config)
    with options.open_journal() as journal:
        run = run_of(journal, options, job.command, job.fingerprint, config)
        loop = Loop(
            process,
            until=options.condition(config.steps) | NotFinite(),
            # A loss that is not finite: back to the last checkpoint at half the rate, three times.
            on_stop=go_back(lr_scale=0.5),
            run=run,
            checkpoint=CheckpointSchedule(steps=options.checkpoint_every),
        )
        # The options that end a training may differ from those recorded, so record them again.
        journal.amend(run, command_spec())
        _announce(loop, job, process)
        _train(loop, job.show)
        _finish(loop, job, process, run)


# The run ----------------------------------------------------------------------------------------


def _planned_steps(job: TrainingJob, options: RunOptions) -> int:
    """Return the steps that the learning rate is planned for.

    A run that resumes keeps its plan, whatever --epochs says now: the rates of the steps that it
    has taken would otherwise not lie on the schedule.
    """
    if "steps" in options.settings:
        return job.config.steps
    recorded = {} if options.fresh else options.recorded_spec().get("config")
    steps = recorded.get("steps") if isinstance(recorded, dict) else None
    if isinstance(steps, int):
        return steps
    if options.epochs is not None:
        return _steps_of_epochs(options.epochs, job)
    if options.seconds is not None:
        return _steps_of_seconds(options.seconds, job)
    return job.config.steps


def _steps_of_epochs(epochs: float, job: TrainingJob) -> int:
    from ostinato.train import BatchSampler

    batches = BatchSampler(job.task.lengths, job.config.batch_tokens, job.config.seed).batches
    return max(1, round(epochs * batches / job.config.gradient_accumulation_steps))


def _steps_of_seconds(seconds: float, job: TrainingJob) -> int:
    """Return the steps that fit into a time, by the speed of a few steps of a copy."""
    from ostinato.train import Training

    process = Training(copy.deepcopy(job.network), job.task, job.config)
    process.step()  # the first one allocates and warms up
    began = time.perf_counter()
    for _ in range(MEASURED):
        process.step()
    return max(1, int(seconds * MEASURED / (time.perf_counter() - began)))


def run_of(
    journal: Journal,
    options: RunOptions,
    command: str,
    fingerprint: str,
    config: TrainingConfig,
) -> Run:
    """Find the training's run by its name, or create it.

    Raises `InputError` where the run trains something else. What may change are the conditions that
    end it, the planned steps, when samples are made, and the folder of a run with `--run`.
    """
    spec: dict[str, JSON] = {
        "task": command,
        "out": str(options.out.resolve()),
        "settings": fingerprint,
        "config": asdict(config),
    }
    run = journal.find(options.name)
    if run is not None and options.fresh:
        journal.delete(options.name)
        run = None
    if run is None:
        return journal.create(options.name, kind="train", spec={**spec, **command_spec()})
    recorded = {**run.spec, "config": _comparable(run.spec.get("config"), config)}
    if options.run_name is not None:
        recorded["out"] = spec["out"]
    changed = [key for key in spec if recorded.get(key) != spec[key]]
    if changed:
        raise InputError(_other_settings(options, changed, recorded["config"], config))
    return run


def _comparable(recorded: JSON, config: TrainingConfig) -> JSON:
    """Return a recorded configuration as it compares with that of today.

    A field that is younger than the record has its default, so that a new option orphans no run.
    """
    if not isinstance(recorded, dict):
        return recorded
    free: dict[str, JSON] = {"steps": config.steps, "sample_every": config.sample_every}
    return {**asdict(TrainingConfig()), **recorded, **free}


def _other_settings(
    options: RunOptions, changed: list[str], recorded: JSON, config: TrainingConfig
) -> str:
    known = recorded if isinstance(recorded, dict) else {}
    differs = [name for name, value in asdict(config).items() if known.get(name) != value]
    names = {
        "task": "what is trained",
        "out": "the output folder",
        "settings": "the files or the network",
        "config": ", ".join(f"--{name.replace('_', '-')}" for name in differs),
    }
    listed = " and ".join(names[key] for key in changed)
    other = "--out" if options.run_name is None else "--run"
    return (
        f"The run {options.name!r} must keep the settings it started with, but {listed} changed. "
        f"Give the same ones to resume, --fresh to start over, or another {other}."
    )


# Progress and the end ---------------------------------------------------------------------------


def _announce(loop: Loop, job: TrainingJob, process: Training) -> None:
    count = sum(p.numel() for p in process.parameters.values())
    train, valid = job.examples
    click.echo(
        f"{train} examples to train on, {valid} to validate with, {process.batches} batches per "
        f"epoch; {count:,} trainable parameters."
    )
    if loop.stopped is not None:
        click.echo(f"The run is finished: {loop.stopped.sentence}")
        click.echo(EXTEND)
    elif loop.tick:
        click.echo(f"Resuming from step {loop.tick}.")


def _train(loop: Loop, show: Callable[[Step], object]) -> None:
    """Run the loop; print a line at each validation, and every few seconds."""
    if loop.stopped is not None:  # a finished run: its weights are only saved again
        loop.close()
        return
    shown = -float("inf")  # the first step is printed at once: it shows that the training works
    from ostinato.loop import ends_by_signal

    with ends_by_signal(loop), loop:
        for step in loop:
            now = time.monotonic()
            if "loss/valid" in step.report or now - shown > LINE_SECONDS:
                click.echo(_line(step.position, step.report))
                shown = now
            if "sample" in step.report:
                show(step)


def _line(position: int, report: Mapping[str, Any]) -> str:
    line = (
        f"step {position:6}  epoch {report['epoch']:6.2f}  loss {report['loss/train']:.4f}"
        f"  lr {report['lr']:.2e}"
    )
    line += f"  valid {report['loss/valid']:.4f}" if "loss/valid" in report else ""
    # A denoiser also reports its loss by noise level.
    prefix = "loss/valid_" if "loss/valid" in report else "loss/"
    levels = {
        name.removeprefix(prefix).replace("_", " "): value
        for name, value in report.items()
        if name.startswith(f"{prefix}sigma_")
    }
    return line + "".join(f"  {name} {value:.3f}" for name, value in levels.items())


def _finish(loop: Loop, job: TrainingJob, process: Training, run: Run) -> None:
    """Save the best weights and say why the training ended; exit where it did not end well."""
    from ostinato.journal import StopKind

    stopped = loop.stopped
    why = stopped.sentence if stopped is not None else ""
    failed = stopped is not None and stopped.kind in (StopKind.DIVERGED, StopKind.ERROR)
    if failed and not process.best:
        # The last weights are not finite; a model on the disk must never be broken.
        click.echo(f"Nothing is saved: no validation took place (run {run.name}). {why}", err=True)
        sys.exit(Exit.NOT_ALL)
    job.network.eval()
    with process.best_weights():
        job.save()
    click.echo(f"Saved in {job.folder} (run {run.name}). {why}")
    if failed:
        click.echo("These are the weights with the best validation.", err=True)
        sys.exit(Exit.NOT_ALL)
    if run.status == "paused":
        click.echo(RESUME, err=True)
        sys.exit(Exit.INTERRUPTED)
    if stopped is not None and stopped.kind is StopKind.PERSON:
        click.echo(EXTEND, err=True)
