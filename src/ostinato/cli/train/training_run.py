"""One training as a run: finds or creates it, trains, shows progress, saves, and says why it ended.

Knows no family: a command declares what it trains as a `TrainingJob`.
"""

from __future__ import annotations

import copy
import math
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
PLANNED = ("steps", "batch_tokens", "warmup_steps", "valid_every")
"""The settings that follow from the length of a training where they are not typed."""
BATCHES = 10  # of an epoch, at least, where the data allow it
WARMUP_PART = 10  # the warm-up takes at most this part of the steps
VALIDATIONS = 4  # of a training, at least
EXTEND = (
    "It stays stopped. To extend it, give another --until, --epochs, --steps or --patience; to "
    "start over, --fresh."
)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What a `train` command trains.

    `command` is its name after `train`. `fingerprint` identifies the data and the network: a run
    does not resume with another. `earlier` is the fingerprint of older versions. `examples` counts
    those to train on and to validate on. `save` writes the network to `folder`; `show` receives
    each step that holds a sample.
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
    earlier: str = ""


def train_until(job: TrainingJob, options: RunOptions) -> None:
    """Train until a condition of the options holds, then save the best weights.

    Exits with the command's code where the training was interrupted or diverged.
    """
    from ostinato.loop import CheckpointSchedule, Loop, NotFinite, go_back
    from ostinato.train import Training

    config = planned(job, options)
    process = Training(job.network, job.task, config)
    with options.open_journal() as journal:
        run = run_of(journal, options, job.command, job.fingerprint, config, job.earlier)
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
        _announce(loop, job, process, options)
        _train(loop, job.show)
        _finish(loop, job, process, run)


# The run ----------------------------------------------------------------------------------------


def planned(job: TrainingJob, options: RunOptions) -> TrainingConfig:
    """Return the configuration with what follows from the length of the training.

    A run that resumes keeps its plan, whatever --epochs says now: the rates of the steps that it
    has taken would otherwise not lie on the schedule. For a new one, what was not typed is scaled
    to few data: a batch to a tenth of them, the warm-up to a tenth of the steps.
    """
    _require_room(job, options)
    recorded = None if options.fresh else options.recorded_spec().get("config")
    if isinstance(recorded, dict):
        kept = {name: recorded[name] for name in PLANNED if isinstance(recorded.get(name), int)}
        return _replaced(job.config, kept, options)
    config = job.config
    if options.epochs is not None:
        config = _replaced(config, {"batch_tokens": _batch_for(job)}, options)
    steps = config.steps
    if options.epochs is not None:
        steps = _steps_of_epochs(options.epochs, job.task, config)
    elif options.seconds is not None:
        steps = _steps_of_seconds(options.seconds, job, config)
    config = _replaced(config, {"steps": steps}, options)
    scaled = {
        "warmup_steps": min(config.warmup_steps, max(1, config.steps // WARMUP_PART)),
        "valid_every": min(config.valid_every, max(1, config.steps // VALIDATIONS)),
    }
    return _replaced(config, scaled, options)


def _replaced(
    config: TrainingConfig, values: Mapping[str, int], options: RunOptions
) -> TrainingConfig:
    """Return a configuration with these values where no option was typed for them."""
    free = {name: value for name, value in values.items() if name not in options.settings}
    if "sample_every" not in options.settings and config.sample_every == config.valid_every:
        free["sample_every"] = free.get("valid_every", config.valid_every)
    return replace(config, **free)  # type: ignore[arg-type]


def _require_room(job: TrainingJob, options: RunOptions) -> None:
    """Raise `InputError` for a batch that was typed and has room for no example."""
    shortest, typed = min(job.task.lengths), options.settings.get("batch_tokens")
    if typed is not None and typed < shortest:
        raise InputError(
            f"batch_tokens must be at least {shortest}, the length of the shortest example, got "
            f"{typed}. Give more, or leave it out."
        )


def _batch_for(job: TrainingJob) -> int:
    """Return the size of a batch of which an epoch has about `BATCHES`, at most the usual one."""
    lengths = job.task.lengths
    return min(job.config.batch_tokens, max(*lengths, -(-sum(lengths) // BATCHES)))


def _steps_of_epochs(epochs: float, task: Task, config: TrainingConfig) -> int:
    from ostinato.train import BatchSampler

    batches = BatchSampler(task.lengths, config.batch_tokens, config.seed).batches
    return max(1, round(epochs * batches / config.gradient_accumulation_steps))


def _steps_of_seconds(seconds: float, job: TrainingJob, config: TrainingConfig) -> int:
    """Return the steps that fit into a time, by the speed of a few steps of a copy."""
    from ostinato.train import Training

    process = Training(copy.deepcopy(job.network), job.task, config)
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
    earlier: str = "",
) -> Run:
    """Find the training's run by its name, or create it.

    `earlier` is the fingerprint that older versions recorded for the same training.

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
    if earlier and recorded.get("settings") == earlier:
        recorded["settings"] = fingerprint
        journal.amend(run, {"settings": fingerprint})
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
        "config": ", ".join(map(options.flag, differs)),
    }
    listed = " and ".join(names[key] for key in changed)
    other = "--out" if options.run_name is None else "--run"
    return (
        f"The run {options.name!r} must keep the settings it started with, but {listed} changed. "
        f"Give the same ones to resume, --fresh to start over, or another {other}."
    )


# Progress and the end ---------------------------------------------------------------------------


def _announce(loop: Loop, job: TrainingJob, process: Training, options: RunOptions) -> None:
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
    else:
        _announce_plan(process.config, job.config, options)


def _announce_plan(config: TrainingConfig, usual: TrainingConfig, options: RunOptions) -> None:
    """Say what was scaled to the data, and warn where the learning rate never gets to its peak."""
    changed = [name for name in PLANNED if getattr(config, name) != getattr(usual, name)]
    if changed and (options.epochs is not None or options.seconds is not None):
        values = ", ".join(f"{options.flag(name)} {getattr(config, name)}" for name in changed)
        click.echo(f"Planned for this training: {values}.")
    if config.warmup_steps > config.steps:
        click.echo(
            f"warmup_steps must be at most the {config.steps} steps of the plan for the learning "
            f"rate to get to its peak, got {config.warmup_steps}. Give fewer --warmup-steps, or "
            "train longer.",
            err=True,
        )


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
    # Weights that diverged are not worth a validation; others may be the best so far.
    last = {} if failed else process.validate_last()
    if last:
        click.echo(f"step {loop.position:6}  valid {last['loss/valid']:.4f}  (the last step)")
    broken = failed or not math.isfinite(last.get("loss/valid", 0.0))
    if broken and not process.best:
        # The last weights are not finite; a model on the disk must never be broken.
        reason = "no validation took place" if failed else "the loss of the validation is no number"
        click.echo(f"Nothing is saved: {reason} (run {run.name}). {why}", err=True)
        sys.exit(Exit.NOT_ALL)
    job.network.eval()
    with process.best_weights():
        job.save()
    click.echo(f"Saved in {job.folder} (run {run.name}). {why}")
    click.echo(f"These are {_saved(process, loop.position)}.")
    _tell_of_warmup(loop.position, process.config)
    if failed:
        sys.exit(Exit.NOT_ALL)
    if run.status == "paused":
        click.echo(RESUME, err=True)
        sys.exit(Exit.INTERRUPTED)
    if stopped is not None and stopped.kind is StopKind.PERSON:
        click.echo(EXTEND, err=True)


def _tell_of_warmup(steps: int, config: TrainingConfig) -> None:
    """Say that a training ended in its warm-up, unless its plan said so already."""
    if 0 < steps < config.warmup_steps <= config.steps:
        click.echo(
            f"All {steps} steps were in the warm-up of {config.warmup_steps}: the learning rate "
            "did not get to its peak. Train longer, or give fewer --warmup-steps.",
            err=True,
        )


def _saved(process: Training, last: int) -> str:
    """Say which weights are saved, and why these."""
    kind = "the averaged weights" if process.averages else "the weights"
    if not process.best:
        return f"{kind} of step {last}, the last; there are no examples to validate with"
    step = "the step" if process.best_step is None else f"step {process.best_step}"
    if process.best_step == last:
        step += ", the last,"
    return f"{kind} of {step} with the best validation, {process.best_loss:.4f}"
