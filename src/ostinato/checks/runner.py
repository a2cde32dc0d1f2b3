"""Running many checks on one output: under a clock where a user's code runs, errors as verdicts."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

from ostinato.checks.deadline import left
from ostinato.loop import Check, Item, PrefixStatus, PrefixVerdict, RequiredText, Verdict

TIME_LIMIT = 10.0  # seconds for one judgment


def judge_all(
    checks: Sequence[Check], output: object, item: Item, time_limit: float = TIME_LIMIT
) -> list[Verdict]:
    """Judge with every check, in their order.

    A check that raises, takes longer than `time_limit` seconds or gives no usable verdict yields
    a verdict with an `error`; it is not passed. So does one that has no time left under a clock
    that runs.
    """
    return [_judged(check, output, item, time_limit) for check in checks]


def check_prefix_all(
    checks: Sequence[Check],
    output: object,
    item: Item,
    time_limit: float = TIME_LIMIT,
    late: set[str] | None = None,
) -> tuple[Check, PrefixVerdict] | None:
    """Return the first check that no continuation can pass, with its prefix verdict, or None.

    A check that cannot check_prefix because it raises or takes too long says nothing here: the whole
    verdict will tell. `late` keeps the names of those that took too long: they are told of in a
    warning once, and not asked again.
    """
    for check in checks:
        verdict = _ahead(check, check.check_prefix, output, item, time_limit, late)
        if verdict is None:
            continue
        if verdict.status is PrefixStatus.IMPOSSIBLE:
            return check, verdict
    return None


def required_by(
    checks: Sequence[Check],
    output: object,
    item: Item,
    time_limit: float = TIME_LIMIT,
    late: set[str] | None = None,
) -> list[RequiredText]:
    """Return what each check says the output lacks, where that can be said.

    A check that raises or takes too long wants nothing here: the whole verdict will tell. `late`
    is as in `check_prefix_all`.
    """
    found: list[RequiredText] = []
    for check in checks:
        wanted = _ahead(check, check.wants, output, item, time_limit, late)
        if wanted is not None and wanted.texts:
            found.append(wanted)
    return found


def _ahead(
    check: Check,
    method: Callable[[object, Item], Any],
    output: object,
    item: Item,
    limit: float,
    late: set[str] | None,
) -> Any:
    """Ask a check about a beginning; None where it raises, takes too long, or once did."""
    if late is not None and check.name in late:
        return None
    try:
        limit = left(limit)
    except TimeoutError:
        return None
    try:
        return _call(check, method, output, item, limit)
    except TimeoutError:
        if late is not None:
            late.add(check.name)
            warnings.warn(
                f"The check '{check.name}' must look ahead within {limit:g} seconds, and did not: "
                "from here on it judges whole outputs only. Make its prefix function faster.",
                stacklevel=2,
            )
    except Exception:
        pass
    return None


def _judged(check: Check, output: object, item: Item, time_limit: float) -> Verdict:
    try:
        time_limit = left(time_limit)
    except TimeoutError as error:
        return _error(check, str(error))
    try:
        verdict = _call(check, check.judge, output, item, time_limit)
    except TimeoutError:
        return _error(check, f"The check must judge within {time_limit:g} seconds, and did not.")
    except Exception as error:
        return _error(check, f"The check raised {type(error).__name__}: {error}")
    if not isinstance(verdict, Verdict):
        return _error(check, f"The check must return a Verdict, got {type(verdict).__name__}.")
    if verdict.error:  # whatever else it says
        return replace(verdict, passed=False, score=0.0)
    if not (math.isfinite(verdict.score) and 0 <= verdict.score <= 1):
        return _error(check, f"A score must be in [0, 1], got {verdict.score!r}.")
    return verdict


def _error(check: Check, sentence: str) -> Verdict:
    return Verdict(check.name, False, 0.0, error=sentence)


def _call(
    check: Check, method: Callable[[object, Item], Any], output: object, item: Item, limit: float
) -> Any:
    # Our own checks are fast and have clocks of their own; a thread would cost more than they do.
    if getattr(check, "trusted", False):
        return method(output, item)
    return limited(lambda: method(output, item), limit)


class _Worker:
    """A thread that calls what it is given. It is a daemon: a call that hangs keeps no one."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self.results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        threading.Thread(target=self._work, name="ostinato-check", daemon=True).start()

    def _work(self) -> None:
        while (call := self.calls.get()) is not None:
            try:
                self.results.put((call(), None))
            except BaseException as error:
                self.results.put((None, error))


_idle: list[_Worker] = []
os.register_at_fork(after_in_child=_idle.clear)  # threads do not survive a fork


def limited(call: Callable[[], Any], seconds: float) -> Any:
    """Return what the call returns. Raises `TimeoutError` after `seconds`; the call is left."""
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    worker.calls.put(call)
    try:
        result, error = worker.results.get(timeout=seconds)
    except Exception:  # queue.Empty
        worker.calls.put(None)  # ends it if the call ever returns
        raise TimeoutError(f"no answer within {seconds:g} seconds") from None
    _idle.append(worker)
    if error is not None:
        raise error
    return result
