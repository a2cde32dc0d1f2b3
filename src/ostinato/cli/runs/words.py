"""What commands of runs share: the journal they open, lists of runs, values that are typed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ostinato.arguments import counted
from ostinato.cli.recording import existing_journal
from ostinato.errors import InputError
from ostinato.journal import Journal, RunRow, RunSummary

WIDTH = 100


@contextmanager
def opened(path: Path | None) -> Iterator[Journal]:
    """Open the journal of the command's or the group's `--journal`, or the default one."""
    context = click.get_current_context(silent=True)
    with existing_journal(path or (context.obj if context is not None else None)) as journal:
        yield journal


def listed(rows: Sequence[RunSummary], headlines: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield the lines of a list of runs: each with those that it called and its branches under it.

    The newest come first. `headlines` are what is told of some runs besides, by their ids.
    """
    there = {each.row.id for each in rows}
    under: dict[str | None, list[RunSummary]] = {}
    for each in rows:
        origins = [origin[0] for origin in (each.row.caller, each.row.parent) if origin]
        under.setdefault(next((id for id in origins if id in there), None), []).append(each)
    waiting = [(each, 0) for each in reversed(under.get(None, []))]
    while waiting:
        each, depth = waiting.pop()
        row, indent = each.row, "   " * depth
        mark = f"{indent[3:]}└─ " if depth else ""
        results = f"  {counted(each.results, 'results')}" if each.results else ""
        yield (
            f"{mark}{row.name}  {row.kind}  {row.status}  {_origin(row, there)}tick {row.tick}"
            f"{results}  {size_text(each.bytes)}  {ago(row.updated)}"
        )
        if told := (headlines or {}).get(row.id):
            yield f"{indent}  {cut(told)}"
        if row.stopped is not None:
            yield f"{indent}  {row.stopped.sentence}"
        if each.waits_for is not None:
            yield f"{indent}  asks: {cut(each.waits_for)}"
        waiting += [(other, depth + 1) for other in reversed(under.get(row.id, []))]


def _origin(row: RunRow, there: set[str]) -> str:
    """Return how a run comes from those that are listed with it."""
    called = f"called at {row.caller[1]}, " if row.caller and row.caller[0] in there else ""
    branch = f"from tick {row.parent[1]}, " if row.parent and row.parent[0] in there else ""
    return called + branch


def cut(text: str) -> str:
    """Return a text as one line that fits the screen."""
    line = " ".join(text.splitlines())
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def size_text(count: int) -> str:
    """Return a number of bytes in words: `1.2 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def ago(moment: float) -> str:
    """Return the time since a moment (seconds since 1970) in words: `3 min ago`."""
    seconds = max(0.0, time.time() - moment)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def setting(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE, as `--set` takes it."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"--set must be NAME=VALUE, got {text!r}. Write for example rate=0.5.")
    return name, json_or_text(value)


def json_or_text(text: str) -> Any:
    """Return the value of a JSON text, or the text: red needs no quotes within quotes."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text


def _no_number(word: str) -> float:
    """Refuse NaN and Infinity, which Python reads but JSON does not know: they stay text."""
    raise ValueError(word)
