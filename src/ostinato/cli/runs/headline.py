"""What a list says of a run besides its state: what it works with, where to, and how well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, NamedTuple

from ostinato.journal import JSON, Run, RunSummary
from ostinato.loop import numbers

COUNTED = 20_000
"""Results whose verdicts are counted, at most: a list must not take long."""
UNJUDGED = ("chat", "fill", "flow", "generate", "play")
"""Kinds of runs whose results no check has judged."""
READ = 5_000
"""Steps that are read for the best value of a training."""


class Headline(NamedTuple):
    """Model, strategy, output and number of a run; empty where it has none."""

    model: str = ""
    strategy: str = ""
    output: str = ""
    number: str = ""

    @property
    def words(self) -> str:
        """All of it on one line."""
        return ", ".join(each for each in self if each)

    def to_json(self) -> dict[str, JSON]:
        """Return it as a JSON object."""
        return {name: value or None for name, value in self._asdict().items()}


def headline(run: Run, summary: RunSummary) -> Headline:
    """Return what is told of a run in a list."""
    config = summary.row.spec.get("config")
    written: dict[str, Any] = config if isinstance(config, dict) else {}
    settings = written.get("settings")
    inner: dict[str, Any] = settings if isinstance(settings, dict) else written
    strategy = inner.get("strategy")
    kind = strategy.get("kind") if isinstance(strategy, dict) else strategy
    output = written.get("output") or written.get("out")
    return Headline(
        model=_model(inner),
        strategy=kind if isinstance(kind, str) else "",
        output=PurePath(output).name if isinstance(output, str) else "",
        number=_number(run, summary),
    )


def _model(settings: dict[str, Any]) -> str:
    names = [
        PurePath(value.replace("\\", "/")).name
        for name in ("model", "adapter")
        if isinstance(value := settings.get(name), str) and value not in ("", ".")
    ]
    return "+".join(names)


def _number(run: Run, summary: RunSummary) -> str:
    from ostinato.runs import KINDS

    known = KINDS.get(summary.row.kind)
    if known is None or summary.row.kind in UNJUDGED:
        return ""
    if summary.results > COUNTED:
        return ""
    if summary.results:
        return f"{run.count_accepted():,} of {summary.results:,} accepted"
    return _best(run, summary, known.config_class())


def _best(run: Run, summary: RunSummary, kind: Any) -> str:
    """Return the best value of what a training is measured by; the last one of a long training."""
    measure, better = getattr(kind, "measure", ""), getattr(kind, "better", "min")
    if not measure or not summary.row.tick:
        return ""
    whole = summary.row.tick <= READ
    values = list(_values(run, measure, max(0, summary.row.tick - READ)))
    if not values:
        return ""
    best = min(values) if better == "min" else max(values)
    return f"best {measure} {best:.4g}" if whole else f"last {measure} {values[-1]:.4g}"


def _values(run: Run, measure: str, after: int) -> Iterator[float]:
    for step in run.steps(after):
        yield from numbers(step.report.get(measure))
