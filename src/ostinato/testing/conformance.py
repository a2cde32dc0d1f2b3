"""Conformance of processes and lane processes: each promise is one function that may raise.

Covered: the same seed gives the same reports; N steps equal k, a resume and N - k, bit for bit,
also for a resume of a resume; a state goes through a file unchanged; unknown edits are refused; a
lane is the same alone and in company, after it was brought back, and after going back. Not
covered: whether the process computes the right thing.
"""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ostinato.errors import EditError
from ostinato.journal import load_state, save_state
from ostinato.loop import Lane, LaneProcess, Process, Report, Timeline, is_end
from ostinato.testing.compare import differences

UNKNOWN_EDIT = {"no such edit": 1}
IDLE = 100  # steps in which no lane may move; a server needs some, each waits up to 0.1 s


def check_process(
    make: Callable[[], Process], *, steps: int = 12, cuts: Iterable[int] = (0, 1, 5, 11)
) -> None:
    """Check that a process keeps the promises. `make` builds a new one, always the same.

    `cuts` are the steps after which it is saved and resumed; name the edges of its epochs. Raises
    `AssertionError` with the promise and the path of the first difference.
    """
    expected = _reports(make(), steps)
    _same("Two runs with one seed", expected, _reports(make(), steps))
    for cut in sorted({min(cut, steps) for cut in cuts}):
        _check_resume(make, expected, steps, cut)
    _check_resume_of_resume(make, expected, steps)
    process = make()
    try:
        process.change(UNKNOWN_EDIT)
    except EditError:
        return
    raise AssertionError("change() must raise EditError for an edit that it does not know.")


def _reports(process: Process, steps: int) -> list[Report]:
    # Copies: a process that writes into a tensor it has reported must not change both sides.
    return [copy.deepcopy(dict(process.step())) for _ in range(steps)]


def _same(promise: str, a: object, b: object) -> None:
    found = differences(a, b)
    if found:
        raise AssertionError(f"{promise} must be equal bit for bit: {'; '.join(found[:3])}.")


def _through_file(state: Mapping[str, object]) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save_state(path, state)
        return load_state(path)


def _check_resume(
    make: Callable[[], Process], expected: Sequence[Report], steps: int, cut: int
) -> None:
    first = make()
    _reports(first, cut)
    saved = _through_file(first.state_dict())
    _same("A state and the same through a file", first.state_dict(), saved)
    second = make()
    second.load_state_dict(saved)
    _same("A state that is loaded and saved again", first.state_dict(), second.state_dict())
    rest = _reports(second, steps - cut)
    _same(f"{steps} steps and {cut}, a resume, {steps - cut}", expected[cut:], rest)
    _reports(first, steps - cut)
    _same("The state after a resume", first.state_dict(), second.state_dict())


def _check_resume_of_resume(
    make: Callable[[], Process], expected: Sequence[Report], steps: int
) -> None:
    process, seen = make(), []
    for _ in range(steps):
        state = _through_file(process.state_dict())
        process = make()
        process.load_state_dict(state)
        seen += _reports(process, 1)
    _same(f"{steps} steps and {steps} resumes", expected, seen)


def check_lane_process(
    make: Callable[[int], LaneProcess],
    items: Mapping[str, object],
    *,
    steps: int = 8,
    seed: int = 0,
    edits: Mapping[str, object] | None = None,
) -> None:
    """Check that a lane process keeps the promises. `make(slots)` builds a new one.

    `items` are at least three; each is run for `steps` positions or to its end. `edits` are some
    that the process knows, applied after going back. Of a process that does not repeat itself
    (`deterministic` is False) no bits are compared. Raises `AssertionError`.
    """
    alone = {key: _lanes(make(1), {key: item}, steps, seed)[key] for key, item in items.items()}
    if make(1).deterministic:
        _check_company(make, items, alone, steps, seed)
        _check_brought_back(make, items, alone, seed)
        _check_rewind(make, items, steps, seed, edits or {})
    _check_unknown_edit(make(1), next(iter(items.values())), seed)


def _check_unknown_edit(process: LaneProcess, item: object, seed: int) -> None:
    try:
        process.start(Lane("x", seed, edits=Timeline().added(0, UNKNOWN_EDIT)), item)
        process.step()
    except EditError:
        return
    raise AssertionError("start() must raise EditError for an edit that it does not know.")


def _check_company(
    make: Callable[[int], LaneProcess],
    items: Mapping[str, object],
    alone: Mapping[str, Sequence[Report]],
    steps: int,
    seed: int,
) -> None:
    keys = list(items)
    # All side by side, then in pairs that follow each other through the same slots.
    for slots in (len(keys), 2):
        for order in (keys, keys[::-1], random.Random(seed).sample(keys, len(keys))):
            process = make(slots)
            for start in range(0, len(order), slots):
                group = {key: items[key] for key in order[start : start + slots]}
                got = _lanes(process, group, steps, seed)
                expected = {key: alone[key] for key in group}
                _same("A lane alone and in company", expected, got)


def _lanes(
    process: LaneProcess, items: Mapping[str, object], steps: int, seed: int
) -> dict[str, list[Report]]:
    """Run some lanes to the end or for `steps` positions, and drop them."""
    for key, item in items.items():
        process.start(Lane(key, seed), item)
    return _advance(process, list(items), steps)


def _advance(process: LaneProcess, keys: Sequence[str], steps: int) -> dict[str, list[Report]]:
    seen: dict[str, list[Report]] = {key: [] for key in keys}
    going, idle = set(keys), 0
    while going:
        moved = process.step()
        idle = 0 if moved else idle + 1
        if idle > IDLE:
            raise AssertionError(f"A lane that has not ended must move; {sorted(going)} did not.")
        for key, report in moved.items():
            seen[key].append(copy.deepcopy(dict(report)))
            if is_end(report) or len(seen[key]) >= steps:
                process.drop(key)
                going.discard(key)
    return {key: [_decided(report) for report in reports] for key, reports in seen.items()}


def _decided(report: Report) -> Report:
    """Leave out what was spent: lanes may share a prompt that another one has computed."""
    return {name: v for name, v in report.items() if name not in ("prompt", "computed")}


def _check_brought_back(
    make: Callable[[int], LaneProcess],
    items: Mapping[str, object],
    alone: Mapping[str, Sequence[Report]],
    seed: int,
) -> None:
    for key, item in items.items():
        reports = alone[key]
        for cut in {1, len(reports) // 2, len(reports) - 1} - {0, len(reports)}:
            process = make(2)
            process.start(Lane(key, seed, past=tuple(reports[:cut])), item)
            rest = _advance(process, [key], len(reports) - cut)[key]
            _same("A lane and one that was brought back", reports[cut:], rest)


def _check_rewind(
    make: Callable[[int], LaneProcess],
    items: Mapping[str, object],
    steps: int,
    seed: int,
    edits: Mapping[str, object],
) -> None:
    """Going back in a process equals starting there from the past, with the same edits."""
    for key, item in items.items():
        process = make(1)
        process.start(Lane(key, seed), item)
        past: list[Report] = []
        while len(past) < steps and not (past and is_end(past[-1])):
            past += [copy.deepcopy(dict(report)) for report in process.step().values()]
        to = len(past) // 2
        lane = Lane(key, seed, backtracks=1, edits=Timeline().added(to, edits))
        process.rewind(lane, to)
        fresh = make(1)
        resumed = Lane(key, seed, backtracks=1, edits=lane.edits, past=tuple(past[:to]), again=True)
        fresh.start(resumed, item)
        again = _advance(process, [key], steps)[key]
        _same("Going back and starting there", again, _advance(fresh, [key], steps)[key])
