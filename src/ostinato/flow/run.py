"""Running flows: in Python, and from the record of a run. Builds `Loop(Lanes(FlowLanes(…)))`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostinato.arguments import did_you_mean
from ostinato.errors import InputError, RunError, Unanswered
from ostinato.flow.config import FlowRun
from ostinato.flow.flow_function import FlowFunction
from ostinato.flow.frames import current
from ostinato.flow.lanes import FlowLanes
from ostinato.flow.task import FlowSettings
from ostinato.flow.values import plain, typed
from ostinato.journal import Journal, Run, RunSource, require_unchanged
from ostinato.loop import ItemsWork, LaneResult, Lanes, Loop, Never, Policy, digest
from ostinato.output_files import write_whole
from ostinato.python_files import module_at
from ostinato.refine import keyed
from ostinato.row_files import place, read_rows
from ostinato.runs import record

if TYPE_CHECKING:
    from ostinato.loop import Condition

Pairs = Sequence[tuple[str, Mapping[str, Any]]]
"""Flows to run: a key and the arguments of each."""


@dataclass(kw_only=True)
class FlowWork(ItemsWork):
    """Flows that are ready to be driven: `count` of them; `rows` has the columns of each."""

    flow: FlowFunction[..., Any]
    lanes: FlowLanes
    out: Path | None = None
    rows: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    count: int = 1

    def value(self, result: LaneResult) -> Any:
        """Return what a flow returned, as its annotation says."""
        name = f"What {self.flow.name} returned"
        return typed(result.output, self.flow.returns, name)

    def write(self) -> None:
        """Write a line for each flow that has returned, in the order of the rows."""
        if self.out is not None:
            write_whole(self.out, map(self._line, self.results))

    def _line(self, result: LaneResult) -> str:
        row = {
            "id": result.key,
            "output": plain(result.output, "an output"),
            "columns": plain(self.rows.get(result.key, {}), "columns"),
            "spent": dict(result.spent),
        }
        return json.dumps(row, ensure_ascii=False) + "\n"

    @property
    def tokens(self) -> int:
        """The tokens that flows have written so far, in this session."""
        return self.lanes.tokens

    def close(self) -> None:
        """End the flows that are in progress; they go on when the run is resumed."""
        self.lanes.close()


def work_of(
    flow: FlowFunction[..., Any],
    pairs: Pairs,
    config: FlowRun,
    *,
    run: RunSource | None,
    model: Any = None,
    **more: Any,
) -> FlowWork:
    """Return flows with the loop that drives them; `model` replaces that of the configuration."""
    lanes = FlowLanes(
        flow,
        settings=FlowSettings(model=config.model if model is None else model, seed=config.seed),
        text_slots=config.slots,
        in_progress=config.in_progress,
        single=config.single,
    )
    until: Condition | None = config.until
    loop = Loop(
        Lanes(lanes, pairs, Policy(each=Never()), seed=config.seed),
        until=until,
        run=run,
        keep="results",
    )
    lanes.session = loop.session
    return FlowWork(loop=loop, flow=flow, lanes=lanes, count=len(pairs), **more)


# In Python --------------------------------------------------------------------------------------


def run_once(
    flow: FlowFunction[..., Any],
    arguments: Mapping[str, Any],
    *,
    name: str | None = None,
    journal: Journal | None = None,
    model: Any = "smollm2",
    seed: int = 0,
    slots: int = 16,
) -> Any:
    """Run a flow, recorded under `name` if there is one; return what it returns."""
    refuse_nested(flow.name)
    written = plain(arguments, f"The arguments of {flow.name}")
    assert isinstance(written, dict)
    config = _config(flow, model, seed=seed, slots=slots, arguments=written)
    with ExitStack() as stack:
        run = recorded(config, name, journal, stack)
        work = work_of(flow, [(flow.name, arguments)], config, run=run, model=model)
        for result in _results(work):
            return work.value(result)
        raise not_ended(work)


def run_over(
    flow: FlowFunction[..., Any],
    rows: Iterable[Mapping[str, object]],
    *,
    name: str | None,
    journal: Journal | None,
    model: Any,
    seed: int,
    slots: int,
    in_progress: int,
) -> Iterator[tuple[str, Any]]:
    """Run a flow for every row; yield the key and the value of each as it returns."""
    refuse_nested(flow.name)
    given = keyed(rows)
    pairs = [(key, _arguments(flow, row, f"Row {n}")) for n, (key, row) in enumerate(given, 1)]
    items = rows_digest(given)
    config = _config(flow, model, seed=seed, slots=slots, in_progress=in_progress, items=items)
    with ExitStack() as stack:
        run = recorded(config, name, journal, stack)
        work = work_of(flow, pairs, config, run=run, model=model)
        for result in _results(work):
            yield result.key, work.value(result)
        if work.loop.stopped is None or not work.loop.stopped.good:
            raise not_ended(work)


def _results(work: FlowWork) -> Iterator[LaneResult]:
    """Yield the results of earlier sessions, then each as it comes."""
    run, seen = work.loop.recorded_as, set[str]()
    for key, row in () if run is None else run.results():
        seen.add(key)
        yield LaneResult.from_json(row)
    with work.loop:
        try:
            for step in work.loop:
                yield from (result for result in step.results if result.key not in seen)
        finally:
            work.close()


def not_ended(work: FlowWork) -> RunError:
    """Return the error of a flow that has not returned: `Unanswered` where it waits."""
    stopped, run = work.loop.stopped, work.loop.recorded_as
    if stopped is not None and stopped.condition == "ask" and run is not None:
        return Unanswered(stopped.sentence, run.id, str(stopped.numbers["path"]))
    why = stopped.sentence if stopped is not None else "It was paused."
    return RunError(f"The flow {work.flow.name} has not returned: {why}")


def refuse_nested(name: str) -> None:
    """Raise `InputError` where a flow is run within another one."""
    if current.get() is not None:
        raise InputError(
            f"A flow must be called in another one by itself, got {name}.run() or .over(). "
            f"Call {name}(…), or several with gather."
        )


def _config(flow: FlowFunction[..., Any], model: Any, **settings: Any) -> FlowRun:
    source = flow.source
    return FlowRun(
        program=None if source is None else source[0],
        function=flow.name if source is None else source[1],
        model=model if isinstance(model, str) else model.name,
        **settings,
    )


def recorded(
    config: FlowRun, name: str | None, journal: Journal | None, stack: ExitStack
) -> Run | None:
    """Find or make the run of a name; None without one. A journal is closed with the stack."""
    if name is None:
        return None
    if journal is None:
        journal = stack.enter_context(Journal())
    return record(journal, config, name=name)


def _arguments(
    flow: FlowFunction[..., Any], row: Mapping[str, object], where: str
) -> dict[str, Any]:
    try:
        return flow.from_row(row)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def rows_digest(rows: Iterable[tuple[str, Mapping[str, object]]]) -> str:
    """Return a hash of rows with their keys, in their order."""
    return digest([[key, plain(dict(row), "a row")] for key, row in rows])


# From a record ----------------------------------------------------------------------------------


def build_flow(config: FlowRun, *, run: RunSource | None = None) -> FlowWork:
    """Build a run of flows: import its program, read its rows.

    Raises `InputError` for a program without this flow and for rows that do not fit it, `RunError`
    for a flow that only its own program can run.
    """
    if config.program is None or config.items:
        name = run.name if isinstance(run, Run) else "NAME"
        raise RunError(
            f"The run {name!r} must be resumed by the program that started it: its flow or its "
            f"rows are made there. Call the same {config.resumed_by(name)} again."
        )
    flow = flow_of(config.program, config.function)
    if config.input is None:
        arguments = flow.bound(**flow.typed_arguments(config.arguments))
        return work_of(flow, [(flow.name, arguments)], config, run=run)
    read = read_rows(config.input)[: config.limit]
    rows = keyed([row for _, row in read])
    require_unchanged(f"The rows of {config.input.name}", config.rows, rows_digest(rows))
    pairs = [
        (key, _arguments(flow, row, place(config.input, number)))
        for (key, row), (number, _) in zip(rows, read, strict=True)
    ]
    return work_of(flow, pairs, config, run=run, out=config.out, rows=dict(rows))


def rows_digest_of(path: Path, limit: int | None = None) -> str:
    """Return the hash of the rows of a file, of the first `limit`.

    Raises `InputError` where it cannot be read.
    """
    return rows_digest(keyed([row for _, row in read_rows(path)[:limit]]))


def flow_of(program: Path, name: str = "") -> FlowFunction[..., Any]:
    """Import a program and return its flow of a name; without one, its only flow."""
    if not program.is_file():
        raise InputError(f"The program of a flow must be a file, got {program}. There is none.")
    module = module_at(program.resolve(), "The program of a flow", imports_beside=True)
    flows = {key: each for key, each in vars(module).items() if isinstance(each, FlowFunction)}
    if name in flows:
        return flows[name]
    there = ", ".join(flows) or "none"
    if not name and len(flows) == 1:
        return next(iter(flows.values()))
    if not name:
        raise InputError(
            f"The flow of {program.name} must be named, as there are several: {there}. "
            f"Give {program.name}:{next(iter(flows))}."
            if flows
            else f"{program.name} must have a function marked with @flow, got none. Mark it."
        )
    raise InputError(
        f"{program.name} must have the flow {name!r}, a function marked with @flow, got {there}."
        f"{did_you_mean(name, flows)}"
    )
