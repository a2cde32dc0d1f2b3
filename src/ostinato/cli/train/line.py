"""What a line of progress shows of a report: names of values, and their formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any

from ostinato.loop import numbers

Line = Callable[[Mapping[str, Any]], str]
"""Returns what a line shows of a report."""


def line(*parts: str) -> Line:
    """Return a function that writes these parts, as far as a report holds their values.

    A part is a format of values by name, such as `"loss {loss/train:.4f}"`. Of several values of
    one name it shows the mean.
    """
    named = [(part, _names(part)) for part in parts]

    def shown(report: Mapping[str, Any]) -> str:
        values = means(report)
        return "  ".join(part.format_map(values) for part, names in named if names <= values.keys())

    return shown


def every_number(report: Mapping[str, Any]) -> str:
    """Write every number of a report with its name."""
    return "  ".join(f"{name} {value:.4g}" for name, value in means(report).items())


def means(report: Mapping[str, Any]) -> dict[str, float]:
    """Return a report's numbers by name; of several values of one name the mean."""
    several = {name: numbers(value) for name, value in report.items()}
    return {
        name: values[0] if len(values) == 1 else sum(values) / len(values)
        for name, values in several.items()
        if values
    }


def _names(part: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(part) if name}


TRAINING = line(
    "epoch {epoch:6.2f}", "loss {loss/train:.4f}", "lr {lr:.2e}", "valid {loss/valid:.4f}"
)
"""The line of a `Training`."""
