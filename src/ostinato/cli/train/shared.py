"""What all trainings of the command line share: options, conditions, the run, the loop shown."""

from __future__ import annotations

import dataclasses
import sys
import time
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.exit_codes import Exit
from ostinato.cli.runs.recorded_command import begun_by
from ostinato.errors import InputError
from ostinato.train import TrainingConfig

if TYPE_CHECKING:
    from ostinato.journal import JSON, Journal, Run
    from ostinato.loop import Condition, Loop, Step
    from ostinato.train import Training

Command = Callable[..., None]
Options = Mapping[str, tuple[Any, str]]

TO_GO_ON = (
    "It stays stopped. To go on, give another --until, --epochs, --steps or --patience; to begin "
    "anew, --fresh."
)


def options_of(settings: type, *, defaults: bool = False) -> dict[str, tuple[Any, str]]:
    """Return an option's type and help for each field of a settings class that has a help text.

    `defaults` are told in the help.
    """
    hints = typing.get_type_hints(settings)
    return {
        spec.name: (
            _kind(hints[spec.name]),
            spec.metadata["help"]
            + (f" [default: {spec.default}]" if defaults and spec.default is not False else ""),
        )
        for spec in dataclasses.fields(settings)
        if "help" in spec.metadata
    }


def _kind(hint: Any) -> Any:
    choices = typing.get_args(hint)
    return click.Choice(list(choices)) if choices else hint


OPTIONS = options_of(TrainingConfig)


def config_options(options: Options) -> Callable[[Command], Command]:
    """Add an option for each setting; one that is not given keeps its default."""

    def add(command: Command) -> Command:
        for name, (kind, text) in reversed(list(options.items())):
            spelled = f"--{name.replace('_', '-')}"
            flag = {"is_flag": True, "default": None} if kind is bool else {"type": kind}
            command = click.option(spelled, help=text, **flag)(command)
        return command

    return add


def run_options(command: Command) -> Command:
    """Add the options of when a training ends, and of its run."""
    path = click.Path(path_type=Path)
    for option in (
        click.option("--journal", type=path, help="The journal's file."),
        click.option(
            "--run", "run_name", help="The run's name, as of a branch. [default: train-OUT]"
        ),
        click.option("--fresh", is_flag=True, help="Start anew, whatever an earlier run has done."),
        click.option(
            "--checkpoint-every", type=int, default=100, show_default=True, help="In steps."
        ),
        click.option(
            "--patience", type=int, help="End when so many validations bring nothing better."
        ),
        click.option("--epochs", type=float, help="End after so many times through the data."),
        click.option("--until", help="End by this condition, such as: Epochs(3) | Seconds(600)"),
    ):
        command = option(command)
    return command


def require_folder(out: Path, start: str | None = None) -> None:
    """Raise `InputError` where --out is a file, or the model that the training begins from."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out must be a folder, got the file {out}. Name another.")
    if start is not None and out.exists() and Path(start).resolve() == out.resolve():
        raise InputError(f"--out must be another folder than --from, got {out}. Name another.")


def name_of(run_name: str | None, out: Path) -> str:
    """Return the name of a training's run: the given one, else by the folder it writes."""
    return run_name or f"train-{out.resolve().name}"


def begun_folder(journal: Journal, run_name: str | None, out: Path) -> Path:
    """Return the folder that a run was begun with: of a branch, its parent's."""
    run = journal.find(run_name) if run_name is not None else None
    return Path(str(run.spec["out"])) if run is not None and "out" in run.spec else out


def begun_steps(journal: Path | None, name: str, fresh: bool) -> int | None:
    """Return the steps that the rate was planned for when the run was begun."""
    from ostinato.journal import DEFAULT, Journal

    path = journal or DEFAULT
    if fresh or not path.exists():
        return None
    with Journal(path) as opened:
        run = opened.find(name)
        config = run.spec.get("config") if run is not None else None
    steps = config.get("steps") if isinstance(config, dict) else None
    return steps if isinstance(steps, int) else None


def condition_of(
    steps: int,
    until: str | None,
    epochs: float | None,
    patience: int | None,
    seconds: float | None = None,
) -> Condition:
    """Return when a training ends: after its steps, where nothing else ends it."""
    from ostinato.loop import Epochs, Plateau, Seconds, Steps, parse

    parts: list[Condition] = []
    if until is not None:
        parts.append(parse(until))
    if epochs is not None:
        parts.append(Epochs(epochs))
    if seconds is not None:
        parts.append(Seconds(seconds))
    if patience is not None:
        parts.append(Plateau("loss/valid", patience))
    if until is None and epochs is None and seconds is None:
        parts.append(Steps(steps))
    condition = parts[0]
    for part in parts[1:]:
        condition = condition | part
    return condition


def steps_of(epochs: float, lengths: Any, config: TrainingConfig) -> int:
    """Return how many steps so many epochs have: the rate is planned for them."""
    from ostinato.train import BatchSampler

    order = BatchSampler(lengths, config.batch_tokens, config.seed)
    return max(1, round(epochs * order.batches / config.gradient_accumulation_steps))


def journal_at(path: Path | None) -> Journal:
    """Return the journal of --journal, or the folder's."""
    from ostinato.journal import Journal

    return Journal() if path is None else Journal(path)


def _defaults() -> dict[str, Any]:
    """Return the options of a training: those that a run of an older version does not name."""
    return {spec.name: getattr(TrainingConfig(), spec.name) for spec in fields(TrainingConfig)}


def run_of(
    journal: Journal,
    task: str,
    settings: str,
    config: dict[str, Any],
    out: Path,
    fresh: bool,
    run_name: str | None = None,
) -> Run:
    """Find the run of this name, else of this output folder, or make one; a changed job is refused.

    `task` is the command's name after `train`. When it ends, the steps that the rate is planned
    for, and when samples are made may change; so may the folder of a run that is named.
    """
    name = name_of(run_name, out)
    spec: dict[str, JSON] = {
        "task": task,
        "out": str(out.resolve()),
        "settings": settings,
        "config": config,
    }
    run = journal.find(name)
    if run is not None and fresh:
        journal.delete(name)
        run = None
    if run is None:
        return journal.create(name, kind="train", spec={**spec, **begun_by()})
    before = dict(run.spec)
    earlier = before.get("config")
    if isinstance(earlier, dict):
        new = {name: default for name, default in _defaults().items() if name not in earlier}
        free = {name: config[name] for name in ("steps", "sample_every")}
        before["config"] = {**new, **earlier, **free}
    if run_name is not None:
        before["out"] = spec["out"]
    changed = [key for key in spec if before.get(key) != spec[key]]
    if changed:
        what = {
            "task": "what is trained",
            "settings": "the files or the network",
            "config": "the training's options",
        }
        told = " and ".join(what.get(key, "the output folder") for key in changed)
        other = "--out" if run_name is None else "--run"
        raise InputError(
            f"The run {name!r} was begun with other settings: {told} changed. Give the same ones "
            f"to go on, --fresh to begin anew, or another {other}."
        )
    return run


def drive(
    process: Training,
    run: Run,
    until: Condition,
    checkpoint_every: int,
    *,
    counts: tuple[int, int],
    show: Callable[[Step], None],
    save: Callable[[], None],
    out: Path,
) -> None:
    """Train, show it, save what came of it, and tell why it ended.

    `counts` are the examples to train on and to validate with; `show` is called with each step
    that holds a sample.
    """
    from ostinato.journal import Journal, StopKind
    from ostinato.loop import CheckpointSchedule, Loop, NotFinite, go_back

    loop = Loop(
        process,
        until=until | NotFinite(),
        on_stop=go_back(lr_scale=0.5),
        run=run,
        checkpoint=CheckpointSchedule(steps=checkpoint_every),
    )
    with Journal(run.database.path) as journal:
        journal.amend(run, begun_by())  # when it ends may have changed
    _say_where(loop, counts, process)
    _train(loop, show)
    why = loop.stopped.sentence if loop.stopped is not None else ""
    failed = loop.stopped is not None and loop.stopped.kind in (StopKind.DIVERGED, StopKind.ERROR)
    if failed and not process.best:
        click.echo(f"Nothing is saved, as nothing was validated (run {run.name}). {why}", err=True)
        sys.exit(Exit.NOT_ALL)
    save()
    click.echo(f"Saved in {out} (run {run.name}). {why}")
    if failed:
        click.echo("These are the weights that validated best.", err=True)
        sys.exit(Exit.NOT_ALL)
    if run.status == "paused":
        click.echo("Run the same command again: it goes on.", err=True)
        sys.exit(Exit.INTERRUPTED)
    if loop.stopped is not None and loop.stopped.kind is StopKind.PERSON:
        click.echo(TO_GO_ON, err=True)


def _say_where(loop: Loop, counts: tuple[int, int], process: Training) -> None:
    count = sum(p.numel() for p in process.parameters.values())
    click.echo(
        f"{counts[0]} examples to train on, {counts[1]} to validate with, "
        f"{process.batches} batches an epoch; {count:,} parameters learn."
    )
    if loop.stopped is not None:
        click.echo(f"The run is finished: {loop.stopped.sentence}")
        click.echo(TO_GO_ON)
    elif loop.tick:
        click.echo(f"It goes on from step {loop.tick}.")


def _train(loop: Loop, show: Callable[[Step], None]) -> None:
    """Run the loop, and print a line now and then."""
    from ostinato.cli.signals import ends_by_signal

    if loop.stopped is not None:
        loop.close()
        return
    shown = time.monotonic() - 10
    with ends_by_signal(loop), loop:
        for step in loop:
            now = time.monotonic()
            if "loss/valid" in step.report or now - shown > 5:
                click.echo(_line(step))
                shown = now
            if "sample" in step.report:
                show(step)


def _line(step: Step) -> str:
    report: Any = step.report
    line = (
        f"step {step.position:6}  epoch {report['epoch']:6.2f}  loss {report['loss/train']:.4f}"
        f"  lr {report['lr']:.2e}"
    )
    line += f"  valid {report['loss/valid']:.4f}" if "loss/valid" in report else ""
    prefix = "loss/valid_" if "loss/valid" in report else "loss/"
    parts = {
        name.removeprefix(prefix).replace("_", " "): value
        for name, value in report.items()
        if name.startswith(f"{prefix}sigma_")
    }
    return line + "".join(f"  {name} {value:.3f}" for name, value in parts.items())
