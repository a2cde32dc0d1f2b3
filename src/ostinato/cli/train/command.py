"""The declaration of a training on the command line, of which its command and its runs are made.

Knows no family.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ostinato.cli.following import View
from ostinato.cli.train.line import Line, every_number
from ostinato.cli.train.options import TrainingOptions, training_command
from ostinato.cli.train.progress import Sample, TrainingView, plan_sentence
from ostinato.cli.train.settings import Overrides
from ostinato.runs import build_config, kind_of

if TYPE_CHECKING:
    import click

    from ostinato.cli.run_loop import Exit
    from ostinato.journal import Run, RunConfig, RunSource

SAME = (
    "Give the same values to resume it, --fresh to start over, or another --out or --run; "
    "ostinato runs branch trains on with some other settings."
)

Typed = Callable[[dict[str, Any], TrainingOptions], dict[str, Any]]
"""Returns the values of a configuration's fields, of those that were typed."""


def _as_typed(values: dict[str, Any], options: TrainingOptions) -> dict[str, Any]:
    return values


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """A training as the command line offers it: this is all that a new one needs.

    kind: Its kind of run, such as `train image`: the command is called as its last word. Options
        and arguments are those that the fields of its configuration say.
    help: The help of its command; without one it is no command, and another training calls it.
    line: What a line of progress shows of a report.
    sample: What is printed of a step whose report holds a `sample`.
    overrides: Options that are others than the fields say.
    typed: What is made of the typed values, before they are a configuration.
    calls: The training that this one calls first. The builder gets what drives it as `drive`.
    """

    kind: str
    help: str = ""
    line: Line = every_number
    sample: Sample | None = None
    overrides: Overrides = field(default_factory=dict)
    typed: Typed = _as_typed
    calls: TrainCommand | None = None

    def command(self) -> click.Command:
        """Return the command."""
        config: Any = kind_of(self.kind).config_class()
        name = self.kind.rpartition(" ")[2]
        return training_command(name, self.help, config, self.overrides, self.train)

    def train(self, options: TrainingOptions, view: View) -> None:
        """Train as the command does: plan it, find or make its run, drive it, and save it.

        Exits with the command's code where the training was interrupted or diverged.
        """
        from ostinato.train import prepare

        config = options.built(self.typed(dict(options.settings), options))
        prepared = prepare(config)
        complete = options.complete(config.placed(), prepared)
        with options.named.opened(complete, options.spelled, SAME) as run:
            plan = plan_sentence(complete.training, config.training, options)
            code = self.present(complete, run, view, plan=plan, prepared=prepared)
        if code:
            sys.exit(code)

    def present(
        self,
        config: RunConfig,
        run: RunSource | None,
        view: View,
        *,
        plan: str = "",
        caller: Run | None = None,
        **more: Any,
    ) -> Exit:
        """Build a training and drive it to its end or interruption; say what is saved, and why.

        `caller` is the run that calls it, which resumes it. With `view.as_json` the lines go to
        standard error, and one JSON object follows. `more` goes to the builder of its kind.
        """
        if self.calls is not None:
            more["drive"] = self._driver(self.calls, view)
        work: Any = build_config(config, run=run, **more)
        shown = TrainingView(work, view, line=self.line, sample=self.sample, caller=caller)
        return shown.drive(plan)

    def _driver(self, called: TrainCommand, view: View) -> Callable[..., None]:
        """Return what drives the training that is called, and exits where it is interrupted."""

        def drive(config: RunConfig, run: RunSource | None, caller: Run | None) -> None:
            code = called.present(config, run, view, caller=caller)
            if code:
                sys.exit(code)

        return drive
