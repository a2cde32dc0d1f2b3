"""Drives a training from the command line: shows its progress, and why it ended.

Knows no family, no values of a report and no settings of a training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.following import EventProgress, View, followed
from ostinato.cli.options import near
from ostinato.cli.recording import resume_line, way_back
from ostinato.cli.run_loop import Exit
from ostinato.cli.train.line import Line, means
from ostinato.errors import RunError

if TYPE_CHECKING:
    from ostinato.cli.train.options import TrainingOptions
    from ostinato.journal import Run
    from ostinato.loop import Report, Step
    from ostinato.refine import ProgressDisplay
    from ostinato.train import Trainer, TrainerConfig, TrainingWork

LINE_SECONDS = 5  # between two lines of progress

Sample = Callable[["Step", "TrainingWork"], str]
"""Returns what is printed of a step that holds a sample; empty: nothing."""


class TrainingView:
    """A training as the command line shows it; `caller` is the run that calls it."""

    def __init__(
        self,
        work: TrainingWork,
        view: View,
        *,
        line: Line,
        sample: Sample | None,
        caller: Run | None = None,
    ) -> None:
        from ostinato.refine import StepTally, in_terminal

        self._work, self._loop, self._view = work, work.loop, view
        self._line, self._sample, self._caller = line, sample, caller
        self._signaled = False
        self._tally = StepTally(work.loop)
        self._report: Report = {}  # of the last step
        self._live = in_terminal()
        self._began, self._shown = time.monotonic(), 0.0  # the first step is printed at once
        self._attempts = len(work.loop.attempts)  # those of the sessions before

    def drive(self, plan: str) -> Exit:
        """Drive the training to its end or interruption, and save it; say its `plan`."""
        _record(self._work)
        self._announce(plan)
        self._train()
        return self._finish()

    def _say(self, line: str, *, err: bool = False) -> None:
        """Print a line about the work, unless it is empty."""
        self._view.say(line, err=err)

    def _say_always(self, line: str, *, err: bool = False) -> None:
        """Print an error, or a line of the result, also with `--quiet`."""
        result = self._caller is None and not self._view.as_json
        if self._view.quiet and (err or result):
            click.echo(line, err=err)
        else:
            self._say(line, err=err)

    def _announce(self, plan: str) -> None:
        """Say how large the training is, where it begins, and what was planned."""
        work, settings = self._work, self._work.config.training
        for note in work.parts.notes:
            self._say(note)
        count = sum(p.numel() for p in work.process.parameters.values())
        size = work.parts.size(settings)
        self._say(f"{size}{'; ' * bool(size)}{count:,} trainable parameters.")
        if self._loop.stopped is not None:
            self._say(f"The run is finished: {self._loop.stopped.sentence}")
            if self._caller is None:
                self._say(self._how_to_extend())
        elif self._loop.tick:
            self._say(f"Resuming from step {self._loop.tick}.")
        else:
            self._say(plan)
            self._say(settings.warning(), err=True)

    def _train(self) -> None:
        """Run the loop; print a line at each validation, and every few seconds."""
        from ostinato.loop import ends_by_signal

        loop = self._loop
        if loop.stopped is not None:  # a finished run: its weights are only saved again
            loop.close()
            return
        display = self._display()
        with ends_by_signal(loop) as signaled, followed(loop, self._view, display), loop:
            for step in loop:
                self._report = step.report
                display.step(step)
                self._say_now(step)
                self._say_gone_back()
                if self._sample is not None and "sample" in step.report:
                    self._say(self._sample(step, self._work))
        self._signaled = signaled.number != 0

    def _display(self) -> ProgressDisplay:
        """Return what shows the progress: events, or in a terminal a line that is rewritten."""
        from ostinato.refine import QuietProgress, display_of

        if self._view.sends_events:
            measure = self._work.config.measure
            return EventProgress(self._tally, means, lambda report: measure in report)
        if self._view.says and self._live:
            return display_of(self._tally, beside=lambda: self._line(self._report))
        return QuietProgress(self._tally)  # what is printed of the steps says how far it is

    def _say_now(self, step: Step) -> None:
        """Print a line of a step that was validated, and of others now and then."""
        from ostinato.refine import interval

        now = time.monotonic()
        measured = self._work.config.measure in step.report
        pause = max(LINE_SECONDS, interval(now - self._began))
        due = not self._live and now - self._shown > pause
        if self._view.says and (measured or due or not self._shown):
            rest = self._tally.rest(now)
            self._say_step(step.position, step.report, f"  ({rest})" if rest else "")
            self._shown = now

    def _finish(self) -> Exit:
        """Save the best weights, and say why the training ended."""
        from ostinato.journal import StopKind

        work, stopped, run = self._work, self._loop.stopped, self._loop.recorded_as
        why = stopped.sentence if stopped is not None else ""
        name = "" if run is None else f" (run {run.name})"
        try:
            work.finish()
        except RunError as error:
            self._say_last()
            self._say_always(f"{str(error).rstrip('.')}{name}. {why}", err=True)
            self._print_json(None)
            return Exit.NOT_ALL
        self._say_last()
        self._say_always(f"Saved in {near(work.config.out)}{name}. {why}")
        self._say(f"These are {_saved(work.process, self._loop.position)}.")
        self._say(work.config.training.warning(self._loop.position), err=True)
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

    def _say_step(self, position: int, report: Mapping[str, Any], note: str = "") -> None:
        self._say(f"step {position:6}  {self._line(report)}{note}")

    def _say_gone_back(self) -> None:
        """Say why the loop went back after this step, and to where."""
        attempts = self._loop.attempts
        if len(attempts) > self._attempts:
            self._attempts = len(attempts)
            one = attempts[-1]
            edits = ", ".join(f"{name} {value}" for name, value in one.edits.items())
            self._say(
                f"step {one.position:6}  {one.stopped.sentence} Went back to step "
                f"{self._loop.position}{', with ' * bool(edits)}{edits}."
            )

    def _say_last(self) -> None:
        if self._work.last:
            self._say_step(self._loop.position, self._work.last, "  (the last step)")

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
            work.config.measure: work.process.best.value if work.process.best else None,
        }
        click.echo(json.dumps(shown))


def _record(work: TrainingWork) -> None:
    """Record where a training ends now, and the hashes that are known only when it is built."""
    from ostinato.journal import Journal
    from ostinato.runs import amend

    run, hashes = work.loop.recorded_as, dict(work.parts.hashes)
    if run is not None:
        with Journal(run.database.path) as journal:
            amend(journal, run, replace(work.config, **hashes))  # type: ignore[arg-type]


def plan_sentence(config: TrainerConfig, usual: TrainerConfig, options: TrainingOptions) -> str:
    """Return the sentence that says what was scaled to the data; empty for nothing."""
    changed = [name for name in config.planned if getattr(config, name) != getattr(usual, name)]
    if not changed or (options.epochs is None and options.seconds is None):
        return ""
    values = ", ".join(f"{options.spelled(name)} {getattr(config, name)}" for name in changed)
    return f"Planned for this training: {values}."


def _saved(process: Trainer, last: int) -> str:
    """Say which weights are saved, and why these."""
    kind, best = "the averaged weights" if process.averages else "the weights", process.best
    if not best:
        return f"{kind} of step {last}, the last: no validation gave a number"
    step = "the step" if best.step is None else f"step {best.step}"
    if best.step == last:
        step += ", the last,"
    return f"{kind} of {step} with the best validation, {best.value:.4f}"
