"""Drives a training from the command line: shows its progress, and why it ended.

Knows no family.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.presenters import View
from ostinato.cli.recording import resume_line, way_back
from ostinato.cli.run_loop import Exit
from ostinato.errors import RunError

if TYPE_CHECKING:
    from ostinato.cli.train.options import TrainingOptions
    from ostinato.journal import Run, RunConfig, RunSource
    from ostinato.loop import Step
    from ostinato.train import Plannable, Training, TrainingConfig, TrainingRun, TrainingWork

LINE_SECONDS = 5  # between two lines of progress

SAME = (
    "Give the same values to resume it, --fresh to start over, or another --out or --run; "
    "ostinato runs branch trains on with some other settings."
)

Show = Callable[["Step", "TrainingWork"], str]
"""Returns what is printed of a step that holds a sample."""


def show_nothing(step: Step, work: TrainingWork) -> str:
    """Print no sample."""
    return ""


def train_until(
    config: TrainingRun,
    options: TrainingOptions,
    data: Plannable,
    *,
    show: Show = show_nothing,
    **prepared: Any,
) -> None:
    """Train as a command does: plan it, find or make its run, drive it, and save the best weights.

    `prepared` goes to the builder of the kind. Exits with the command's code where the training was
    interrupted or diverged.
    """
    complete = options.complete(config, data)
    with options.named.opened(complete, options.spelled, SAME) as run:
        plan = _plan_of(complete.training, config.training, options)
        code = present(complete, run, View(), show=show, plan=plan, **prepared)
    if code:
        sys.exit(code)


def present(
    config: RunConfig,
    run: RunSource | None,
    view: View,
    *,
    show: Show = show_nothing,
    plan: str = "",
    caller: Run | None = None,
    **prepared: Any,
) -> Exit:
    """Build a training and drive it to its end or interruption; say what is saved, and why.

    `caller` is the run that calls it, which resumes it. With `view.as_json` the lines go to
    standard error, and one JSON object follows.
    """
    from ostinato.runs import build_config
    from ostinato.train import TrainingWork

    work = build_config(config, run=run, **prepared)
    assert isinstance(work, TrainingWork)
    _record(work)
    shown = Shown(work, view, caller)
    shown.announce(plan)
    shown.train(show)
    return shown.finish()


def _record(work: TrainingWork) -> None:
    """Record where a training ends now, and the hashes that are known only when it is built."""
    from ostinato.journal import Journal
    from ostinato.runs import amend

    run, hashes = work.loop.recorded_as, dict(work.parts.hashes)
    if run is not None:
        with Journal(run.database.path) as journal:
            amend(journal, run, replace(work.config, **hashes))  # type: ignore[arg-type]


class Shown:
    """A training as the command line shows it."""

    def __init__(self, work: TrainingWork, view: View, caller: Run | None) -> None:
        self._work, self._loop, self._view, self._caller = work, work.loop, view, caller
        self._signaled = False

    def _say(self, line: str, *, err: bool = False) -> None:
        click.echo(line, err=err or self._view.as_json)

    def announce(self, plan: str) -> None:
        """Say how large the training is, where it begins, and what was planned."""
        work, process = self._work, self._work.process
        for note in work.parts.notes:
            self._say(note)
        count = sum(p.numel() for p in process.parameters.values())
        train, valid = work.parts.examples
        self._say(
            f"{train} examples to train on, {valid} to validate with, {process.batches} batches "
            f"per epoch; {count:,} trainable parameters."
        )
        if self._loop.stopped is not None:
            self._say(f"The run is finished: {self._loop.stopped.sentence}")
            if self._caller is None:
                self._say(self._how_to_extend())
        elif self._loop.tick:
            self._say(f"Resuming from step {self._loop.tick}.")
        else:
            self._announce_plan(plan, process.config)

    def _announce_plan(self, plan: str, config: TrainingConfig) -> None:
        """Say what was scaled to the data, and warn where the rate never gets to its peak."""
        if plan:
            self._say(plan)
        if config.warmup_steps > config.steps:
            self._say(
                f"warmup_steps must be at most the {config.steps} steps of the plan for the "
                f"learning rate to get to its peak, got {config.warmup_steps}. Give fewer "
                "--warmup-steps, or train longer.",
                err=True,
            )

    def train(self, show: Show) -> None:
        """Run the loop; print a line at each validation, and every few seconds."""
        from ostinato.loop import ends_by_signal

        loop = self._loop
        if loop.stopped is not None:  # a finished run: its weights are only saved again
            loop.close()
            return
        shown = -float("inf")  # the first step is printed at once: it shows that it works
        with ends_by_signal(loop) as signaled, loop:
            for step in loop:
                now = time.monotonic()
                if "loss/valid" in step.report or now - shown > LINE_SECONDS:
                    self._say(_line(step.position, step.report))
                    shown = now
                if "sample" in step.report and (sample := show(step, self._work)):
                    self._say(sample)
        self._signaled = signaled.number != 0

    def finish(self) -> Exit:
        """Save the best weights, and say why the training ended."""
        from ostinato.journal import StopKind

        work, stopped, run = self._work, self._loop.stopped, self._loop.recorded_as
        why = stopped.sentence if stopped is not None else ""
        name = "" if run is None else f" (run {run.name})"
        try:
            work.finish()
        except RunError as error:
            self._tell_last()
            self._say(f"{str(error).rstrip('.')}{name}. {why}", err=True)
            self._print_json(None)
            return Exit.NOT_ALL
        self._tell_last()
        self._say(f"Saved in {near(work.config.out)}{name}. {why}")
        self._say(f"These are {_saved(work.process, self._loop.position)}.")
        self._tell_of_warmup(work.process.config)
        self._print_json(work.config.out)
        if work.diverged:
            return Exit.NOT_ALL
        if self._signaled if run is None else run.status == "paused":
            click.echo(way_back(self._caller or run), err=True)
            return Exit.INTERRUPTED
        if stopped is not None and stopped.kind is StopKind.PERSON:
            click.echo(self._how_to_extend(), err=True)
        return Exit.DONE

    def _how_to_extend(self) -> str:
        run, later = self._loop.recorded_as, max(2 * self._loop.tick, 1)
        by_name = "" if run is None else f', such as {resume_line(run)} --until "Steps({later})"'
        return (
            "It stays stopped. To extend it, give another --until, --epochs, --steps or "
            f"--patience{by_name}; to start over, --fresh."
        )

    def _tell_last(self) -> None:
        if self._work.last:
            loss = self._work.last["loss/valid"]
            self._say(f"step {self._loop.position:6}  valid {loss:.4f}  (the last step)")

    def _tell_of_warmup(self, config: TrainingConfig) -> None:
        """Say that a training ended in its warm-up, unless its plan said so already."""
        steps = self._loop.position
        if 0 < steps < config.warmup_steps <= config.steps:
            self._say(
                f"All {steps} steps were in the warm-up of {config.warmup_steps}: the learning "
                "rate did not get to its peak. Train longer, or give fewer --warmup-steps.",
                err=True,
            )

    def _print_json(self, out: Path | None) -> None:
        """Print one object, where that is asked for; `out` is the folder that was written."""
        work, stopped = self._work, self._loop.stopped
        if not self._view.as_json or self._caller is not None:
            return
        shown = {
            "tick": self._loop.tick,
            "why": None if stopped is None else stopped.to_json(),
            "out": None if out is None else str(out),
            "best_step": work.process.best.step,
            "loss/valid": work.process.best.value if work.process.best else None,
        }
        click.echo(json.dumps(shown))


def near(path: Path) -> Path:
    """Return a path as seen from the working folder, where it lies in it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _plan_of(config: TrainingConfig, usual: TrainingConfig, options: TrainingOptions) -> str:
    """Return the sentence that says what was scaled to the data; empty for nothing."""
    from ostinato.train import PLANNED

    changed = [name for name in PLANNED if getattr(config, name) != getattr(usual, name)]
    if not changed or (options.epochs is None and options.seconds is None):
        return ""
    values = ", ".join(f"{options.spelled(name)} {getattr(config, name)}" for name in changed)
    return f"Planned for this training: {values}."


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


def _saved(process: Training, last: int) -> str:
    """Say which weights are saved, and why these."""
    kind = "the averaged weights" if process.averages else "the weights"
    if not process.best:
        return f"{kind} of step {last}, the last; there are no examples to validate with"
    step = "the step" if process.best.step is None else f"step {process.best.step}"
    if process.best.step == last:
        step += ", the last,"
    return f"{kind} of {step} with the best validation, {process.best.value:.4f}"
