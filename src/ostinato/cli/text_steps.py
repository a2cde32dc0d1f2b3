"""`ostinato generate` in a classroom: a token for each key, at a pace, at several temperatures."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ostinato.arguments import SAMPLING_RANGES
from ostinato.cli.chat.redraw import visible
from ostinato.cli.options import add_options, flag_of
from ostinato.cli.run_loop import Exit
from ostinato.errors import InputError

if TYPE_CHECKING:
    from ostinato.cli.following import View
    from ostinato.cli.text_output import TextOutput
    from ostinato.cli.token_columns import TokenColumn
    from ostinato.loop import LaneResult, Step
    from ostinato.text import GenerateRun

TEMPERATURES = "--temperatures"
ONE_TEXT = {
    "run_name": "--run",
    "journal": "--journal",
    **{name: flag_of(name) for name in ("show", "num_beams", "temperature")},
    **{name: flag_of(name) for name in ("prompt_lookup", "draft_model")},
}
"""Options that several texts side by side do not have, by their names."""
LOOK = 0.05
"""Seconds between two looks at whether a signal came."""

GoesOn = Callable[[Mapping[str, Any]], bool]
"""Takes the report of a token that is not shown yet; says whether the text goes on after it."""


class TakesTemperatures(click.Command):
    """A command whose `--temperatures` takes all numbers that follow it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments, with these numbers as one."""
        if TEMPERATURES in args:
            start = args.index(TEMPERATURES) + 1
            end = start
            while end < len(args) and _is_number(args[end]):
                end += 1
            if end > start:
                args = [*args[:start], ",".join(args[start:end]), *args[end:]]
        return super().parse_args(ctx, args)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    if value is None:
        return ()
    parts = value.replace(",", " ").split()
    if len(parts) < 2 or not all(map(_is_number, parts)):
        raise InputError(
            f"{TEMPERATURES} must be two or more numbers, got {value!r}. Write for example "
            f"{TEMPERATURES} 0.2 1 2."
        )
    numbers = tuple(map(float, parts))
    for number in numbers:
        SAMPLING_RANGES["temperature"].require(TEMPERATURES, number)
    return numbers


step_options = add_options(
    click.option("--step", is_flag=True, help="Wait for a key before each token is drawn; q ends."),
    click.option(
        "--pace",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        help="Seconds between two tokens.",
    ),
    click.option(
        TEMPERATURES,
        metavar="T T…",
        callback=_numbers,
        help="The same text at several temperatures, side by side.",
    ),
)
"""The options that show a text slowly, or several."""


def refuse_steps(context: click.Context) -> None:
    """Raise `InputError` for options that `--step`, `--pace` or `--temperatures` cannot have."""
    given = context.params
    for flag in ("step", "pace"):
        for name, option in (("as_json", "--json"), ("quiet", "--quiet")):
            if given[flag] and given[name]:
                raise _conflict(flag_of(flag), option)
    if given["temperatures"]:
        for name, option in ONE_TEXT.items():
            if _typed(context, name):
                raise _conflict(TEMPERATURES, option)
        if given["pace"] and not given["step"]:
            raise InputError(
                f"--pace must be given with --step where there are {TEMPERATURES}, got it alone. "
                "Add --step."
            )
    if given["step"]:
        for name in ("show", "num_beams", "draft_model", "prompt_lookup"):
            if _typed(context, name):
                raise _conflict("--step", flag_of(name))
        from ostinato.cli.token_columns import require_stage

        require_stage(max(1, len(given["temperatures"])))


def _typed(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _conflict(one: str, other: str) -> InputError:
    return InputError(f"{one} must be given without {other}, got both. Leave one out.")


# One text -----------------------------------------------------------------------------------------


@contextmanager
def waiting(
    config: GenerateRun, output: TextOutput, view: View, *, ended: Callable[[], object]
) -> Iterator[GoesOn]:
    """Yield what is called before each token is shown: it waits for a key, or for its time."""
    if not view.step:
        yield partial(_at_pace, _Clock(view.pace), ended)
        return
    from ostinato.cli.token_columns import TokenColumn, staged

    text = "".join(str(token["text"]) for token in output.tokens)
    column = TokenColumn(_settings(config), text, len(output.tokens))
    with staged([column], head=_asked(config), pace=view.pace, ended=ended) as stage:

        def next_token(report: Mapping[str, Any]) -> bool:
            column.pending = report
            return stage.next()

        yield next_token


class _Clock:
    """When the next token may be shown."""

    def __init__(self, pace: float | None) -> None:
        self.pace, self.due = pace, 0.0


def _at_pace(clock: _Clock, ended: Callable[[], object], report: Mapping[str, Any]) -> bool:
    if clock.pace is None:
        return True
    sys.stdout.flush()
    while not ended() and (left := clock.due - time.monotonic()) > 0:
        time.sleep(min(left, LOOK))
    clock.due = time.monotonic() + clock.pace
    return True


def _asked(config: GenerateRun) -> str:
    """Return the model and what it was asked, in one line."""
    prompt = config.prompt if isinstance(config.prompt, str) else config.prompt[-1]["content"]
    return f"{Path(config.model).name}: {' '.join(visible(prompt).split())}"


def _settings(config: GenerateRun) -> str:
    """Return the sampling settings that change probabilities, in words."""
    parts = [f"temperature {config.temperature:g}"]
    parts += [f"top-k {config.top_k}"] if config.top_k else []
    parts += [f"top-p {config.top_p:g}"] if config.top_p < 1 else []
    parts += [f"min-p {config.min_p:g}"] if config.min_p else []
    return ", ".join(parts)


# Several texts ------------------------------------------------------------------------------------


def compare(config: GenerateRun, temperatures: Sequence[float], view: View) -> Exit:
    """Write the text at several temperatures, in columns; step by step with `view.step`."""
    from ostinato.cli.token_columns import TokenColumn, column_width, side_by_side, staged
    from ostinato.remote import is_server
    from ostinato.text import write_at_temperatures

    if is_server(config.model):
        raise InputError(
            f"{TEMPERATURES} must be given with a model in this process, whose probabilities are "
            f"known, got the server {config.model}. Leave it out."
        )
    width = shutil.get_terminal_size().columns
    if not view.as_json:
        column_width(len(temperatures), width)
    loops = write_at_temperatures(config, temperatures, say=view.say)
    columns = [TokenColumn(_settings(replace(config, temperature=each))) for each in temperatures]
    written = _Written(columns, [iter(loop) for loop in loops])
    if view.step:
        with staged(columns, head=_asked(config), pace=view.pace) as stage:
            while written.advance() and stage.next():
                pass
    else:
        while written.advance():
            for column in columns:
                column.reveal()
    left = any(not column.sentence for column in columns)
    for column in columns:
        column.sentence = column.sentence or "It was left."
    if view.as_json:
        click.echo(json.dumps(written.to_json(temperatures)))
    else:
        click.echo("\n".join(side_by_side(columns, width)))
    return Exit.INTERRUPTED if left else Exit.DONE


class _Written:
    """Texts that are written token by token, each into its column."""

    def __init__(self, columns: Sequence[TokenColumn], steps: Sequence[Iterator[Step]]) -> None:
        self.columns, self.steps = columns, steps
        self.tokens: list[list[Mapping[str, Any]]] = [[] for _ in columns]
        self.results: list[LaneResult | None] = [None for _ in columns]

    def advance(self) -> bool:
        """Take a step of every text that has not ended; False where all have."""
        going = [number for number, result in enumerate(self.results) if result is None]
        for number in going:
            step, column = next(self.steps[number]), self.columns[number]
            for lane in step.lanes.values():
                column.pending = lane.report
                self.tokens[number].append(lane.report)
            for result in step.results:
                self.results[number], column.stop = result, result.stopped.sentence
        return bool(going)

    def to_json(self, temperatures: Sequence[float]) -> list[dict[str, Any]]:
        """Return each text with its temperature, why it stopped, and its tokens."""
        return [
            {
                "temperature": each,
                "text": column.text,
                "stopped": None if result is None else result.stopped.to_json(),
                "tokens": [dict(token) for token in tokens],
            }
            for each, column, result, tokens in zip(
                temperatures, self.columns, self.results, self.tokens, strict=True
            )
        ]
