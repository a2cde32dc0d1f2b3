"""A block of steps as JSON, and back; reports with the same names become columns.

Columns are a third of the size of rows, and take a third of the time. A block is an object.
`ticks` and `positions` are lists, or the first of consecutive numbers. `reports` is an object of
columns, or a list of objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ostinato.errors import RunError
from ostinato.journal.encoding import Entry, decode, encode
from ostinato.journal.fields import DAMAGED, as_object
from ostinato.journal.sqlite.schema import check_types


def encode_block(steps: Sequence[Entry], encode: Callable[[object], str] = encode) -> str:
    """Write a block of steps, at least one."""
    ticks, positions, reports = zip(*steps, strict=True)
    block = {
        "ticks": _shorter(ticks),
        "positions": _shorter(positions),
        "reports": _columns(reports),
    }
    return encode(block)


def _shorter(numbers: Sequence[int]) -> int | list[int]:
    first = numbers[0]
    if numbers[-1] - first == len(numbers) - 1 and (
        list(numbers) == list(range(first, first + len(numbers)))
    ):
        return first
    return list(numbers)


def _columns(reports: Sequence[Mapping[str, object]]) -> object:
    names = reports[0].keys()
    if not names or any(report.keys() != names for report in reports):
        return reports
    return {name: [report[name] for report in reports] for name in names}


def decode_block(
    text: str, decode: Callable[[str], Any] = decode
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Read back what `encode_block` wrote: (tick, position, report) of each step.

    Raises `RunError` for what it did not write.
    """
    block = as_object(decode(text))
    try:
        reports = block["reports"]
        if isinstance(reports, dict):
            names = list(reports)
            rows = zip(*reports.values(), strict=True)
            reports = [dict(zip(names, row, strict=True)) for row in rows]
        ticks, positions = (_longer(block[name], len(reports)) for name in ("ticks", "positions"))
        steps = list(zip(ticks, positions, map(as_object, reports), strict=True))
        check_types(("tick", "position"), [step[:2] for step in steps])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"The journal must hold steps where it has {text!r:.60}, got: {error}. {DAMAGED}"
        ) from None
    return iter(steps)


def _longer(numbers: int | list[int], count: int) -> Sequence[int]:
    return numbers if isinstance(numbers, list) else range(numbers, numbers + count)
