"""What a command shows of a loop while it runs: a live line, plain lines, or events as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from ostinato.cli.options import Command, add_options
from ostinato.waiting import listen

if TYPE_CHECKING:
    from ostinato.loop import Loop, Report, Step
    from ostinato.refine import ProgressDisplay, Tally


@dataclass(frozen=True, kw_only=True)
class View:
    """What a command shows: its steps, events and a result as JSON, or errors and the result.

    `step`: a step for each key. `pace`: seconds between two steps.
    """

    show: bool = False
    as_json: bool = False
    quiet: bool = False
    step: bool = False
    pace: float | None = None

    @property
    def says(self) -> bool:
        """Whether sentences are printed beside the result."""
        return not (self.quiet or self.as_json)

    @property
    def sends_events(self) -> bool:
        """Whether events are printed."""
        return self.as_json and not self.quiet

    def say(self, line: str, *, err: bool = True) -> None:
        """Print a line about the work, or send it as an event; an empty one is left out."""
        if line and self.says:
            click.echo(line, err=err)
        elif line and self.sends_events:
            send("note", text=line)


def view_options(command: Command) -> Command:
    """Add --quiet and --json to a command that runs a loop, which gets one `view`."""

    @wraps(command)
    def collected(*, quiet: bool, as_json: bool, **params: Any) -> Any:
        view = View(as_json=as_json, quiet=quiet)
        listen(view.say)
        try:
            return command(view=view, **params)
        finally:
            listen(None)

    return _OPTIONS(collected)


_OPTIONS = add_options(
    click.option("--quiet", is_flag=True, help="Print only errors and the result."),
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print the result as one JSON object; progress goes to standard error as JSON lines.",
    ),
)


def send(event: str, **values: Any) -> None:
    """Print an event: one JSON object on a line of standard error."""
    click.echo(json.dumps({"event": event, **values}, ensure_ascii=False, default=str), err=True)


class EventProgress:
    """Sends numbers as often as plain lines come, and every item that is done.

    `values` returns what is sent of a report besides; `always` whether a report is sent at once.
    """

    def __init__(
        self,
        tally: Tally,
        values: Callable[[Report], Mapping[str, Any]] = lambda report: {},
        always: Callable[[Report], bool] = lambda report: False,
    ) -> None:
        self.tally, self._values, self._always = tally, values, always
        self._first = self._last = time.monotonic()

    def step(self, step: Step) -> None:
        """Count the step, and send what is new."""
        from ostinato.refine import interval

        self.tally.add_step(step)
        for result in step.results:
            send(
                "item",
                key=result.key,
                accepted=result.accepted,
                rounds=result.rounds,
                stopped=result.stopped.to_json(),
            )
        now = time.monotonic()
        if self._always(step.report) or now - self._last >= interval(now - self._first):
            self._last = now
            send("progress", **self.tally.numbers(now), **self._values(step.report))

    def __enter__(self) -> EventProgress:
        self._first = self._last = time.monotonic()
        self.tally.start(self._first)
        return self

    def __exit__(self, *raised: object) -> None:
        return None


def display_for(
    tally: Tally, view: View, *, replies: bool = False, alone: bool = False
) -> ProgressDisplay:
    """Return what shows the numbers as a view asks for.

    `alone`: nothing but events, as the command shows every step itself.
    """
    from ostinato.refine import QuietProgress, display_of

    if view.sends_events:
        return EventProgress(tally)
    if alone or (view.quiet and not view.show):
        return QuietProgress(tally)
    return display_of(tally, watch=view.show, replies=replies)


@contextmanager
def followed(loop: Loop, view: View, display: ProgressDisplay) -> Iterator[ProgressDisplay]:
    """Show a loop while it runs; with events say that it started, and why it finished.

    A run that is finished already shows nothing.
    """
    if loop.stopped is not None:  # it is finished, and takes no step
        yield display
        return
    recorded, began = loop.recorded_as, loop.tick
    if view.sends_events:
        kind = None if recorded is None else recorded.kind
        name = None if recorded is None else recorded.name
        send("started", run=name, kind=kind, tick=began)
    try:
        with display:
            yield display
    finally:
        if view.sends_events:
            send(
                "finished",
                status=None if recorded is None else recorded.now().status,
                tick=loop.tick,
                stopped=None if loop.stopped is None else loop.stopped.to_json(),
            )
